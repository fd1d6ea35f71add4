-- needs: unique
-- What comes due, and what comes too late.

local function id_of(member)
    return sub(member, 7)
end

-- Those of a line by time whose time has come, ready to be changed.
local function those_due(key, most)
    local ids = {}
    for n, member in ipairs(until_now(key, now, most)) do
        ids[n] = id_of(member)
    end
    read_all(ids)
    return ids
end

local function come_due(most)
    for _, id in ipairs(those_due(K.due, most)) do
        local job = open(id)
        job[STATE], job[REASON], job[PARKED] = 'queued', false, false
    end
    for _, id in ipairs(those_due(K.expiring, most)) do
        finish(open(id), 'expired', 'expired')
    end
end

local function next_due()
    flush()
    local first = call('ZRANGE', K.due, 0, 0, 'WITHSCORES')
    return first[2] and math.max(0, tonumber(first[2]) - now) or NIL
end

-- Queues in which anybody stands in line, of one kind.
local function ready_queues(suspect)
    local found, from, to = {}, suspect and '1' or '0', suspect and '2' or '1'
    while true do
        local member = between(K.ready, from, to, 1)[1]
        if not member then
            return found
        end
        local queue = sub(member, 2, find(member, '\0', 1, true) - 1)
        insert(found, queue)
        from = ready_line(suspect, queue) .. '\255'
    end
end
