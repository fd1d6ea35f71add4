-- needs: record flow unique time
-- given: how many. Answers when the next is due, whether more is due now, and where suspects wait.

come_due(given[1])
for _, line in ipairs(blocked_lines()) do -- whoever had a turn may have been cancelled instead of claimed
    unblock(line[1], nil)
end
local due = call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, 1)[1]
local late = call('ZRANGEBYSCORE', EXPIRING, '-inf', now, 'LIMIT', 0, 1)[1]
local suspects = {}
for _, queue in ipairs(ready_queues(true)) do
    if not rules_of(queue).paused then
        insert(suspects, queue)
    end
end
return done({next_due(), due ~= nil or late ~= nil, suspects})
