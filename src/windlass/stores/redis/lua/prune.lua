-- needs: record flow unique store workers
-- given: ages by state, keys' age, workers' age, limit, departed's age. Answers jobs, results, keys, workers, done.

local limit, jobs = given[4], 0
for state, age in pairs(given[1]) do
    for _, member in ipairs(call('ZRANGEBYSCORE', TERMINAL[state], '-inf', now - age, 'LIMIT', 0, math.max(0, limit - jobs))) do
        local job = read(sub(member, 7))
        local at = job[KEY] and key_place(job)
        local owned = at and call('HGET', KEYS_OF, at)
        if owned and unpack_one(owned)[1] == job[ID] then -- the key outlives its owner
            owned = unpack_one(owned)
            call('HSET', KEYS_OF, at, pack({owned[1], owned[2], job[FINISHED]}))
        end
        remove(job)
        jobs = jobs + 1
    end
end
local results = 0
for _, member in ipairs(call('ZRANGEBYSCORE', RESULTS, '-inf', now, 'LIMIT', 0, math.max(0, limit - jobs))) do
    local job = open(sub(member, 7))
    job[RESULT], job[RESULT_UNTIL], job[RESULT_GONE] = false, false, true
    put(job)
    results = results + 1
end
local keys = 0
for _, member in ipairs(call('ZRANGEBYSCORE', OUTLIVING, '-inf', now, 'LIMIT', 0, limit)) do
    local kind, at = sub(member, 1, 1), sub(member, 2)
    if kind == 'u' then
        local entry = entry_of(at)
        if not entry or entry[LIVE] or entry[WINDOW] <= now then
            if entry and not entry[LIVE] then
                call('HDEL', UNIQUES, at)
            end
            call('ZREM', OUTLIVING, member)
        end
    end
end
for _, member in ipairs(call('ZRANGEBYSCORE', OUTLIVING, '-inf', now - given[2], 'LIMIT', 0, limit)) do
    if sub(member, 1, 1) == 'k' then
        local at = sub(member, 2)
        local owned = call('HGET', KEYS_OF, at)
        owned = owned and unpack_one(owned)
        local owner = owned and read(owned[1])
        local ended = owner and owner[FINISHED] or not owner and owned and owned[3]
        if ended and ended + given[2] <= now then
            call('HDEL', KEYS_OF, at)
            keys = keys + 1
        end
        call('ZREM', OUTLIVING, member)
    end
end
local workers = 0
for _, each in ipairs(all_workers()) do
    local worker = each[2]
    if (worker.taken or now > worker.lease) and worker.beat < now - given[3] and #held_by(each[1]) == 0 then
        call('HDEL', WORKERS, each[1])
        workers = workers + 1
    end
end
return done({jobs, results, keys, workers, jobs + results >= limit})
