-- needs: record
-- given: which hash, and fields with what was read of each (nil: nothing) and what to keep (nil: nothing). Answers whether
-- all was still as it was read; if not, nothing is done.

local key = ({leads = LEADS, schedules = SCHEDULES, marks = MARKS})[given[1]]
for _, each in ipairs(given[2]) do
    if (call('HGET', key, each[1]) or nil) ~= each[2] then
        return pack(false)
    end
end
for _, each in ipairs(given[2]) do
    if each[3] == nil then
        call('HDEL', key, each[1])
    else
        call('HSET', key, each[1], each[3])
    end
end
return done(true)
