-- needs: flow grant
-- given: worker, turn, ids. Answers grants, when the next is due, more, limited, alive.

local no = refused(given[1], given[2])
if no then
    return no
end
come_due(PROMOTE)
local rooms, line, seen = {}, {}, {}
for _, id in ipairs(given[3]) do
    local job = not seen[id] and read(id)
    seen[id] = true
    if job and not job[SUSPECT] and claimable(job) and not rules_of(job[QUEUE]).paused then
        local queue = job[QUEUE]
        if rooms[queue] == nil then
            rooms[queue] = queue_room(queue) or false
        end
        if not rooms[queue] then
            insert(line, job)
        elseif rooms[queue] > 0 then
            rooms[queue] = rooms[queue] - 1
            insert(line, job)
        end
    end
end
local granted, kept = admit(line, #line)
for _, job in ipairs(granted) do
    grant(job, given[1], given[2])
end
keep_back(kept)
return claimed(granted, false, false)
