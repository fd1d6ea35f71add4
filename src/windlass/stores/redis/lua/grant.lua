-- needs: workers time
-- What a claim gives away.

local PROMOTE, CLAIM_WINDOW = 1000, 256

local function grant(job, worker, turn)
    change(job)
    job[STATE], job[FENCE], job[ATTEMPT] = 'running', fence_of(job), job[ATTEMPT] + 1
    job[WORKER], job[GRANT], job[STARTED] = worker, turn, now
end

-- As core/job.py has a Held, packed.
local function as_held(granted)
    flush()
    local ids, found = {}, {}
    for n, job in ipairs(granted) do
        ids[n] = job[ID]
    end
    local kept = all_in(K.bodies, ids)
    for n, job in ipairs(granted) do
        -- Two short arrays, each less its first byte: to pack what is in them one by one takes Lua longer.
        found[n] = array(17) .. sub(pack({job[ID], job[FENCE], job[TASK], job[VERSION], job[QUEUE], job[TENANT]}), 2)
            .. kept[job[ID]] .. sub(pack({job[ATTEMPT], job[CRASHES], job[LOSSES], job[SUSPECT], job[PRIORITY],
                                          job[CREATED], job[DUE_AT], job[STARTED], job[EXPIRES] or NIL}), 2)
    end
    return list_of(found)
end

-- What a claim answers: grants, when the next is due, more, limited, alive.
local function claimed(granted, more, limited)
    local due = next_due()
    local answer = array(5) .. as_held(granted) .. pack(due, more, limited, true)
    done()
    return answer
end

-- Nothing for who is gone, or asks under a number that was closed: what is answered then.
local function refused(worker, turn)
    local known = worker_of(worker)
    if not known or known.taken then
        return pack({{}, NIL, false, false, false})
    end
    if turn <= known.closed then
        return pack({{}, NIL, false, false, true})
    end
end

local function claimable(job)
    return job[STATE] == 'queued' and not (job[EXPIRES] and job[EXPIRES] <= now)
end

-- Put aside a job that nobody here can run, for as long as it has waited; see core/machine.py, parked_for.
local function park(job, least, most)
    change(job)
    job[STATE], job[REASON] = 'scheduled', 'unknown_task'
    job[PARKED] = now + math.min(math.max(now - job[CREATED], least), most)
end
