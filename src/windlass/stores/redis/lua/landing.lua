-- needs: store
-- Jobs that come from another store. Of a parcel: the job as record.lua has it, its body, attempts, logs, first
-- results, progress, whether it lost its key, until when its unique key stands for it, whom it follows, ids that are
-- merged into it, its unique policy, its digest.

local JOB, BODY, PAST, LINES, FIRSTS, SAYS, LOST, UNTIL = 1, 2, 3, 4, 5, 6, 7, 8
local FOLLOWS, OTHERS, POLICY, PRINT = 9, 10, 11, 12

-- Whoever has its idempotency key; one that left it behind when it departed does not.
local function other_with_key(p)
    local job = p[JOB]
    if not job[KEY] or p[LOST] then
        return nil
    end
    local owned = key_owner(key_place(job))
    if not owned or owned[1] == job[ID] or not owned[3] and not read(owned[1]) then
        return nil
    end
    return owned[1]
end

-- How a living job goes behind the living owner of its key: see ports/landing.py, follows.
local function may_follow(p, entry, owner)
    if entry[SUCCESSOR] then
        return false
    end
    if p[FOLLOWS] == entry[OWNER] then
        return true
    end
    return owner and owner[STATE] == 'running' and GIVES_WAY[p[POLICY]]
end

-- A living job, with its unique key or behind whoever has it. Who keeps it out.
local function take_place_of(p)
    local job = p[JOB]
    local id, at = job[ID], unique_place(job)
    local entry = entry_of(at)
    if entry and not (entry[LIVE] or p[POLICY] == 'throttle' and entry[WINDOW] and now < entry[WINDOW]) then
        entry = nil
    end
    if not entry or entry[OWNER] == id or entry[AWAY] and p[FOLLOWS] ~= entry[OWNER] then
        if p[FOLLOWS] then
            job[STATE], job[REASON] = job[DUE_AT] > now and 'scheduled' or 'queued', false
        end
        keep_entry(at, {id, entry and entry[SUCCESSOR] or false, p[UNTIL] or false, true, false})
        return nil
    end
    local owner = read(entry[OWNER])
    if not may_follow(p, entry, owner) then
        return entry[OWNER]
    end
    if owner and p[FOLLOWS] ~= entry[OWNER] and p[POLICY] == 'replace' then
        change(owner)[CANCELLING] = true
    end
    entry[SUCCESSOR] = id
    keep_entry(at, entry)
    job[STATE], job[REASON], job[PARKED] = 'blocked', 'unique', false
    return nil
end

local function unload(p)
    local job = p[JOB]
    local id = job[ID]
    enter(job, p[BODY])
    if #p[PAST] > 0 then
        call('HSET', K.attempts, id, pack(p[PAST]))
    end
    for n, line in ipairs(p[LINES]) do
        call('HSET', K.logs, id .. '\0' .. n, line, id, n)
    end
    if next(p[FIRSTS]) then
        call('HSET', K.once, id, pack(p[FIRSTS]))
    end
    if p[SAYS] then
        call('HSET', K.progress, id, p[SAYS])
    end
    for _, other in ipairs(p[OTHERS]) do
        merge(other, id)
    end
    if job[KEY] and not p[LOST] then
        keep_key(key_place(job), id, job[DIGEST])
    end
    call('ZREM', K.departed, id)
end

local refused = {} -- ids that were kept out

local function land(p)
    local job = p[JOB]
    local id, ended, word = job[ID], TERMINAL[job[STATE]], 'moved'
    if read(id) then
        return {id, 'present', ''}
    end
    local other = other_with_key(p)
    if other and ended then
        word, p[LOST] = 'keyless', true
    end
    local keeps_out = not ended and other
    if not ended and not keeps_out and job[UNIQUE] then
        keeps_out = p[FOLLOWS] and refused[p[FOLLOWS]] and p[FOLLOWS] or take_place_of(p)
    end
    if keeps_out then
        refused[id] = true
        return {id, 'conflict', keeps_out}
    end
    if ended and job[UNIQUE] and p[UNTIL] and now < p[UNTIL] and not entry_of(unique_place(job)) then
        keep_window(unique_place(job), {id, false, p[UNTIL], false, false})
    end
    unload(p)
    return {id, word, other or ''}
end
