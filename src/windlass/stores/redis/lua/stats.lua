-- needs: record flow time
-- Answers how many there are, by state and queue, and of each queue when those that wait longest were due.

local found, flat = {}, call('HGETALL', COUNTS)
for n = 1, #flat, 2 do
    local first = find(flat[n], '\0', 1, true)
    insert(found, {sub(flat[n], 1, first - 1), sub(flat[n], first + 1), tonumber(flat[n + 1])})
end
local heads = {}
for _, suspect in ipairs({false, true}) do
    for _, queue in ipairs(ready_queues(suspect)) do
        -- With a head start who is first by rank need not be the first that was due: look at the first few.
        local line = ready_line(suspect, queue)
        local oldest
        for _, member in ipairs(call('ZRANGEBYLEX', READY, '[' .. line, '(' .. line .. '\255', 'LIMIT', 0, given[1])) do
            local due = read(sub(member, #line + 15))[DUE_AT]
            oldest = oldest and math.min(oldest, due) or due
        end
        insert(heads, {queue, oldest})
    end
end
return pack({found, heads, now})
