-- needs: flow unique
-- How jobs come in. Of what is given: id, task, version, tenant, queue, priority, head start, body, key, digest, after,
-- at, expires after, expires at, limits, unique (key, policy, most, window), parent, schedule, tags.

local KEEP = 86400000000
local GIVES_WAY = {replace = true, ['keep-last'] = true, debounce = true} -- policies by which the newer one counts

local function or_false(value)
    if value == nil then
        return false -- `and` and `or` would make nil of it
    end
    return value
end

local function new_job(g, state, reason)
    local due = g[12] or now + g[11]
    return {
        g[1], state or due > now and 'scheduled' or 'queued', false, false, g[5], due - g[7], due, false, now,
        g[14] or g[13] and now + g[13] or false, 0, 0, 0, 0, reason or false, false, false, false, false, false, false,
        false, false, or_false(g[15]), g[16] and g[16][1] or false, g[2], g[3], g[4], g[6], g[7], or_false(g[9]),
        g[9] and g[10] or '',
        false, false, false, false, false, false, or_false(g[17]), or_false(g[18]), or_false(g[19]), false,
    }
end

local function enter_ended(g, reason)
    local job = new_job(g, 'cancelled', reason)
    job[FINISHED] = now
    enter(job, g[8])
end

-- --- idempotency keys ---------------------------------------------------------------------------------------------

local owned_by = {} -- by place: id, digest, when its job ended if that is gone; false: nobody

local function kept_key(at)
    if owned_by[at] == nil then
        local found = call('HGET', K.keys, at)
        owned_by[at] = found and unpack_one(found)
    end
    return owned_by[at] or nil
end

-- Who has a key; nil where it is free, a day after the end of the job that had it.
local function key_owner(at)
    local owned = kept_key(at)
    local owner = owned and read(owned[1])
    local ended = owned and owned[3]
    if owner then
        ended = owner[FINISHED]
    end
    if ended and now >= ended + KEEP then
        return nil
    end
    return owned
end

local function keep_key(at, id, digest)
    owned_by[at] = {id, digest, false}
    later('HSET', K.keys, at, pack(owned_by[at]))
    later('ZREM', K.left, at)
    later('ZREM', K.outliving, 'k' .. at)
end

local function drop_key(at)
    owned_by[at] = false
    later('HDEL', K.keys, at)
    later('ZREM', K.left, at)
end

-- --- bounded queues -----------------------------------------------------------------------------------------------

local seen = {} -- of each bounded queue: depth and age, as they were before this batch, and what of it went in

