-- needs: store
-- The end of a run. Of a transition: id, fence, state, outcome, reason, after, result, error, charged, crash, loss,
-- suspect, keep rank, cancel wins, result's time to live, children (as store.lua takes them), fingerprint.

local function attempts_of(id)
    local found = call('HGET', K.attempts, id)
    return found and unpack_one(found) or {}
end

-- The run under this fence has ended: the history is the receipt.
local function has_ended(job, fence)
    if job[OUTCOME] and job[FENCE] == fence then
        return true
    end
    for _, past in ipairs(attempts_of(job[ID])) do
        if past[2] == fence then
            return true
        end
    end
    return false
end

local function last_run(job)
    return {job[NUMBER], job[FENCE], job[WORKER], job[STARTED], job[FINISHED], job[OUTCOME], job[REASON], job[ERROR]}
end

-- All runs of a job, as core/job.py has an Attempt.
local function history(job)
    local found = attempts_of(job[ID])
    if job[OUTCOME] then
        insert(found, last_run(job))
    end
    for _, past in ipairs(found) do
        for n = 1, 8 do
            past[n] = past[n] or NIL
        end
    end
    return found
end

local function add_attempt(job, run)
    local past = attempts_of(job[ID])
    insert(past, run)
    later('HSET', K.attempts, job[ID], pack(past))
end

-- The last run of a job that has ended becomes history, as the job lives again.
local function remember(job)
    if job[OUTCOME] then
        add_attempt(job, last_run(job))
        job[OUTCOME], job[NUMBER] = false, false
    end
end

-- Apply a transition to a job that runs; its children are added to `children`, each with whether it is cancelled as it
-- comes. The job keeps its limits until `free` is called.
local function apply(job, t, children)
    change(job)
    local state, reason, result = t[3], t[5], t[7]
    if job[CANCELLING] and t[14] then
        state, reason, result = 'cancelled', 'cancelled', nil
    else
        for _, child in ipairs(t[16]) do
            insert(children, {child, job[STOPS]})
        end
    end
    local number = job[ATTEMPT]
    if not t[9] then
        job[ATTEMPT] = number - 1
    end
    job[CRASHES], job[LOSSES] = job[CRASHES] + t[10], job[LOSSES] + t[11]
    if t[12] ~= nil then
        job[SUSPECT] = t[12]
    end
    job[CANCELLING], job[STOPS] = false, false
    job[STATE], job[REASON] = state, reason or false
    if TERMINAL[state] then
        job[FINISHED], job[OUTCOME], job[NUMBER], job[SUSPECT] = now, t[4], number, false
        job[RESULT], job[RESULT_UNTIL], job[ERROR] = result or false, result and now + t[15] or false, t[8] or false
        job[FINGERPRINT] = state == 'dead' and t[17] or false
    else
        add_attempt(job, {number, job[FENCE], job[WORKER], job[STARTED], now, t[4], reason or false, t[8] or false})
        if t[13] then
            job[PARKED] = state ~= 'queued' and now + t[6] or false
        else
            job[DUE_AT], job[PARKED] = now + t[6], false
            job[RANK] = job[DUE_AT] - job[HEAD_START]
        end
        if state == 'queued' then
            job[REASON] = false
        end
        job[WORKER], job[STARTED], job[GRANT] = false, false, false
        job[ERROR] = t[8] or job[ERROR]
    end
end

-- A child's idempotency key that belongs to another job, with another payload: {key, that job}. Looked for before
-- anything is written, as a script takes nothing back.
local function conflict(transitions)
    local taken = {}
    for _, t in ipairs(transitions) do
        for _, g in ipairs(t[16]) do
            if g[9] then
                local at = g[4] .. '\0' .. g[2] .. '\0' .. g[9]
                local owned = key_owner(at) or taken[at]
                if owned and owned[1] ~= g[1] and owned[2] ~= g[10] and not read(g[1]) then
                    return {g[9], owned[1]}
                end
                taken[at] = owned or {g[1], g[10]}
            end
        end
    end
end

-- These runs are over: what they kept is free, and then their children come.
local function over(ended, children)
    free(ended)
    for _, job in ipairs(ended) do
        if TERMINAL[job[STATE]] then
            give_up(job)
        end
    end
    for _, child in ipairs(children) do
        store_one(child[1], false, child[2])
    end
end
