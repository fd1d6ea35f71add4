-- needs: departure
-- given: target, jobs (id, print, text, digest), schedules (name, as read, as it stays, text, its previous jobs). Sets
-- them aside. Answers under which number; nil where one of them is no longer as it was read, or others are set aside
-- already, and nothing is done.

local target, leaving, schedules = given[1], given[2], given[3]

local function same()
    for _, each in ipairs(leaving) do
        local job = read(each[1])
        if not job or job[STATE] == 'running' or print_of(each[1]) ~= each[2] then
            return false
        end
    end
    for _, each in ipairs(schedules) do
        if call('HGET', K.schedules, each[1]) ~= each[2] then
            return false
        end
        for _, id in ipairs(each[5]) do
            local job = read(id)
            if job and not TERMINAL[job[STATE]] then
                return false
            end
        end
    end
    return call('EXISTS', K.departing) == 0
end

-- Its keys stay taken, by it.
local function leave(job)
    local at = job[UNIQUE] and unique_place(job)
    local entry = at and entry_of(at)
    if entry and entry[SUCCESSOR] == job[ID] then
        entry[SUCCESSOR] = false
        keep_entry(at, entry)
    elseif entry and entry[OWNER] == job[ID] and entry[LIVE] then
        entry[AWAY] = true
        keep_entry(at, entry)
    end
    remove(job)
    call('ZADD', K.departed, now, job[ID])
end

if not same() then
    return pack(NIL)
end
local number, n, digests = call('HINCRBY', K.marks, 'departures', 1), 0, {}

local function set_aside(name, kind, text, digest)
    n = n + 1
    call('HSET', K.departing, name, pack({number, n, target, kind, text, digest}))
end

for _, each in ipairs(leaving) do
    insert(digests, each[4])
    leave(read(each[1]))
    set_aside(each[1], 'job', each[3], each[4])
end
for _, each in ipairs(schedules) do
    call('HSET', K.schedules, each[1], each[3])
    set_aside(each[1], 'schedule', each[4], {0, 0, 0, 0})
end
add_up('to:' .. target, digests, 1)
return done_with(number)
