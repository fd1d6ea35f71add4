-- What comes due, and what comes too late.

local function id_of(member)
    return sub(member, 7)
end

local function come_due(most)
    for _, member in ipairs(call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, most)) do
        local job = open(id_of(member))
        job[STATE], job[REASON], job[PARKED] = 'queued', false, false
        put(job)
    end
    for _, member in ipairs(call('ZRANGEBYSCORE', EXPIRING, '-inf', now, 'LIMIT', 0, most)) do
        finish(open(id_of(member)), 'expired', 'expired')
    end
end

local function next_due()
    local first = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
    return first[2] and math.max(0, tonumber(first[2]) - now) or NIL
end

-- Queues in which anybody stands in line, of one kind.
local function ready_queues(suspect)
    local found, from = {}, suspect and '[1' or '[0'
    local to = suspect and '(2' or '(1'
    while true do
        local member = call('ZRANGEBYLEX', READY, from, to, 'LIMIT', 0, 1)[1]
        if not member then
            return found
        end
        local queue = sub(member, 2, find(member, '\0', 1, true) - 1)
        insert(found, queue)
        from = '(' .. ready_line(suspect, queue) .. '\255'
    end
end
