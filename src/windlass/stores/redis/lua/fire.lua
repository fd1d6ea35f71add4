-- needs: store
-- given: ticks, no two of one schedule (schedule, what was read of it, its previous jobs that lived then, all of them,
-- whether to cancel them, whether to skip, the job if there is one, what to keep if it is stored, and if it is not).
-- Answers for each 'fired', 'skipped' or 'moved'; or nil where something is no longer as it was read, and nothing is
-- done.

local function lives(id)
    local job = read(id)
    return job and not TERMINAL[job[STATE]]
end

local function still(tick)
    if (call('HGET', K.schedules, tick[1]) or nil) ~= tick[2] then
        return false
    end
    local n = 0
    for _, id in ipairs(tick[4]) do
        if lives(id) then
            n = n + 1
            if tick[3][n] ~= id then
                return false
            end
        end
    end
    return n == #tick[3]
end

local function cancel(id)
    local job = change(read(id))
    if job[STATE] == 'running' then
        job[CANCELLING] = true
    else
        finish(job, 'cancelled', 'cancelled')
    end
end

local answers = {}
for _, tick in ipairs(given[1]) do
    if not still(tick) then
        return pack(NIL)
    end
end
for n, tick in ipairs(given[1]) do
    local fired
    if tick[7] and not tick[6] then
        for _, id in ipairs(tick[5] and tick[3] or {}) do
            cancel(id)
        end
        fired = store_one(tick[7], false)[2]
    end
    call('HSET', K.schedules, tick[1], fired and tick[8] or tick[9])
    answers[n] = fired and 'fired' or tick[7] and 'skipped' or 'moved'
end
return done_with(answers)
