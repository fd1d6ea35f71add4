-- needs: departure
-- given: how many, who stays, how many bytes at most. Answers who leaves next, each with its print and its parcel.

local most, stay, weight_most = given[1], {}, given[3]
for _, id in ipairs(given[2]) do
    stay[id] = true
end

-- A successor goes with its owner, or behind one that went.
local function may_leave(job)
    local follows = job[STATE] == 'blocked' and job[UNIQUE] and not job[BLOCKER]
    return not stay[job[ID]] and job[STATE] ~= 'running' and (not follows or entry_of(unique_place(job))[AWAY])
end

-- The first of a line who may leave.
local function first_of(range, id_of)
    local found, from = {}, 0
    repeat
        local members, ids = range(from, from + most - 1), {}
        for n, member in ipairs(members) do
            ids[n] = id_of(member)
        end
        read_all(ids)
        for _, id in ipairs(ids) do
            if #found < most and may_leave(read(id)) then
                insert(found, read(id))
            end
        end
        from = from + most
    until #found == most or #members < most
    return found
end

local function line(key)
    return function(from, to) return call('ZRANGE', key, from, to) end
end

local function timed(member)
    return sub(member, 7)
end

local function itself(member)
    return member
end

local function behind_queue(member)
    return sub(member, find(member, '\0', 1, true) + 15)
end

local function behind_key(member)
    return sub(member, find(member, '\0', find(member, '\0', 1, true) + 1, true) + 19)
end

-- What waits is wanted sooner than what has ended.
local function leaving()
    local lines = {
        {K.ready, behind_queue}, {K.due, timed}, {K.blocked, behind_key}, {K.following, timed}, {K.index, itself},
    }
    for _, each in ipairs(lines) do
        local found = first_of(line(each[1]), each[2])
        if #found > 0 then
            return found
        end
    end
    return {}
end

local chosen, known, weight = {}, {}, 0
for _, job in ipairs(leaving()) do
    weight = weight + call('HSTRLEN', K.bodies, job[ID]) + #(job[RESULT] or '')
    if weight > weight_most and #chosen > 0 then
        break
    end
    insert(chosen, job)
    known[job[ID]] = true
end
for n = 1, #chosen do
    local entry = chosen[n][UNIQUE] and entry_of(unique_place(chosen[n]))
    local heir = entry and entry[OWNER] == chosen[n][ID] and entry[SUCCESSOR]
    if heir and not known[heir] then
        insert(chosen, read(heir))
    end
end
local answers, packed = {}, as_jobs(chosen)
for n, job in ipairs(chosen) do
    answers[n] = array(2) .. pack(print_of(job[ID])) .. parcel_of(job, packed[n])
end
return list_of(answers)
