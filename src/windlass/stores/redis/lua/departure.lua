-- needs: settle_one reading
-- Jobs on their way to another store. A tally is how many went, and the XOR of their digests, as four numbers.

-- All that belongs to a job, but its progress; see ports/parcel.py.
local function parcel_of(job, packed)
    local id, logs, merged, once = job[ID], {}, {}, call('HGET', K.once, job[ID])
    for n = 1, tonumber(call('HGET', K.logs, id) or 0) do
        logs[n] = call('HGET', K.logs, id .. '\0' .. n)
    end
    for other in string.gmatch(call('HGET', K.into, id) or '', '([^%z]+)') do
        insert(merged, other)
    end
    local owned = job[KEY] and call('HGET', K.keys, key_place(job))
    local entry = job[UNIQUE] and entry_of(unique_place(job))
    return array(14) .. packed .. pack(
        job[HEAD_START], job[RANK], job[DUE_AT], history(job), logs, once and unpack_one(once) or {},
        job[RESULT_UNTIL] or NIL, job[KEY] or NIL, job[KEY] and job[DIGEST] or '',
        job[KEY] ~= false and (not owned or unpack_one(owned)[1] ~= id),
        entry and entry[OWNER] == id and entry[WINDOW] or NIL, entry and entry[SUCCESSOR] == id and entry[OWNER] or NIL,
        merged)
end

-- Of what is known of a job now: if it is still the same, nothing of it has changed.
local function print_of(id)
    local facts = {}
    for n, key in ipairs({K.jobs, K.bodies, K.attempts, K.logs, K.once, K.progress, K.into}) do
        facts[n] = call('HGET', key, id) or ''
    end
    return redis.sha1hex(concat(facts, '\0'))
end

local function add_up(name, digests, sign)
    if #digests == 0 then
        return
    end
    local found = call('HGET', K.tallies, name)
    local tally = found and unpack_one(found) or {0, 0, 0, 0, 0}
    tally[1] = tally[1] + sign * #digests
    for _, digest in ipairs(digests) do
        for n = 1, 4 do
            tally[n + 1] = bit.bxor(tally[n + 1], digest[n])
        end
    end
    call('HSET', K.tallies, name, pack(tally))
end
