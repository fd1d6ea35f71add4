-- needs: flow time
-- given: how many of each queue to look at. Answers how many there are, by state and queue, and of each queue when
-- those that wait longest were due; the time; and the rules of queues.

local found, flat = {}, call('HGETALL', K.counts)
for n = 1, #flat, 2 do
    local first = find(flat[n], '\0', 1, true)
    insert(found, {sub(flat[n], 1, first - 1), sub(flat[n], first + 1), tonumber(flat[n + 1])})
end
local heads = {}
for _, suspect in ipairs({false, true}) do
    for _, queue in ipairs(ready_queues(suspect)) do
        -- With a head start who is first by rank need not be the first that was due: look at the first few.
        local line, ids, oldest = ready_line(suspect, queue), {}, nil
        for n, member in ipairs(along(K.ready, line, given[1])) do
            ids[n] = sub(member, #line + 15)
        end
        read_all(ids)
        for _, id in ipairs(ids) do
            local due = read(id)[DUE_AT]
            oldest = oldest and math.min(oldest, due) or due
        end
        insert(heads, {queue, oldest})
    end
end
return pack({found, heads, now, all_rules()})
