-- needs: record
-- given: behind which number, how many, how many to look at. Answers jobs that have not ended, and how far it was
-- looked, nil at the end.

local found, at = {}, NIL
local ids = call('ZRANGEBYSCORE', K.index, '(' .. format('%.0f', given[1]), '+inf', 'LIMIT', 0, given[3])
read_all(ids)
for _, id in ipairs(ids) do
    local job = read(id)
    at = job[SEQ]
    if not TERMINAL[job[STATE]] then
        insert(found, job)
        if #found == given[2] then
            break
        end
    end
end
local wanted, answers = {}, {}
for n, job in ipairs(found) do
    wanted[n] = job[ID]
end
local kept = all_in(K.bodies, wanted)
for n, job in ipairs(found) do
    local payload = unpack_one(kept[job[ID]])
    answers[n] = {job[ID], job[TASK], job[VERSION], job[QUEUE], job[STATE], payload}
end
return pack({answers, (#found == given[2] or #ids == given[3]) and at or NIL})
