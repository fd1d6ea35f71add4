-- needs: record
-- Workers and their leases. `report` is what the worker last said of itself, as Python packed it.

local function all_workers()
    local found, flat = {}, call('HGETALL', K.workers)
    for n = 1, #flat, 2 do
        insert(found, {flat[n], unpack_one(flat[n + 1])})
    end
    return found
end

-- Those that were not taken over: id, report, started, beat, lease.
local function known_workers()
    local found = {}
    for _, each in ipairs(all_workers()) do
        if not each[2].taken then
            insert(found, {each[1], each[2].report, each[2].started, each[2].beat, each[2].lease})
        end
    end
    return found
end

local function worker_of(id)
    local found = call('HGET', K.workers, id)
    return found and unpack_one(found) or nil
end

local function keep_worker(id, worker)
    call('HSET', K.workers, id, pack(worker))
end

local function held_by(id)
    local ids, found = {}, {}
    for n, member in ipairs(along(K.held, id .. '\0', 1000000)) do
        ids[n] = sub(member, #id + 2)
    end
    read_all(ids)
    for n, held in ipairs(ids) do
        found[n] = read(held)
    end
    return found
end

local function tokens(held)
    local found = {}
    for n, job in ipairs(held) do
        found[n] = {job[ID], job[FENCE]}
    end
    return found
end

-- Those whose lease is over, as a reaper may judge it: one that was cut off itself cannot tell who was.
local function lapsed(reaper)
    local judge, found = worker_of(reaper), {}
    if not judge or judge.taken or now > judge.lease or now < judge.since + judge.hold then
        return found
    end
    for _, each in ipairs(all_workers()) do
        if not each[2].taken and now > each[2].lease then
            insert(found, each[1])
        end
    end
    return found
end

-- Whether a worker may be taken over: it is known to be gone, or its lease is.
local function may_take(worker, reaper, observed)
    if observed then
        return true
    end
    for _, id in ipairs(lapsed(reaper)) do
        if id == worker then
            return true
        end
    end
    return false
end
