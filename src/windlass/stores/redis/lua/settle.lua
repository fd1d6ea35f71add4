-- needs: record flow unique store settle_one
-- given: transitions. Answers one word each; or the key and the job of a child that is in conflict, and nothing is done.

local applied, children, answers, runs = {}, {}, {}, {}
for n, t in ipairs(given[1]) do
    local job = read(t[1])
    if not job then
        answers[n] = 'gone'
    elseif job[STATE] == 'running' and job[FENCE] == t[2] and not runs[t[1]] then
        runs[t[1]] = true
        insert(applied, {job, t})
        answers[n] = 'applied'
    elseif runs[t[1]] and job[FENCE] == t[2] or has_ended(job, t[2]) then
        answers[n] = 'already'
    else
        answers[n] = 'stale'
    end
end
local chosen = {}
for n, each in ipairs(applied) do
    if not (each[1][CANCELLING] and each[2][14]) then
        insert(chosen, each[2])
    end
end
local problem = conflict(chosen)
if problem then
    return pack({NIL, problem})
end
local jobs = {}
for n, each in ipairs(applied) do
    apply(each[1], each[2], children)
    jobs[n] = each[1]
end
over(jobs, children)
return done({answers})
