-- needs: settle_one
-- given: transitions. Answers one word each; or the key and the job of a child that is in conflict, and nothing is
-- done.

local ids, applied, chosen, children, answers, runs, ended = {}, {}, {}, {}, {}, {}, {}
for n, t in ipairs(given[1]) do
    ids[n] = t[1]
end
read_all(ids)
for n, t in ipairs(given[1]) do
    local job = read(t[1])
    if not job then
        answers[n] = 'gone'
    elseif job[STATE] == 'running' and job[FENCE] == t[2] and not runs[t[1]] then
        runs[t[1]] = true
        insert(applied, t)
        if not (job[CANCELLING] and t[14]) then
            insert(chosen, t)
        end
        answers[n] = 'applied'
    elseif runs[t[1]] and job[FENCE] == t[2] or has_ended(job, t[2]) then
        answers[n] = 'already'
    else
        answers[n] = 'stale'
    end
end
local problem = conflict(chosen)
if problem then
    return pack({NIL, problem})
end
for n, t in ipairs(applied) do
    ended[n] = read(t[1])
    apply(ended[n], t, children)
end
over(ended, children)
return done_with({answers})
