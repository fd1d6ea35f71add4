-- needs: record
-- given: which hash, field (nil: all of them). Answers what is kept, and the time.

local key = ({leads = LEADS, schedules = SCHEDULES, marks = MARKS})[given[1]]
if given[2] == nil then
    return pack({call('HGETALL', key), now})
end
return pack({call('HGET', key, given[2]) or NIL, now})
