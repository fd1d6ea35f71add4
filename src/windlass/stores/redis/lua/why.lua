-- needs: flow unique workers settle_one reading
-- given: id, how far to count, how far to look. Answers the facts of one job that does not run, read together.

local job = read(given[1])
if not job then
    return pack(NIL)
end
local rules, line = rules_of(job[QUEUE]), ready_line(job[SUSPECT], job[QUEUE])
local ahead = call('ZLEXCOUNT', K.ready, '[' .. line, '(' .. line .. ordered(job[RANK]) .. place(job))

-- The first in line of those that carry a limit: whose turn it is.
local function first_under(key)
    local first
    for _, member in ipairs(call('ZRANGE', K.ready, 0, given[3])) do
        local other = read(sub(member, find(member, '\0', 1, true) + 15))
        for _, limit in ipairs(other[LIMITS] or {}) do
            if limit[1] == key and (not first or other[RANK] < first[RANK]
                                    or other[RANK] == first[RANK] and other[SEQ] < first[SEQ]) then
                first = other
            end
        end
    end
    return first
end

local owner, awaited, running
if job[STATE] == 'blocked' and job[UNIQUE] and not job[BLOCKER] then
    owner = entry_of(unique_place(job))[OWNER]
    awaited = read(owner)
elseif job[BLOCKER] then
    running = runs_under(job[BLOCKER])
    local member = along(K.permits, job[BLOCKER] .. '\0', 1)[1]
    awaited = member and read(sub(member, #job[BLOCKER] + 2)) or first_under(job[BLOCKER])
end
return array(13) .. as_jobs({job})[1] .. pack(
    now, rules.paused or false, math.min(ahead, given[2]), known_workers(), history(job),
    job[BLOCKER] and {job[BLOCKER], job[MOST]} or NIL, running or 0, owner or NIL, awaited and awaited[ID] or NIL,
    awaited and awaited[STATE] or NIL, rules.limit or NIL, rules.limit and runs_in(job[QUEUE]) or 0)
