-- Workers and their leases. `report` is what the worker last said of itself, as Python packed it.

local function all_workers()
    local found, flat = {}, call('HGETALL', WORKERS)
    for n = 1, #flat, 2 do
        insert(found, {flat[n], unpack_one(flat[n + 1])})
    end
    return found
end

local function worker_of(id)
    local found = call('HGET', WORKERS, id)
    return found and unpack_one(found) or nil
end

local function keep_worker(id, worker)
    call('HSET', WORKERS, id, pack(worker))
end

local function held_by(id)
    local found = {}
    for _, member in ipairs(call('ZRANGEBYLEX', HELD, '[' .. id .. '\0', '(' .. id .. '\1')) do
        insert(found, read(sub(member, #id + 2)))
    end
    return found
end

local function tokens(jobs)
    local found = {}
    for n, job in ipairs(jobs) do
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
