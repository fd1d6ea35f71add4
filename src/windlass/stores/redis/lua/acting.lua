-- needs: store
-- What an action of an operator makes of a job: the words are those of ports/store.py, Selected.

local function key_is_free(job)
    local entry = job[UNIQUE] and entry_of(unique_place(job))
    return not entry or not entry[LIVE]
end

local function idempotency_key_is_free(job)
    local owned = job[KEY] and key_owner(key_place(job))
    return not owned or owned[1] == job[ID]
end

local judges = {}

function judges.cancel(job)
    if job[STATE] == 'running' then
        return 'asked'
    end
    return TERMINAL[job[STATE]] and 'untouched' or 'changed'
end

function judges.revive(job)
    if job[STATE] == 'scheduled' or job[STATE] == 'retrying' then
        return 'changed'
    end
    return TERMINAL[job[STATE]] and key_is_free(job) and idempotency_key_is_free(job) and 'changed' or 'untouched'
end

function judges.edit(job)
    return job[STATE] == 'running' and 'untouched' or 'changed'
end

judges.delete = judges.edit
