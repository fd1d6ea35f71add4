-- needs: keys
-- What nearly every script begins with: its unit of work. A job is read once, changed here, and written by `flush` with
-- all that follows from it, in as few commands as there are kinds of things to write: one by one they were half of the
-- server's time. So no line can disagree with the job (I3), and a script that fails before it flushes has changed
-- nothing.

if call('HEXISTS', K.marks, 'schema') == 0 then
    return redis.error_reply('SCHEMA')
end

-- --- where a job stands -------------------------------------------------------------------------------------------

-- A whole number as eight bytes that sort as it does: how, and which seven of them.
local function ordering(n)
    if n >= 0 then
        return 49, n
    end
    return 48, 9007199254740992 + n
end

local function ordered(n)
    return struct.pack('>BI7', ordering(n))
end

-- The place of a job among those that come at the same moment: in the order of enqueue.
local function place(job)
    return struct.pack('>I6', job[SEQ]) .. job[ID]
end

-- The same by rank. At once, as every string that Lua makes costs more than what is done with it.
local function ranked(job)
    local sign, n = ordering(job[RANK])
    return struct.pack('>BI7I6', sign, n, job[SEQ]) .. job[ID]
end

local function block_of(seq)
    return struct.pack('>I5', math.floor(seq / 256))
end

local function ready_line(suspect, queue)
    return (suspect and '1' or '0') .. queue .. '\0'
end

local function blocked_line(key, suspect, queue, most)
    return key .. '\0' .. (suspect and '1' or '0') .. queue .. '\0' .. struct.pack('>I4', most)
end

local function comes_due(job)
    return job[PARKED] or job[DUE_AT]
end

-- Each of a job's keys once, with its limit.
local function limits_of(job)
    local found, seen = {}, {}
    for _, limit in ipairs(job[LIMITS] or NONE) do
        if not seen[limit[1]] then
            seen[limit[1]] = true
            insert(found, limit)
        end
    end
    return found
end

-- Sorted sets, each with a score and a member.
local function lines(job)
    local state, found = job[STATE], NONE
    if state == 'queued' then
        found = {K.ready, 0, ready_line(job[SUSPECT], job[QUEUE]) .. ranked(job)}
    elseif state == 'running' then
        found = {K.held, 0, job[WORKER] .. '\0' .. job[ID]}
        for _, limit in ipairs(job[LIMITS] and limits_of(job) or NONE) do
            insert(found, K.permits)
            insert(found, 0)
            insert(found, limit[1] .. '\0' .. job[ID])
        end
        return found
    elseif state == 'scheduled' or state == 'retrying' then
        found = {K.due, comes_due(job), place(job)}
    elseif state == 'blocked' then
        if job[BLOCKER] then
            local line = blocked_line(job[BLOCKER], job[SUSPECT], job[QUEUE], job[MOST])
            found = {K.blocked, 0, line .. ranked(job)}
        else
            found = {K.following, 0, place(job)}
        end
    else
        return found
    end
    if job[EXPIRES] then
        insert(found, K.expiring)
        insert(found, job[EXPIRES])
        insert(found, place(job))
    end
    return found
end

-- Grows whatever the clock does, and jumps ahead with it: a store that lost its latest writes is past every fence it
-- gave.
local function fence_of(job)
    return math.max(job[FENCE] + 1, now)
end

-- Where its idempotency key is kept.
local function key_place(job)
    return job[TENANT] .. '\0' .. job[TASK] .. '\0' .. job[KEY]
end

-- --- the unit of work ---------------------------------------------------------------------------------------------

local jobs = {} -- by id, as they are now; false: there is none
local touched = {} -- those that are not written yet
local stood = {} -- of each of them: lines, state, until when its result was kept
local removed = {}
local pending = {} -- commands that are to come with the next `flush`
local counted = {} -- by state, by queue: what is to be added
local places = {} -- of some: lines, as they were met there
local CHUNK = 2000 -- arguments of one command: 8,000 are all that fit on Lua's stack

local function later(...)
    insert(pending, {...})
end