local function look_at(queue)
    local bounds = rules_of(queue).bounds
    if not bounds or seen[queue] then
        return
    end
    local line = ready_line(false, queue)
    local head = along(K.ready, line, 1)[1]
    local age = head and math.max(0, now - read(sub(head, #line + 15))[DUE_AT]) or 0
    seen[queue] = {bounds.depth and math.min(how_many(K.ready, line), bounds.depth) or 0, age}
end

-- A place for one more job, if its queue has bounds; or how full that is: queue, depth, age, when to try again, and the
-- bound of age where it is that. See core/flow.py, fullness.
local function take_place(g)
    local bounds = rules_of(g[5]).bounds
    if not bounds or (g[12] or now + g[11]) > now then
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

local merging = call('EXISTS', K.merged) == 1
local merged, gathered = {}, {} -- by id, into which; and of those, what merged into them: of those that were met

local function merged_into(id)
    if merged[id] == nil then
        merged[id] = merging and call('HGET', K.merged, id)
    end
    return merged[id]
end

local function merge(id, into)
    merged[id] = into
    later('HSET', K.merged, id, into)
    gathered[into] = (gathered[into] or call('HGET', K.into, into) or '') .. id .. '\0'
    later('HSET', K.into, into, gathered[into])
end

-- What was asked for last takes the place of a job that waits, which keeps its id, its history and its log.
local function replace(id, g)
    local old = open(id)
    merge(g[1], id)
    local follows = old[STATE] == 'blocked' and old[REASON] == 'unique'
    local job = new_job(g)
    local due = job[DUE_AT]
    if g[16][3] then
        due = math.min(due, math.max(now, old[CREATED] + g[16][3]))
    end
    for _, field in ipairs({ID, SEQ, CREATED, FENCE, KEY, DIGEST}) do
        job[field] = old[field]
    end
    job[DUE_AT], job[RANK] = due, due - g[7]
    job[STATE] = follows and 'blocked' or due > now and 'scheduled' or 'queued'
    job[REASON] = follows and 'unique' or false
    if old[PARENT] and old[PARENT] ~= job[PARENT] then
        later('ZREM', K.children, old[PARENT] .. '\0' .. place(old))
    end
    stood[old].comes_anew = true
    for field = 1, #job do
        old[field] = job[field]
    end
    insert(bodies, id)
    insert(bodies, g[8])
    later('HDEL', K.once, id)
    later('HDEL', K.progress, id)
    return {id, false}
end

-- What becomes of a job whose key is taken; nil if it is not.
local function beside(g, at)
    local entry, policy = entry_of(at), g[16][2]
    if not entry or not (entry[LIVE] or policy == 'throttle' and entry[WINDOW] and now < entry[WINDOW]) then
        return nil
    end
    if entry[OWNER] == g[1] then -- sent again; only its window is left of it
        return {g[1], true}
    end
    if policy == 'return-existing' or policy == 'throttle' then
        return {entry[OWNER], false}
    elseif not GIVES_WAY[policy] then
        return {entry[OWNER], false, false, true}
    end
    local owner = read(entry[OWNER])
    -- One that went to another store can no more be replaced than one that runs.
    if entry[SUCCESSOR] or not (entry[AWAY] or owner and owner[STATE] == 'running') then
        return replace(entry[SUCCESSOR] or entry[OWNER], g)
    end
    if policy == 'replace' and owner then
        change(owner)[CANCELLING] = true
    end
    entry[SUCCESSOR] = g[1]
    keep_entry(at, entry)
    enter(new_job(g, 'blocked', 'unique'), g[8])
    return {g[1], true}
end

-- --- one after the other ------------------------------------------------------------------------------------------

-- What `store_one` is about to look for.
local function expect(batch)
    local ids = {}
    for n, g in ipairs(batch) do
        ids[n] = g[1]
    end
    read_all(ids)
end

local function store_one(g, bounded, stopped)
    local at = g[9] and g[4] .. '\0' .. g[2] .. '\0' .. g[9]
    local owned = at and key_owner(at)
    if read(g[1]) or owned and owned[1] == g[1] then
        return {g[1], true}
    end
    local into = merged_into(g[1])
    if into then
        return {into, false}
    end
    if owned then
        return {owned[1], false, owned[2] ~= g[10]}
    end
    local parent = g[17] and read(g[17])
    if stopped or parent and parent[STATE] == 'running' and parent[STOPS] then
        enter_ended(g, 'parent_cancelled')
        return {g[1], true}
    end
    local key = g[16] and g[4] .. '\0' .. g[2] .. '\0' .. g[16][1]
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
        enter(new_job(g), g[8])
        if key then
            keep_entry(key, {g[1], false, g[16][2] == 'throttle' and now + g[16][4] or false, true, false})
        end
        answer = {g[1], true}
    end
    if at and answer[2] then
        keep_key(at, g[1], g[10])
    end
    return answer
end

-- Forget a job, with all that it has written. Of the lists and labels that name it, each entry that says nothing any
-- more is taken away by whoever meets it.
local function remove(job)
    local id = job[ID]
    change(job)
    removed[job], jobs[id] = true, false
    for merged in string.gmatch(call('HGET', K.into, id) or '', '([^%z]+)') do
        call('HDEL', K.merged, merged)
    end
    for n = 1, tonumber(call('HGET', K.logs, id) or 0) do
        call('HDEL', K.logs, id .. '\0' .. n)
    end
    for _, key in ipairs({K.jobs, K.bodies, K.attempts, K.logs, K.once, K.progress, K.into}) do
        call('HDEL', key, id)
    end
    call('ZREM', K.index, id)
    if job[PARENT] then
        call('ZREM', K.children, job[PARENT] .. '\0' .. place(job))
    end
end
