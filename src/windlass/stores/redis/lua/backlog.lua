-- needs: record
-- given: behind which place, how many, how many to look at. Answers jobs that have not ended, and how far it was looked,
-- nil at the end.

local found, at = {}, nil
local ids = call('ZRANGEBYSCORE', INDEX, '(' .. format('%.0f', given[1]), '+inf', 'LIMIT', 0, given[3])
for _, id in ipairs(ids) do
    local job = read(id)
    at = job[SEQ]
    if not TERMINAL[job[STATE]] then
        insert(found, {job[ID], job[TASK], job[VERSION], job[QUEUE], job[STATE], job[PAYLOAD]})
        if #found == given[2] then
            return pack({found, at})
        end
    end
end
return pack({found, #ids == given[3] and at or NIL})
