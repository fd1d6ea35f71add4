-- needs: workers
-- given: reports (id, hold, the report). Answers, for each: id, taken, whom to cancel, the tokens it holds, its lease.

-- After the clock was set back no lease may reach further than one that begins now.
local last = tonumber(call('HGET', K.marks, 'clock') or 0)
if now < last then
    for _, each in ipairs(all_workers()) do
        local worker = each[2]
        if not worker.taken and worker.lease > now + worker.hold then
            worker.lease = now + worker.hold
            keep_worker(each[1], worker)
        end
    end
end
call('HSET', K.marks, 'clock', format('%.0f', now))

local answers = {}
for n, each in ipairs(given[1]) do
    local id, hold = each[1], each[2]
    local known = worker_of(id)
    if known and known.taken then
        answers[n] = {id, true, {}, {}, 0}
    else
        local unbroken = known and known.since <= now and now <= known.lease
        keep_worker(id, {
            report = each[3], hold = hold, started = known and known.started or now, beat = now, lease = now + hold,
            since = unbroken and known.since or now, taken = false, closed = known and known.closed or 0,
        })
        local jobs, cancel = held_by(id), {}
        for _, job in ipairs(jobs) do
            if job[CANCELLING] then
                insert(cancel, job[ID])
            end
        end
        answers[n] = {id, false, cancel, tokens(jobs), now + hold}
    end
end
return done_with(answers)
