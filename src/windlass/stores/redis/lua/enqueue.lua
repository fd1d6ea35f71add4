-- needs: record flow unique store
-- given: jobs. Answers, for each: the id that stands for it, stored, conflict, refused, how full its queue is.

local answers = {}
for _, g in ipairs(given[1]) do
    look_at(g[5])
end
for n, g in ipairs(given[1]) do
    if call('HEXISTS', DEPARTED, g[1]) == 1 then
        -- What went to another store answers as the first time; here it would be a second job.
        answers[n] = {g[1], true}
    else
        answers[n] = store_one(g, true)
    end
end
return done(answers)
