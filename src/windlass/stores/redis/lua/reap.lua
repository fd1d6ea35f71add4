-- needs: settle_one workers
-- given: deaths (worker, reaper, observed, transitions). Answers whether it was done: not if one of the workers has
-- been judged, or has other jobs, since `orphans` was asked.

local function still(death)
    local worker, held, transitions = worker_of(death[1]), held_by(death[1]), death[4]
    if not worker or worker.taken or not may_take(death[1], death[2], death[3]) or #held ~= #transitions then
        return false
    end
    for n, job in ipairs(held) do
        if job[ID] ~= transitions[n][1] or job[FENCE] ~= transitions[n][2] then
            return false
        end
    end
    return true
end

for _, death in ipairs(given[1]) do
    if not still(death) then
        return pack(false)
    end
end
for _, death in ipairs(given[1]) do
    local worker, held, children = worker_of(death[1]), held_by(death[1]), {}
    worker.taken = true
    keep_worker(death[1], worker)
    for n, job in ipairs(held) do
        change(job)
        job[FENCE] = fence_of(job) -- before its history is written: whoever held it under the other one is a ghost
        apply(job, death[4][n], children)
    end
    over(held, children)
end
return done_with(true)