local function send(command, key, args)
    for from = 1, #args, CHUNK do
        call(command, key, unpack(args, from, math.min(from + CHUNK - 1, #args)))
    end
end

-- A list to fill under a name.
local function under(lists, name)
    local list = lists[name]
    if not list then
        list = {}
        lists[name] = list
    end
    return list
end

-- From what is kept: an array, whose elements are put into a table of their number at once. One by one it would grow
-- seven times. What says where they end comes first, in the place of the id.
local function job_of(kept, id)
    local job = {cmsgpack.unpack_limit(kept, FINGERPRINT - 1, 4)}
    job[ID] = id
    return job
end

local function read(id)
    local job = jobs[id]
    if job == nil then
        local kept = call('HGET', K.jobs, id)
        job = kept and job_of(kept, id)
        jobs[id] = job
    end
    return job or nil
end

-- Ask at once for what `read` is going to be asked for.
local function read_all(ids)
    local wanted = {}
    for _, id in ipairs(ids) do
        if jobs[id] == nil then
            jobs[id] = false
            insert(wanted, id)
        end
    end
    for from = 1, #wanted, CHUNK do
        local found = call('HMGET', K.jobs, unpack(wanted, from, math.min(from + CHUNK - 1, #wanted)))
        for n = 1, #found do
            local id = wanted[from + n - 1]
            jobs[id] = found[n] and job_of(found[n], id)
        end
    end
end

local function count(job, by)
    local queues = under(counted, job[STATE])
    queues[job[QUEUE]] = (queues[job[QUEUE]] or 0) + by
end

-- A job that stands nowhere but there.
local function met(job, key, member)
    if not job[EXPIRES] then
        places[job] = {key, 0, member}
    end
end

-- Say that a job will be changed.
local function change(job)
    if not stood[job] then
        stood[job] = {places[job] or lines(job), job[STATE], job[RESULT_UNTIL]}
        places[job] = nil
        insert(touched, job)
        count(job, -1)
    end
    return job
end

local function open(id)
    local job = read(id)
    return job and change(job)
end

local last_number, bodies = nil, {}

-- A job that was not there; and its payload and meta, as they came.
local function enter(job, body)
    last_number = (last_number or tonumber(call('GET', K.seq) or 0)) + 1
    job[SEQ], jobs[job[ID]], stood[job] = last_number, job, {{}}
    insert(touched, job)
    insert(bodies, job[ID])
    insert(bodies, body)
end

-- Tell those who listen, once, that there is something to claim, or sooner than they know. They say that they listen,
-- and learn in the same script how often something came before (listen.lua), so nothing is missed in between.
local function wake()
    local count = call('HINCRBY', K.marks, 'came', 1)
    if call('HDEL', K.marks, 'listening') == 1 then
        call('SPUBLISH', K.changes, count)
    end
end

-- What labels begin with.
local STATE_LABEL, QUEUE_LABEL, TASK_LABEL, TAG_LABEL, SCHEDULE_LABEL, HOUR_LABEL = 's', 'q', 't', 'g', 'c', 'h'

local labelled = {} -- by what, by name: the blocks of which it was said

local function hour_of(at)
    return HOUR_LABEL .. ordered(math.floor(at / 3600000000))
end

-- Say that there is a job of this kind in a block, and under the block, that it was said.
local function label(kinds, what, name, seq)
    local said, block = under(under(labelled, what), name), math.floor(seq / 256)
    if not said[block] then
        said[block] = true
        local shown = what == HOUR_LABEL and what .. ordered(name) or what .. name
        block = block_of(seq)
        insert(kinds, 0)
        insert(kinds, shown .. '\0' .. block)
        insert(kinds, 0)
        insert(kinds, '\0' .. block .. shown)
    end
end

-- Results of a block that are kept for the same time.
local function kept_as(ttl, seq)
    return format('%.0f', ttl) .. '\0' .. block_of(seq)
end

-- What is written once, when a job comes in.
local function note_coming(job, come, kinds)
    local list = under(come, K.index)
    insert(list, job[SEQ])
    insert(list, job[ID])
    if job[PARENT] then
        list = under(come, K.children)
        insert(list, 0)
        insert(list, job[PARENT] .. '\0' .. place(job))
    end
    label(kinds, HOUR_LABEL, math.floor(job[CREATED] / 3600000000), job[SEQ])
    label(kinds, QUEUE_LABEL, job[QUEUE], job[SEQ])
    label(kinds, TASK_LABEL, job[TASK], job[SEQ])
    for _, tag in ipairs(job[TAGS] or {}) do
        label(kinds, TAG_LABEL, tag, job[SEQ])
    end
    if job[SCHEDULE] then
        label(kinds, SCHEDULE_LABEL, job[SCHEDULE], job[SEQ])
    end
end

-- What follows from the end of a job.
local function note_end(job, ends)
    insert(under(ends, TERMINAL[job[STATE]]), job)
    if job[KEY] then
        local at = key_place(job)
        local owned = call('HGET', K.keys, at)
        if owned and unpack_one(owned)[1] == job[ID] then
            call('ZADD', K.outliving, job[FINISHED], 'k' .. at)
        end
    end
end

-- In a list of those that ended no entry is earlier than the one before it, whatever the clock does: so whoever prunes
-- need not look past the first that stays.
local function append(key, ended)
    local last, entries = call('LINDEX', key, -1), {}
    local at = last and struct.unpack('>I7', last) or 0
    for n, job in ipairs(ended) do
        at = math.max(at, job[FINISHED])
        entries[n] = struct.pack('>I7I6', at, job[SEQ])
    end
    send('RPUSH', key, entries)
end

local function same(one, other)
    if #one ~= #other then
        return false
    end
    for n = 1, #one do
        if one[n] ~= other[n] then
            return false
        end
    end
    return true
end

-- Write what was changed so far. Whoever asks which jobs stand in a line does this first; see `between`.
local function flush()
    if #touched == 0 and #pending == 0 then
        return
    end
    for _, command in ipairs(pending) do
        call(unpack(command))
    end
    pending = {}
    local batch, gone, come, ends, records, kinds, results = touched, {}, {}, {}, {}, {}, {}
    touched = {}
    for _, job in ipairs(batch) do
        local was, is = stood[job], removed[job] and {} or lines(job)
        stood[job] = nil
        if not same(was[1], is) then
            for n = 1, #was[1], 3 do
                insert(under(gone, was[1][n]), was[1][n + 2])
            end
            for n = 1, #is, 3 do
                local list = under(come, is[n])
                insert(list, is[n + 1])
                insert(list, is[n + 2])
            end
        end
        if not removed[job] then
            count(job, 1)
            local id = job[ID]
            job[ID] = false
            insert(records, id)
            insert(records, pack(job))
            job[ID] = id
            if TERMINAL[job[STATE]] and not TERMINAL[was[2]] then
                note_end(job, ends)
            end
            if job[RESULT_UNTIL] and job[RESULT_UNTIL] ~= was[3] then
                local blocks, block = under(results, job[RESULT_UNTIL] - job[FINISHED]), math.floor(job[SEQ] / 256)
                blocks[block] = math.min(blocks[block] or job[RESULT_UNTIL], job[RESULT_UNTIL])
            end
            if was[2] ~= job[STATE] and job[STATE] ~= 'running' then
                label(kinds, STATE_LABEL, job[STATE], job[SEQ])
            end
            if not was[2] or was.comes_anew then
                note_coming(job, come, kinds)
            end
        end
    end
    for key, members in pairs(gone) do
        send('ZREM', key, members)
    end
    for key, members in pairs(come) do
        send('ZADD', key, members)
    end
    for key, ended in pairs(ends) do
        append(key, ended)
    end
    send('ZADD', K.labels, kinds)
    send('HSET', K.jobs, records)
    for ttl, blocks in pairs(results) do
        for block, at in pairs(blocks) do
            call('ZADD', K.results, 'LT', at, kept_as(ttl, block * 256))
        end
    end
    send('HSET', K.bodies, bodies)
    bodies = {}
    if last_number then
        call('SET', K.seq, format('%.0f', last_number))
    end
    if come[K.ready] or come[K.due] then
        wake()
    end
end

-- What a script that changed something ends with.
local function done()
    flush()
    for state, queues in pairs(counted) do
        for queue, by in pairs(queues) do
            if by ~= 0 then
                call('HINCRBY', K.counts, state .. '\0' .. queue, by)
            end
        end
    end
    call('INCR', K.changes)
end

local function done_with(answer)
    done()
    return pack(answer)
end

-- --- who stands in a line -----------------------------------------------------------------------------------------

-- By bytes: from one to before another, at most so many.
local function between(key, from, to, most)
    flush()
    return call('ZRANGEBYLEX', key, '[' .. from, '(' .. to, 'LIMIT', 0, most)
end

-- All of a line.
local function along(key, line, most)
    return between(key, line, line .. '\255', most)
end

local function how_many(key, line)
    flush()
    return call('ZLEXCOUNT', key, '[' .. line, '(' .. line .. '\255')
end

-- By time: those whose time has come.
local function until_now(key, at, most)
    flush()
    return call('ZRANGEBYSCORE', key, '-inf', at, 'LIMIT', 0, most)
end

-- --- answers ------------------------------------------------------------------------------------------------------

-- How an array of so many begins, in msgpack: what follows may have been packed before.
local function array(n)
    return n < 16 and string.char(144 + n) or '\221' .. struct.pack('>I4', n)
end

-- Any bytes, as Python is to have them.
local function binary(bytes)
    return '\198' .. struct.pack('>I4', #bytes) .. bytes
end

local function list_of(packed)
    return array(#packed) .. concat(packed)
end

-- Of these jobs, what a hash has of them.
local function all_in(key, ids)
    local found = {}
    for from = 1, #ids, CHUNK do
        local to = math.min(from + CHUNK - 1, #ids)
        for n, value in ipairs(call('HMGET', key, unpack(ids, from, to))) do
            found[ids[from + n - 1]] = value
        end
    end
    return found
end
