-- needs: store workers cas
-- given: ages by state, keys' age, workers' age, limit, how long those that departed are known, leads to forget (as
-- cas.lua takes them). Answers jobs, results, keys, workers, more.

local ages, keys_age, workers_age, limit = given[1], given[2], given[3], given[4]

local function id_of(seq)
    return call('ZRANGEBYSCORE', K.index, seq, seq)[1]
end

-- Forget a job whose time is over; its key outlives it.
local function prune(job)
    local at = job[KEY] and key_place(job)
    local owned = at and kept_key(at)
    if owned and owned[1] == job[ID] then
        owned[3] = job[FINISHED]
        later('HSET', K.keys, at, pack(owned))
        later('ZADD', K.left, 0, at)
    end
    remove(job)
end

-- An entry counts if the job ended so, and not later, which it did if it was revived meanwhile.
local function prune_ended(state, before, most)
    local gone, met = 0, 0
    for _, entry in ipairs(call('LRANGE', TERMINAL[state], 0, most - 1)) do
        local at, seq = struct.unpack('>I7I6', entry)
        if at > before then
            break
        end
        met = met + 1
        local id = id_of(seq)
        local job = id and read(id)
        if job and job[STATE] == state and job[FINISHED] <= at then
            prune(job)
            gone = gone + 1
        end
    end
    if met > 0 then
        call('LTRIM', TERMINAL[state], met, -1)
    end
    return gone, met == most
end

local blocks = {}

local function prune_jobs()
    local gone, more = 0, false
    for state, age in pairs(ages) do
        if gone < limit then
            local n, full = prune_ended(state, now - age, limit - gone)
            gone, more = gone + n, more or full
        end
    end
    for job in pairs(removed) do
        blocks[block_of(job[SEQ])] = true
    end
    return gone, more
end

-- A block without jobs has no labels.
local function unlabel()
    flush()
    for block in pairs(blocks) do
        local start = struct.unpack('>I5', block) * 256
        if call('ZCOUNT', K.index, start, start + 255) == 0 then
            local said = along(K.labels, '\0' .. block, 10000)
            local gone = {}
            for _, member in ipairs(said) do
                insert(gone, member)
                insert(gone, sub(member, 7) .. '\0' .. block)
            end
            send('ZREM', K.labels, gone)
        end
    end
end

-- Results of one block that are kept for the same time.
local function prune_block(kept, most)
    local ttl, start = sub(kept, 1, #kept - 6), struct.unpack('>I5', sub(kept, -5)) * 256
    local ids = call('ZRANGEBYSCORE', K.index, start, start + 255)
    local gone, next = 0, nil
    read_all(ids)
    for _, id in ipairs(ids) do
        local job = read(id)
        local at = job[RESULT_UNTIL]
        if at and format('%.0f', at - job[FINISHED]) == ttl then
            if at <= now and gone < most then
                change(job)
                job[RESULT], job[RESULT_UNTIL], job[RESULT_GONE] = false, false, true
                gone = gone + 1
            else
                next = math.min(next or at, at)
            end
        end
    end
    if next then
        call('ZADD', K.results, next, kept)
    else
        call('ZREM', K.results, kept)
    end
    return gone
end

local function prune_results(most)
    local gone = 0
    for _, kept in ipairs(until_now(K.results, now, math.max(0, most))) do
        gone = gone + prune_block(kept, most - gone)
    end
    return gone
end

local function prune_keys()
    local gone = 0
    for _, member in ipairs(until_now(K.outliving, now - keys_age, limit)) do
        local at = sub(member, 2)
        if sub(member, 1, 1) == 'k' then
            local owned = kept_key(at)
            local owner = owned and read(owned[1])
            local ended = owner and owner[FINISHED] or not owner and owned and owned[3]
            if ended and ended + keys_age <= now then
                drop_key(at)
                gone = gone + 1
            end
            call('ZREM', K.outliving, member)
        end
    end
    return gone
end

local function prune_windows()
    for _, member in ipairs(until_now(K.outliving, now, limit)) do
        local at = sub(member, 2)
        if sub(member, 1, 1) == 'u' then
            local entry = entry_of(at)
            if entry and not entry[LIVE] and entry[WINDOW] <= now then
                drop_entry(at)
            end
            if not entry or entry[LIVE] or entry[WINDOW] <= now then
                call('ZREM', K.outliving, member)
            end
        end
    end
end

local function prune_workers()
    local gone = 0
    for _, each in ipairs(all_workers()) do
        local worker = each[2]
        if (worker.taken or now > worker.lease) and worker.beat < now - workers_age and #held_by(each[1]) == 0 then
            call('HDEL', K.workers, each[1])
            gone = gone + 1
        end
    end
    return gone
end

local gone, more = prune_jobs()
unlabel()
local results = prune_results(limit - gone)
local keys = prune_keys()
prune_windows()
local workers = prune_workers()
cas(K.leads, given[6])
local known_until = '(' .. format('%.0f', now - given[5])
for _, id in ipairs(call('ZRANGEBYSCORE', K.departed, '-inf', known_until, 'LIMIT', 0, limit)) do
    call('ZREM', K.departed, id)
end
return done_with({gone, results, keys, workers, more or gone + results >= limit})
