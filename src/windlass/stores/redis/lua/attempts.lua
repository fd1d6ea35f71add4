-- needs: record flow unique store settle_one
-- given: id. Answers its history, as core/job.py has an Attempt.

local job, found = read(given[1]), {}
if job then
    found = attempts_of(given[1])
    if job[OUTCOME] then
        insert(found, {job[NUMBER], job[FENCE], job[WORKER], job[STARTED], job[FINISHED], job[OUTCOME], job[REASON], job[ERROR]})
    end
    for _, past in ipairs(found) do
        for n = 1, 8 do
            past[n] = past[n] or NIL
        end
    end
end
return pack(found)
