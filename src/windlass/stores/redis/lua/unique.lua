-- Unique keys: who owns one, and who comes after; see core/unique.py.

local OWNER, SUCCESSOR, WINDOW, LIVE, AWAY = 1, 2, 3, 4, 5

local function unique_place(job)
    return job[TENANT] .. '\0' .. job[TASK] .. '\0' .. job[UNIQUE]
end

local function entry_of(at)
    local found = call('HGET', UNIQUES, at)
    return found and unpack_one(found) or nil
end

local function keep_entry(at, entry)
    call('HSET', UNIQUES, at, pack(entry))
end

-- These jobs have ended, or are gone: their keys are free, or their successors'.
local function give_up(jobs)
    for _, job in ipairs(jobs) do
        local at = job[UNIQUE] and unique_place(job)
        local entry = at and entry_of(at)
        if entry and entry[SUCCESSOR] == job[ID] then
            entry[SUCCESSOR] = false
            keep_entry(at, entry)
        elseif entry and entry[OWNER] == job[ID] and entry[LIVE] then
            if entry[SUCCESSOR] then
                local next = open(entry[SUCCESSOR])
                next[STATE], next[REASON] = next[DUE_AT] > now and 'scheduled' or 'queued', false
                put(next)
                keep_entry(at, {next[ID], false, false, true, false})
            elseif entry[WINDOW] and now < entry[WINDOW] then
                entry[LIVE] = false
                keep_entry(at, entry)
                call('ZADD', OUTLIVING, entry[WINDOW], 'u' .. at)
            else
                call('HDEL', UNIQUES, at)
            end
        end
    end
end

-- End a job that waits, without an attempt.
local function finish(job, state, reason)
    job[STATE], job[REASON], job[FINISHED], job[PARKED], job[BLOCKER], job[MOST] = state, reason, now, false, false, false
    job[SUSPECT], job[ERROR] = false, false
    put(job)
    give_up({job})
end
