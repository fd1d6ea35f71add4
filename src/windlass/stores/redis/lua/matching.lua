-- needs: record
-- Filters, and which jobs they can fit: a map of the fields that are given.

local LINE_MOST = 5000

local function one_of(list, value)
    for _, each in ipairs(list) do
        if each == value then
            return true
        end
    end
    return false
end

local function matches(job, f)
    return (f.states == nil or one_of(f.states, job[STATE]))
        and job[TENANT] == (f.tenant or '')
        and (f.queue == nil or f.queue == job[QUEUE])
        and (f.task == nil or f.task == job[TASK])
        and (f.reason == nil or f.reason == job[REASON])
        and (f.since == nil or job[CREATED] >= f.since)
        and (f.until_ == nil or job[CREATED] < f.until_)
        and (f.ended_before == nil or job[FINISHED] and job[FINISHED] < f.ended_before)
        and (f.fingerprint == nil or job[STATE] == 'dead' and (job[FINGERPRINT] or '') == f.fingerprint)
        and (f.tag == nil or one_of(job[TAGS] or {}, f.tag))
        and (f.schedule == nil or (job[SCHEDULE] or '') == f.schedule)
        and (f.parent == nil or (job[PARENT] or '') == f.parent)
end

local function count_of(states)
    local sum, flat = 0, call('HGETALL', K.counts)
    for n = 1, #flat, 2 do
        if one_of(states, sub(flat[n], 1, find(flat[n], '\0', 1, true) - 1)) then
            sum = sum + tonumber(flat[n + 1])
        end
    end
    return sum
end

local function live(states)
    for _, state in ipairs(states) do
        if TERMINAL[state] then
            return false
        end
    end
    return true
end

-- The ids in these lines, which are few.
local function ids_in_lines(states)
    local ids = {}
    local function of(state, key, id_at)
        if one_of(states, state) then
            for _, member in ipairs(call('ZRANGE', key, 0, -1)) do
                insert(ids, sub(member, id_at(member)))
            end
        end
    end
    local behind = function(name, bytes)
        return find(name, '\0', 1, true) + 1 + bytes
    end
    local timed = function()
        return 7
    end
    local due = one_of(states, 'scheduled') and 'scheduled' or 'retrying'
    of(due, K.due, timed)
    of('blocked', K.following, timed)
    of('queued', K.ready, function(member) return behind(member, 14) end)
    of('running', K.held, function(member) return behind(member, 0) end)
    of('blocked', K.blocked, function(member)
        return find(member, '\0', find(member, '\0', 1, true) + 1, true) + 19
    end)
    return ids
end

-- Labels, grouped: a job that fits stands in a block that has one of each group.
local function groups_of(f)
    local groups = {}
    for kind, name in pairs({q = f.queue or false, t = f.task or false, g = f.tag or false, c = f.schedule or false}) do
        if name and name ~= '' then
            insert(groups, {kind .. name})
        end
    end
    if f.states and not one_of(f.states, 'running') then
        local group = {}
        for n, state in ipairs(f.states) do
            group[n] = 's' .. state
        end
        insert(groups, group)
    end
    return groups
end

-- The last block of a group that is not behind `at`.
local function last_of(group, at)
    local best
    for _, name in ipairs(group) do
        local from = '[' .. name .. '\0'
        local member = call('ZREVRANGEBYLEX', K.labels, from .. at, from, 'LIMIT', 0, 1)[1]
        local block = member and sub(member, -5)
        if block and (not best or block > best) then
            best = block
        end
    end
    return best
end

-- The last block, not behind `at`, that may have a job that fits: each group in turn goes back to where it has one,
-- until all are in one block.
local function last_block(groups, at)
    if #groups == 0 then
        local last = struct.unpack('>I5', at) * 256 + 255
        local id = call('ZREVRANGEBYSCORE', K.index, format('%.0f', last), '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
        return id[2] and block_of(tonumber(id[2]))
    end
    local start
    repeat
        start = at
        for _, group in ipairs(groups) do
            at = last_of(group, at)
            if not at then
                return nil
            end
        end
    until at == start
    return at
end
