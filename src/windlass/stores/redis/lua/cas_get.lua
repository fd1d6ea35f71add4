-- needs: record
-- given: which hash, fields (nil: all of them). Answers what is kept of each, or all, and the time.

local key = ({leads = K.leads, schedules = K.schedules, marks = K.marks})[given[1]]
if given[2] == nil then
    return pack({call('HGETALL', key), now})
end
local found = {}
for n, field in ipairs(given[2]) do
    found[n] = call('HGET', key, field) or NIL
end
return pack({found, now})
