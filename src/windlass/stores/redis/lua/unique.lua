-- needs: record
-- Unique keys: who owns one, and who comes after; see core/unique.py.

local OWNER, SUCCESSOR, WINDOW, LIVE, AWAY = 1, 2, 3, 4, 5

local function unique_place(job)
    return job[TENANT] .. '\0' .. job[TASK] .. '\0' .. job[UNIQUE]
end

local entries = {} -- by place, as they are now; false: there is none

local function entry_of(at)
    if entries[at] == nil then
        local found = call('HGET', K.unique, at)
        entries[at] = found and unpack_one(found)
    end
    return entries[at] or nil
end

local function keep_entry(at, entry)
    entries[at] = entry
    later('HSET', K.unique, at, pack(entry))
end

local function drop_entry(at)
    entries[at] = false
    later('HDEL', K.unique, at)
end

-- The window of a throttle whose job has ended stays for itself.
local function keep_window(at, entry)
    entry[LIVE] = false
    keep_entry(at, entry)
    later('ZADD', K.outliving, entry[WINDOW], 'u' .. at)
end

-- This job has ended, or is gone: its key is free, or its successor's.
local function give_up(job)
    local at = job[UNIQUE] and unique_place(job)
    local entry = at and entry_of(at)
    if entry and entry[SUCCESSOR] == job[ID] then
        entry[SUCCESSOR] = false
        keep_entry(at, entry)
    elseif entry and entry[OWNER] == job[ID] and entry[LIVE] then
        if entry[SUCCESSOR] then
            local next = open(entry[SUCCESSOR])
            next[STATE], next[REASON] = next[DUE_AT] > now and 'scheduled' or 'queued', false
            keep_entry(at, {next[ID], false, false, true, false})
        elseif entry[WINDOW] and now < entry[WINDOW] then
            keep_window(at, entry)
        else
            drop_entry(at)
        end
    end
end

-- End a job that waits, without an attempt.
local function finish(job, state, reason)
    job[STATE], job[REASON], job[FINISHED] = state, reason, now
    job[PARKED], job[BLOCKER], job[MOST], job[SUSPECT], job[ERROR] = false, false, false, false, false
    give_up(job)
end
