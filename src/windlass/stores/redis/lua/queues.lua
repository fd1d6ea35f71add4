-- needs: record flow
-- given: changes (queue, paused, limit, bounds). Answers every queue with its rules.

for _, each in ipairs(given[1]) do
    local rules = rules_of(each[1])
    if each[2] ~= nil then
        rules.paused = each[2]
    end
    if each[3] ~= nil then
        rules.limit = each[3] > 0 and each[3] or nil
    end
    if each[4] ~= nil then
        rules.bounds = next(each[4]) and each[4] or nil
    end
    rules.paused = rules.paused or false
    call('HSET', QUEUES, each[1], pack(rules))
end
local found, flat = {}, call('HGETALL', QUEUES)
for n = 1, #flat, 2 do
    insert(found, {flat[n], unpack_one(flat[n + 1])})
end
if #given[1] > 0 then
    return done(found)
end
return pack(found)
