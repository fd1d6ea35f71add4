-- needs: record unique store matching acting flow
-- given: the place before which to go on (nil: the end), a filter, an action, how many to find, how many to look at.
-- Answers the ids of those that match (and that the action would change), the place that was reached, nil at the end, and
-- the ids found with their places.

local from = given[1] and '(' .. format('%.0f', given[1]) or '+inf'
local found, at = {}, nil
local ids = call('ZREVRANGEBYSCORE', INDEX, from, '-inf', 'LIMIT', 0, given[5])
for _, id in ipairs(ids) do
    local job = read(id)
    at = job[SEQ]
    if matches(job, given[2]) and (not given[3] or not job[CANCELLING] and judges[given[3]](job) ~= 'untouched') then
        insert(found, {id, at})
        if #found == given[4] then
            return pack({found, at})
        end
    end
end
return pack({found, #ids == given[5] and at or NIL})
