-- needs: record flow unique store workers settle_one reading
-- given: id, how far to count, how far to look. Answers the facts of one job that does not run, read together.

local job = read(given[1])
if not job then
    return pack(NIL)
end
local rules = rules_of(job[QUEUE])
local line = ready_line(job[SUSPECT], job[QUEUE])
local ahead = call('ZLEXCOUNT', READY, '[' .. line, '(' .. line .. ordered(job[RANK]) .. place(job))
local owner, first, running
if job[STATE] == 'blocked' and job[UNIQUE] and not job[BLOCKER] then
    owner = entry_of(unique_place(job))[OWNER]
    first = read(owner)
elseif job[BLOCKER] then
    running = runs_under(job[BLOCKER])
    local from = job[BLOCKER] .. '\0'
    local member = call('ZRANGEBYLEX', PERMITS, '[' .. from, '(' .. job[BLOCKER] .. '\1', 'LIMIT', 0, 1)[1]
    if member then
        first = read(sub(member, #from + 1))
    else -- whose turn it is
        for _, each in ipairs(call('ZRANGE', READY, 0, given[3])) do
            local start = find(each, '\0', 1, true)
            local other = read(sub(each, start + 15))
            for _, limit in ipairs(other[LIMITS] or {}) do
                if limit[1] == job[BLOCKER] and (not first or other[RANK] < first[RANK]
                                                 or other[RANK] == first[RANK] and other[SEQ] < first[SEQ]) then
                    first = other
                end
            end
        end
    end
end
local workers = {}
for _, each in ipairs(all_workers()) do
    if not each[2].taken then
        insert(workers, {each[1], each[2].report, each[2].started, each[2].beat, each[2].lease})
    end
end
return pack({
    as_job(job), now, rules.paused or false, math.min(ahead, given[2]), workers, history(job),
    job[BLOCKER] and {job[BLOCKER], job[MOST]} or NIL, running or 0, owner or NIL, first and first[ID] or NIL,
    first and first[STATE] or NIL, rules.limit or NIL, rules.limit and runs_in(job[QUEUE]) or 0,
})
