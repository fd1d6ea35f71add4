-- needs: record
-- Answers every contradiction between the jobs and what follows from them (I3).

local found, stands, says, counts = {}, {}, {}, {}
local flat = call('HGETALL', K.jobs)

local function say(key, member, score)
    says[key] = (says[key] or 0) + 1
    local known = call('ZSCORE', key, member)
    return known and (score == nil or tonumber(known) == score)
end

local function ends_of(key)
    local entries = {}
    for _, entry in ipairs(call('LRANGE', key, 0, -1)) do
        local at, seq = struct.unpack('>I7I6', entry)
        entries[seq] = math.max(at, entries[seq] or 0)
    end
    return entries
end

local ends = {}
for state, key in pairs(TERMINAL) do
    ends[state] = ends_of(key)
end
for n = 1, #flat, 2 do
    local job = job_of(flat[n + 1], flat[n])
    local where, state = lines(job), job[STATE]
    counts[state .. '\0' .. job[QUEUE]] = (counts[state .. '\0' .. job[QUEUE]] or 0) + 1
    for at = 1, #where, 3 do
        if not say(where[at], where[at + 2], where[at + 1]) then
            insert(found, 'job ' .. job[ID] .. ' does not stand where it says: ' .. where[at])
        end
    end
    if not say(K.index, job[ID], job[SEQ]) or call('HEXISTS', K.bodies, job[ID]) == 0 then
        insert(found, 'job ' .. job[ID] .. ' has no number, or no body')
    end
    if TERMINAL[state] and (ends[state][job[SEQ]] or 0) < job[FINISHED] then
        insert(found, 'job ' .. job[ID] .. ' is not on the list of those that ended as ' .. state)
    end
    for _, name in ipairs({'q' .. job[QUEUE], 't' .. job[TASK], state ~= 'running' and 's' .. state or nil}) do
        if not call('ZSCORE', K.labels, name .. '\0' .. block_of(job[SEQ])) then
            insert(found, 'job ' .. job[ID] .. ' would not be found by ' .. name)
        end
    end
    if job[PARENT] and not say(K.children, job[PARENT] .. '\0' .. place(job)) then
        insert(found, 'job ' .. job[ID] .. ' is not among the children of its parent')
    end
    if job[RESULT_UNTIL] then
        local at = call('ZSCORE', K.results, kept_as(job[RESULT_UNTIL] - job[FINISHED], job[SEQ]))
        if not at or tonumber(at) > job[RESULT_UNTIL] then
            insert(found, 'the result of job ' .. job[ID] .. ' would stay')
        end
    end
end
for _, key in ipairs({K.ready, K.due, K.expiring, K.held, K.permits, K.blocked, K.following, K.index, K.children}) do
    local taken = call('ZCARD', key)
    if taken ~= (says[key] or 0) then
        insert(found, taken .. ' places are taken in ' .. key .. ', and jobs say that they have ' .. (says[key] or 0))
    end
end
if call('HLEN', K.bodies) ~= call('HLEN', K.jobs) then
    insert(found, 'there are bodies of no job')
end
flat = call('HGETALL', K.counts)
for n = 1, #flat, 2 do
    if tonumber(flat[n + 1]) ~= (counts[flat[n]] or 0) then
        insert(found, flat[n + 1] .. ' jobs are counted as ' .. flat[n] .. ', and there are ' .. (counts[flat[n]] or 0))
    end
end
return pack(found)
