-- How jobs come in. Of what is given: id, task, version, tenant, queue, priority, head start, meta, payload, key, digest,
-- after, at, expires after, expires at, limits, unique (key, policy, most, window), parent.

local FOLLOW, OUST = 'follow', 'oust'
local KEEP = 86400000000

local function new_job(g, state, reason)
    local due = g[13] or now + g[12]
    local job = {}
    for n = 1, FIELDS do
        job[n] = false
    end
    job[ID], job[TASK], job[VERSION], job[TENANT], job[QUEUE], job[PRIORITY], job[HEAD_START] = g[1], g[2], g[3], g[4], g[5],
        g[6], g[7]
    job[META], job[PAYLOAD], job[KEY], job[DIGEST], job[LIMITS] = g[8], g[9], g[10] or false, g[11], g[16] or false
    job[UNIQUE] = g[17] and g[17][1] or false
    job[STATE] = state or due > now and 'scheduled' or 'queued'
    job[REASON], job[CREATED], job[DUE_AT], job[RANK] = reason or false, now, due, due - g[7]
    job[EXPIRES] = g[15] or g[14] and now + g[14] or false
    job[FENCE], job[ATTEMPT], job[CRASHES], job[LOSSES], job[RESULT_GONE] = 0, 0, 0, 0, false
    return job
end

local function enter(job, parent)
    job[SEQ] = call('INCR', SEQUENCE)
    put(job)
    call('ZADD', INDEX, job[SEQ], job[ID])
    if parent then
        call('ZADD', CHILDREN, 0, parent .. '\0' .. place(job))
    end
end

local function enter_ended(g, reason)
    local job = new_job(g, 'cancelled', reason)
    job[FINISHED] = now
    enter(job, g[18])
end

-- --- idempotency keys ---------------------------------------------------------------------------------------------

-- Who has a key: {id, digest}; nil where it is free, a day after the end of the job that had it.
local function key_owner(at)
    local found = call('HGET', KEYS_OF, at)
    if not found then
        return nil
    end
    local owned = unpack_one(found)
    local owner = read(owned[1])
    local ended = owner and owner[FINISHED]
    if not owner then
        ended = owned[3]
    end
    if ended and now >= ended + KEEP then
        return nil
    end
    return owned
end

-- --- bounded queues -----------------------------------------------------------------------------------------------

local seen = {} -- of each bounded queue: depth and age, as they were before this batch, and what of it went in

