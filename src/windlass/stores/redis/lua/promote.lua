-- needs: flow time
-- given: how many. Answers when the next is due, whether more is due now, and where suspects wait.

come_due(given[1])
for _, line in ipairs(blocked_lines()) do -- whoever had a turn may have been cancelled instead of claimed
    unblock(line[1], nil)
end
local more, suspects = until_now(K.due, now, 1)[1] or until_now(K.expiring, now, 1)[1], {}
for _, queue in ipairs(ready_queues(true)) do
    if not rules_of(queue).paused then
        insert(suspects, queue)
    end
end
return done_with({next_due(), more ~= nil, suspects})
