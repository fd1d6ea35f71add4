-- needs: settle_one matching acting
-- given: action, ids, filter, dry run, delay, every, children, payload. Answers a word for each id.

local action, wanted, dry = given[1], given[3], given[4]
local delay, every = given[5], given[6]
local made = 0
local taken = {} -- of two that would have one key, the first; also where nothing is changed

local function keys_of(job)
    local found = {}
    if job[UNIQUE] then
        insert(found, 'u' .. unique_place(job))
    end
    if job[KEY] then
        insert(found, 'k' .. key_place(job))
    end
    return found
end

local function judge(job)
    local word = judges[action](job)
    if action == 'revive' and word == 'changed' and TERMINAL[job[STATE]] then
        for _, key in ipairs(keys_of(job)) do
            if taken[key] then
                return 'untouched'
            end
        end
        for _, key in ipairs(keys_of(job)) do
            taken[key] = true
        end
    end
    return word
end

local changes = {}

function changes.cancel(job)
    if job[STATE] ~= 'running' then
        return finish(change(job), 'cancelled', 'cancelled')
    end
    change(job)
    job[CANCELLING], job[STOPS] = true, job[STOPS] or given[7]
end

function changes.revive(job)
    local due = now + delay + made * every
    made = made + 1
    change(job)
    if TERMINAL[job[STATE]] then
        if job[UNIQUE] then
            local at = unique_place(job)
            local entry = entry_of(at)
            keep_entry(at, {job[ID], false, entry and entry[WINDOW] or false, true, false})
        end
        if job[KEY] then
            keep_key(key_place(job), job[ID], job[DIGEST])
        end
        remember(job)
        job[FENCE] = fence_of(job)
        job[ATTEMPT], job[CRASHES], job[LOSSES], job[SUSPECT] = 0, 0, 0, false
        for _, field in ipairs({WORKER, STARTED, FINISHED, EXPIRES, RESULT, RESULT_UNTIL, RESULT_GONE, ERROR, GRANT}) do
            job[field] = false
        end
    end
    job[STATE], job[REASON] = due > now and 'scheduled' or 'queued', due > now and 'redriven' or false
    job[DUE_AT], job[RANK], job[PARKED] = due, due - job[HEAD_START], false
end

function changes.edit(job)
    local _, meta = unpack_one(all_in(K.bodies, {job[ID]})[job[ID]])
    change(job)
    insert(bodies, job[ID])
    insert(bodies, pack(given[8], meta))
end

function changes.delete(job)
    give_up(job)
    local at = job[UNIQUE] and unique_place(job)
    local entry = at and entry_of(at)
    if entry and entry[OWNER] == job[ID] then -- remembered by nobody, not even for the rest of its window
        drop_entry(at)
    end
    local owned = job[KEY] and kept_key(key_place(job))
    if owned and owned[1] == job[ID] then
        drop_key(key_place(job))
    end
    remove(read(job[ID]))
end

local words = {}
read_all(given[2])
for n, id in ipairs(given[2]) do
    local job = read(id)
    local word = 'missing'
    if job then
        word = (not wanted or matches(job, wanted)) and judge(job) or 'untouched'
        if not dry and (word == 'changed' or word == 'asked') then
            changes[action](job)
        end
    end
    words[n] = word
end
return dry and pack(words) or done_with(words)