local function look_at(queue)
    local bounds = rules_of(queue).bounds
    if not bounds or seen[queue] then
        return
    end
    local line = ready_line(false, queue)
    local from, to = '[' .. line, '(' .. line .. '\255'
    local head = call('ZRANGEBYLEX', READY, from, to, 'LIMIT', 0, 1)[1]
    local age = head and math.max(0, now - read(sub(head, #line + 15))[DUE_AT]) or 0
    seen[queue] = {bounds.depth and math.min(call('ZLEXCOUNT', READY, from, to), bounds.depth) or 0, age}
end

-- A place for one more job, if its queue has bounds; or how full that is: queue, depth, age, when to try again, and the
-- bound of age where it is that. See core/flow.py, fullness.
local function take_place(g)
    local bounds = rules_of(g[5]).bounds
    if not bounds or (g[13] or now + g[12]) > now then
        return nil
    end
    local depth, age = seen[g[5]][1], seen[g[5]][2]
    local deep = bounds.depth and depth >= bounds.depth
    local old = bounds.age and age > bounds.age
    if not deep and not old then
        seen[g[5]][1] = depth + 1
        return nil
    end
    local wait = math.max(deep and math.floor(age / math.max(depth, 1)) or 0, old and age - bounds.age or 0)
    wait = math.min(math.max(wait, 1000000), 60000000)
    return {g[5], depth, age, wait, not deep and bounds.age or NIL}, bounds.shed
end

-- --- unique keys --------------------------------------------------------------------------------------------------

-- What was asked for last takes the place of a job that waits, which keeps its id, its history and its log.
local function replace(id, g)
    local old = open(id)
    call('HSET', MERGED, g[1], id)
    call('HSET', INTO, id, (call('HGET', INTO, id) or '') .. g[1] .. '\0')
    local follows = old[STATE] == 'blocked' and old[REASON] == 'unique'
    local job = new_job(g)
    local due = job[DUE_AT]
    if g[17][3] then
        due = math.min(due, math.max(now, old[CREATED] + g[17][3]))
    end
    for _, field in ipairs({ID, SEQ, CREATED, FENCE, KEY, DIGEST}) do
        job[field] = old[field]
    end
    job[DUE_AT], job[RANK] = due, due - g[7]
    job[STATE] = follows and 'blocked' or due > now and 'scheduled' or 'queued'
    job[REASON] = follows and 'unique' or false
    before[job] = before[old]
    put(job)
    call('HDEL', ONCE, id)
    call('HDEL', PROGRESS, id)
    return {id, false}
end

-- What becomes of a job whose key is taken; nil if it is not.
local function beside(g, at)
    local entry, policy = entry_of(at), g[17][2]
    if not entry or not (entry[LIVE] or policy == 'throttle' and entry[WINDOW] and now < entry[WINDOW]) then
        return nil
    end
    if entry[OWNER] == g[1] then -- sent again; only its window is left of it
        return {g[1], true}
    end
    if policy == 'return-existing' or policy == 'throttle' then
        return {entry[OWNER], false}
    elseif policy ~= 'replace' and policy ~= 'keep-last' and policy ~= 'debounce' then
        return {entry[OWNER], false, false, true}
    end
    local owner = read(entry[OWNER])
    -- One that went to another store can no more be replaced than one that runs.
    if entry[SUCCESSOR] or not (entry[AWAY] or owner and owner[STATE] == 'running') then
        return replace(entry[SUCCESSOR] or entry[OWNER], g)
    end
    if policy == 'replace' and owner then
        change(owner)[CANCELLING] = true
        put(owner)
    end
    entry[SUCCESSOR] = g[1]
    keep_entry(at, entry)
    enter(new_job(g, 'blocked', 'unique'), g[18])
    return {g[1], true}
end

-- --- one after the other ------------------------------------------------------------------------------------------

local function store_one(g, bounded, stopped)
    local at = g[10] and g[4] .. '\0' .. g[2] .. '\0' .. g[10]
    local owned = at and key_owner(at)
    if call('HEXISTS', JOBS, g[1]) == 1 or owned and owned[1] == g[1] then
        return {g[1], true}
    end
    local into = call('HGET', MERGED, g[1])
    if into then
        return {into, false}
    end
    if owned then
        return {owned[1], false, owned[2] ~= g[11]}
    end
    local parent = g[18] and read(g[18])
    if stopped or parent and parent[STATE] == 'running' and parent[STOPS] then
        enter_ended(g, 'parent_cancelled')
        return {g[1], true}
    end
    local key = g[17] and g[4] .. '\0' .. g[2] .. '\0' .. g[17][1]
    local answer = key and beside(g, key)
    local full, shed
    if bounded and not answer then
        full, shed = take_place(g)
    end
    if full and shed then
        enter_ended(g, 'shed')
        return {g[1], true, false, false, full}
    elseif full then
        return {g[1], false, false, false, full}
    end
    if not answer then
        enter(new_job(g), g[18])
        if key then
            keep_entry(key, {g[1], false, g[17][2] == 'throttle' and now + g[17][4] or false, true, false})
        end
        answer = {g[1], true}
    end
    if at and answer[2] then
        call('HSET', KEYS_OF, at, pack({g[1], g[11], false}))
    end
    return answer
end

-- The parent that the meta of a job names.
local function parent_of(job)
    if not find(job[META], '"parent_id"', 1, true) then
        return nil
    end
    local ok, meta = pcall(cjson.decode, job[META])
    return ok and type(meta) == 'table' and type(meta.parent_id) == 'string' and meta.parent_id or nil
end

-- Forget a job, with all that it has written.
local function remove(job)
    local was = lines(job)
    for n = 1, #was, 3 do
        call('ZREM', was[n], was[n + 1])
    end
    count(job, -1)
    local id = job[ID]
    for merged in string.gmatch(call('HGET', INTO, id) or '', '([^%z]+)') do
        call('HDEL', MERGED, merged)
    end
    for n = 1, tonumber(call('HGET', LOGS, id) or 0) do
        call('HDEL', LOGS, id .. '\0' .. n)
    end
    for _, key in ipairs({JOBS, ATTEMPTS, LOGS, ONCE, PROGRESS, INTO}) do
        call('HDEL', key, id)
    end
    call('ZREM', INDEX, id)
    local parent = parent_of(job)
    if parent then
        call('ZREM', CHILDREN, parent .. '\0' .. place(job))
    end
end
