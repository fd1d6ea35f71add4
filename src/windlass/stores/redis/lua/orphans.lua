-- needs: grant
-- given: deaths (worker, reaper, observed). Answers, for each: whether it was taken, whether it may be, and what it
-- holds.

local answers = {}
for n, death in ipairs(given[1]) do
    local worker = worker_of(death[1])
    if not worker or worker.taken then
        answers[n] = array(3) .. pack(worker ~= nil, false, {})
    else
        local may = may_take(death[1], death[2], death[3])
        answers[n] = array(3) .. pack(false, may) .. as_held(may and held_by(death[1]) or {})
    end
end
return list_of(answers)
