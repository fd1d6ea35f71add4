-- needs: flow
-- given: changes (queue, paused, limit, bounds). Answers every queue with its rules.

for _, each in ipairs(given[1]) do
    local said = rules_of(each[1])
    if each[2] ~= nil then
        said.paused = each[2]
    end
    if each[3] ~= nil then
        said.limit = each[3] > 0 and each[3] or nil
    end
    if each[4] ~= nil then
        said.bounds = next(each[4]) and each[4] or nil
    end
    said.paused = said.paused or false
    call('HSET', K.queues, each[1], pack(said))
end
wake()
return done_with(all_rules())
