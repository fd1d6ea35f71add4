-- needs: store
-- given: jobs, whether to store all or none. Answers, for each: the id that stands for it, stored, conflict, refused,
-- how full its queue is.

local answers, leaving = {}, call('EXISTS', K.departed) == 1
expect(given[1])
for _, g in ipairs(given[1]) do
    look_at(g[5])
end
for n, g in ipairs(given[1]) do
    if leaving and call('ZSCORE', K.departed, g[1]) then
        -- What went to another store answers as the first time; here it would be a second job.
        answers[n] = {g[1], true}
    else
        answers[n] = store_one(g, true)
    end
end
local function kept_out(answer)
    return answer[3] or answer[4] or answer[5] and not answer[2]
end

for _, answer in ipairs(given[2] and answers or {}) do
    if kept_out(answer) then
        return pack(answers) -- and nothing of it is written
    end
end
return done_with(answers)
