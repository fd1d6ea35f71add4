-- What every script begins with. A job is one field of the hash `jobs`, an array as msgpack; the lines in which it stands
-- follow from it alone, so `put` moves it from line to line, and no line can disagree with the job (I3).
--
-- KEYS: every key there is, in the order of keys.py, so that all are declared. ARGV: the test's clock, or nothing; the
-- parameters, as msgpack.

local NIL = cjson.null -- which msgpack writes as nil; a job has false instead, as nil would be a hole in its array

local JOBS, READY, DUE, EXPIRING, HELD, PERMITS, BLOCKED, RESULTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6],
    KEYS[7], KEYS[8]
local TERMINAL = {completed = KEYS[9], dead = KEYS[10], cancelled = KEYS[11], expired = KEYS[12]}
local ATTEMPTS, LOGS, ONCE, PROGRESS, UNIQUES, KEYS_OF, OUTLIVING, MERGED, INTO = KEYS[13], KEYS[14], KEYS[15], KEYS[16],
    KEYS[17], KEYS[18], KEYS[19], KEYS[20], KEYS[21]
local WORKERS, QUEUES, LEADS, MARKS, COUNTS, INDEX, CHANGES, SEQUENCE, DEPARTED, SCHEDULES, CHILDREN = KEYS[22], KEYS[23], KEYS[24],
    KEYS[25], KEYS[26], KEYS[27], KEYS[28], KEYS[29], KEYS[30], KEYS[31], KEYS[32]

-- The fields of a job.
local ID, STATE, SEQ, SUSPECT, QUEUE, RANK, DUE_AT, PARKED, CREATED, EXPIRES, FENCE, ATTEMPT, CRASHES, LOSSES = 1, 2, 3, 4,
    5, 6, 7, 8, 9, 10, 11, 12, 13, 14
local REASON, WORKER, GRANT, STARTED, FINISHED, CANCELLING, STOPS, BLOCKER, MOST, LIMITS, UNIQUE = 15, 16, 17, 18, 19, 20,
    21, 22, 23, 24, 25
local TASK, VERSION, TENANT, PRIORITY, HEAD_START, META, PAYLOAD, KEY, DIGEST, ERROR, RESULT, RESULT_UNTIL, RESULT_GONE,
    OUTCOME, NUMBER = 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40
local FIELDS = 40

local call, pack, unpack_one = redis.call, cmsgpack.pack, cmsgpack.unpack
local format, sub, find, insert = string.format, string.sub, string.find, table.insert

local function now_of(given)
    if given ~= '' then
        return tonumber(given)
    end
    local time = call('TIME')
    return time[1] * 1000000 + time[2]
end

local now = now_of(ARGV[1])
local given = ARGV[2] and unpack_one(ARGV[2])

-- A whole number as eight bytes that sort as it does.
local function ordered(n)
    if n >= 0 then
        return '1' .. struct.pack('>I7', n)
    end
    return '0' .. struct.pack('>I7', 9007199254740992 + n)
end

local function unordered(bytes)
    local n = struct.unpack('>I7', bytes, 2)
    return sub(bytes, 1, 1) == '1' and n or n - 9007199254740992
end

-- The place of a job among those that come at the same moment: in the order of enqueue.
local function place(job)
    return struct.pack('>I6', job[SEQ]) .. job[ID]
end

local function ready_line(suspect, queue)
    return (suspect and '1' or '0') .. queue .. '\0'
end

local function blocked_line(key, suspect, queue, most)
    return key .. '\0' .. (suspect and '1' or '0') .. queue .. '\0' .. struct.pack('>I4', most)
end

local function waits(job)
    local state = job[STATE]
    return state ~= 'running' and not TERMINAL[state]
end

local function comes_due(job)
    return job[PARKED] or job[DUE_AT]
end

-- Where a job stands: pairs of a sorted set and a member, each with a score.
local function lines(job)
    local state, found = job[STATE], {}
    if state == 'queued' then
        found = {READY, ready_line(job[SUSPECT], job[QUEUE]) .. ordered(job[RANK]) .. place(job), 0}
    elseif state == 'running' then
        found = {HELD, job[WORKER] .. '\0' .. job[ID], 0}
    elseif state == 'scheduled' or state == 'retrying' then
        found = {DUE, place(job), comes_due(job)}
    elseif state == 'blocked' then
        if job[BLOCKER] then
            local line = blocked_line(job[BLOCKER], job[SUSPECT], job[QUEUE], job[MOST])
            found = {BLOCKED, line .. ordered(job[RANK]) .. place(job), 0}
        end
    else
        found = {TERMINAL[state], place(job), job[FINISHED]}
    end
    if job[EXPIRES] and waits(job) then
        insert(found, EXPIRING)
        insert(found, place(job))
        insert(found, job[EXPIRES])
    end
    if job[RESULT_UNTIL] then
        insert(found, RESULTS)
        insert(found, place(job))
        insert(found, job[RESULT_UNTIL])
    end
    if state == 'running' and job[LIMITS] then
        local seen = {}
        for _, limit in ipairs(job[LIMITS]) do
            if not seen[limit[1]] then
                seen[limit[1]] = true
                insert(found, PERMITS)
                insert(found, limit[1] .. '\0' .. job[ID])
                insert(found, 0)
            end
        end
    end
    return found
end

-- Where its idempotency key is kept.
local function key_place(job)
    return job[TENANT] .. '\0' .. job[TASK] .. '\0' .. job[KEY]
end

local counted = {} -- by queue and state, what was added

local function count(job, by)
    local key = job[STATE] .. '\0' .. job[QUEUE]
    counted[key] = (counted[key] or 0) + by
end

local before = {} -- of each job that was read: the lines in which it stands

local function read(id)
    local found = call('HGET', JOBS, id)
    if not found then
        return nil
    end
    return unpack_one(found)
end

-- Say that a job will be changed and then `put`.
local function change(job)
    before[job] = lines(job)
    count(job, -1)
    return job
end

local function open(id)
    local job = read(id)
    return job and change(job)
end

-- Store a job, and move it to the lines in which it now belongs.
local function put(job)
    local was, is = before[job] or {}, lines(job)
    local same = #was == #is
    for n = 1, #is do
        same = same and was[n] == is[n]
    end
    if not same then
        for n = 1, #was, 3 do
            call('ZREM', was[n], was[n + 1])
        end
        for n = 1, #is, 3 do
            call('ZADD', is[n], is[n + 2], is[n + 1])
        end
    end
    before[job] = is
    count(job, 1)
    call('HSET', JOBS, job[ID], pack(job))
    if job[KEY] and TERMINAL[job[STATE]] then
        local at = key_place(job)
        local owned = call('HGET', KEYS_OF, at)
        if owned and unpack_one(owned)[1] == job[ID] then
            call('ZADD', OUTLIVING, job[FINISHED], 'k' .. at)
        end
    end
end

-- What every script that changed something ends with.
local function done(answer)
    for key, by in pairs(counted) do
        if by ~= 0 then
            call('HINCRBY', COUNTS, key, by)
        end
    end
    call('INCR', CHANGES)
    return pack(answer)
end
