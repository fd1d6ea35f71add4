-- needs: record flow unique store workers grant settle_one
-- given: worker, reaper, observed, transitions. Answers whether it was done: not if the worker has been judged, or has
-- other jobs, since `orphans` was asked.

local worker, jobs = worker_of(given[1]), held_by(given[1])
local may, transitions = given[3], given[4]
for _, id in ipairs(not may and lapsed(given[2]) or {}) do
    may = may or id == given[1]
end
local same = worker and not worker.taken and may and #jobs == #transitions
for n, job in ipairs(same and jobs or {}) do
    same = same and job[ID] == transitions[n][1] and job[FENCE] == transitions[n][2]
end
if not same then
    return pack(false)
end
worker.taken = true
keep_worker(given[1], worker)
local children = {}
for n, job in ipairs(jobs) do
    job[FENCE] = fence_of(job)
    apply(job, transitions[n], children)
end
over(jobs, children)
return done(true)
