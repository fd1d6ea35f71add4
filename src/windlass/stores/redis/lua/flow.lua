-- needs: record
-- Limits: who may run beside whom, counted from the permits of those that run.

local rules = {}

local function rules_of(queue)
    if not rules[queue] then
        local found = call('HGET', K.queues, queue)
        rules[queue] = found and unpack_one(found) or {}
    end
    return rules[queue]
end

local function all_rules()
    local found, flat = {}, call('HGETALL', K.queues)
    for n = 1, #flat, 2 do
        insert(found, {flat[n], unpack_one(flat[n + 1])})
    end
    return found
end

local function runs_under(key)
    return how_many(K.permits, key .. '\0')
end

local function runs_in(queue)
    flush() -- one claim may ask for a queue twice
    return tonumber(call('HGET', K.counts, 'running\0' .. queue) or 0) + (under(counted, 'running')[queue] or 0)
end

-- How many more of a queue may start; nil where nobody has set a limit.
local function queue_room(queue)
    local most = rules_of(queue).limit
    return most and math.max(0, most - runs_in(queue))
end

-- Go through jobs in their order until `room` are let in; the others are blocked by the first limit that is full.
local function admit(line, room)
    local running, found, kept = {}, {}, {}
    for _, job in ipairs(line) do
        if room <= 0 then
            break
        end
        local full
        for _, limit in ipairs(job[LIMITS] or {}) do
            running[limit[1]] = running[limit[1]] or runs_under(limit[1])
            if not full and running[limit[1]] >= limit[2] then
                full = limit
            end
        end
        if full then
            insert(kept, {job, full})
        else
            room = room - 1
            for _, limit in ipairs(limits_of(job)) do
                running[limit[1]] = running[limit[1]] + 1
            end
            insert(found, job)
        end
    end
    return found, kept
end

-- Keys under which anybody is blocked, each with the lines in which: from one to the next, never past the jobs in them.
local function blocked_lines(key)
    local found, from, to = {}, key and key .. '\0' or '', key and key .. '\1' or '\255'
    while true do
        local member = between(K.blocked, from, to, 1)[1]
        if not member then
            return found
        end
        local first = find(member, '\0', 1, true)
        local second = find(member, '\0', first + 1, true)
        local line = sub(member, 1, second + 4)
        insert(found, {sub(member, 1, first - 1), line, (struct.unpack('>I4', member, second + 1))})
        from = line .. '\255'
    end
end

-- So many runs under a key are over, or nil: whatever there is room for. Whose turn is it? Whether it is anybody's.
local function unblock(key, freed)
    local any = false
    for _, line in ipairs(blocked_lines(key)) do
        local room = math.max(0, line[3] - runs_under(line[1]))
        local most = freed and math.min(freed, room) or room
        if most > 0 then
            for _, member in ipairs(along(K.blocked, line[2], most)) do
                local job = open(sub(member, #line[2] + 15))
                job[STATE], job[REASON], job[BLOCKER], job[MOST] = 'queued', false, false, false
                any = true
            end
        end
    end
    return any
end

-- So many turns pass on under each key. Whether anybody has got one.
local function pass_on(turns)
    local any = false
    for key, freed in pairs(turns) do
        any = unblock(key, freed) or any
    end
    return any
end

-- These are kept back. Under each of their keys that is not the one which blocks them, another may have its turn.
local function keep_back(kept)
    local turns = {}
    for _, each in ipairs(kept) do
        local job, full = change(each[1]), each[2]
        job[STATE], job[REASON], job[BLOCKER], job[MOST] = 'blocked', 'limit', full[1], full[2]
        for _, limit in ipairs(limits_of(job)) do
            if limit[1] ~= full[1] then
                turns[limit[1]] = (turns[limit[1]] or 0) + 1
            end
        end
    end
    return pass_on(turns)
end

-- Those runs are over.
local function free(ended)
    local turns = {}
    for _, job in ipairs(ended) do
        for _, limit in ipairs(limits_of(job)) do
            turns[limit[1]] = (turns[limit[1]] or 0) + 1
        end
    end
    pass_on(turns)
end
