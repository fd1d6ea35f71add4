-- needs: record flow unique store
-- given: schedule, what was read of it, its previous jobs that lived then, all of them, whether to cancel them, whether to
-- skip, the job, what to keep if it is stored, and if it is not. Answers 'fired', 'skipped', or nil where something is no
-- longer as it was read, and nothing is done.

if call('HGET', SCHEDULES, given[1]) ~= given[2] then
    return pack(NIL)
end
local n = 0
for _, id in ipairs(given[4]) do
    local job = read(id)
    if job and not TERMINAL[job[STATE]] then
        n = n + 1
        if given[3][n] ~= id then
            return pack(NIL)
        end
    end
end
if n ~= #given[3] then
    return pack(NIL)
end
local answer
if not given[6] then
    for _, id in ipairs(given[5] and given[3] or {}) do
        local job = change(read(id))
        if job[STATE] == 'running' then
            job[CANCELLING] = true
            put(job)
        else
            finish(job, 'cancelled', 'cancelled')
        end
    end
    answer = store_one(given[7], false)
end
local fired = answer and answer[2]
call('HSET', SCHEDULES, given[1], fired and given[8] or given[9])
return done(fired and 'fired' or 'skipped')
