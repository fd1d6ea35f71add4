-- What a claim gives away.

local PROMOTE, CLAIM_WINDOW = 1000, 256

-- As core/job.py has a Held.
local function as_held(job)
    return {job[ID], job[FENCE], job[TASK], job[VERSION], job[QUEUE], job[TENANT], job[PAYLOAD], job[META], job[ATTEMPT],
            job[CRASHES], job[LOSSES], job[SUSPECT], job[PRIORITY], job[CREATED], job[DUE_AT], job[STARTED],
            job[EXPIRES] or NIL}
end

-- Grows whatever the clock does, and jumps ahead with it: a store that lost its latest writes is past every fence it gave.
local function fence_of(job)
    return math.max(job[FENCE] + 1, now)
end

local function grant(job, worker, turn)
    change(job)
    job[STATE], job[FENCE], job[ATTEMPT], job[WORKER], job[GRANT], job[STARTED] = 'running', fence_of(job), job[ATTEMPT] + 1,
        worker, turn, now
    put(job)
    return as_held(job)
end

-- Nothing for who is gone, or asks under a number that was closed: what is answered then.
local function refused(worker, turn)
    local known = worker_of(worker)
    if not known or known.taken then
        return {{}, NIL, false, false, false}
    end
    if turn <= known.closed then
        return {{}, NIL, false, false, true}
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
    put(job)
end
