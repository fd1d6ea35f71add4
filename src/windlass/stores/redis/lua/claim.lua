-- needs: record flow unique time workers grant
-- given: worker, turn, limit, quotas, exclude, suspects, how long to park at least and most.
-- Answers grants, when the next is due, more, limited, alive.

local worker, turn, limit, suspects = given[1], given[2], given[3], given[6]
local no = refused(worker, turn)
if no then
    return pack(no)
end
come_due(PROMOTE)
local exclude = {}
for _, each in ipairs(given[5]) do
    exclude[each[1] .. '\0' .. each[2]] = true
end
local granted, more, limited = {}, false, false
for _, quota in ipairs(given[4]) do
    local queue, rules = quota[1], rules_of(quota[1])
    local asked = math.min(quota[2], limit - #granted)
    local within = queue_room(queue)
    local room = within and math.min(asked, within) or asked
    if room <= 0 or rules.paused then
        limited = limited or within == 0 and asked > 0 and not rules.paused
    else
        -- A bounded window of one queue: one full of jobs that this worker cannot run is parked, else every claim to
        -- come would walk past them. What stands first is looked at first, the rest only if that was not enough.
        local line, window, runnable, ready, found, kept = ready_line(suspects, queue), 0, {}, {}, {}, {}
        local from, to = '[' .. line, '(' .. line .. '\255'
        local members = call('ZRANGEBYLEX', READY, from, to, 'LIMIT', 0, room + CLAIM_WINDOW)
        for n, member in ipairs(members) do
            if #runnable >= room and not runnable.limited then
                break
            end
            local job = read(sub(member, #line + 15))
            if claimable(job) then
                insert(ready, job)
                if not exclude[job[TASK] .. '\0' .. job[VERSION]] then
                    insert(runnable, job)
                    runnable.limited = runnable.limited or job[LIMITS]
                end
            end
        end
        found, kept = admit(runnable, room)
        local full = #members == room + CLAIM_WINDOW
        if full and #runnable == 0 then
            for _, job in ipairs(ready) do
                park(job, given[7], given[8])
            end
        end
        for _, job in ipairs(found) do
            insert(granted, grant(job, worker, turn))
        end
        more = keep_back(kept) or more
        if #found < room then
            more = more or full
        else
            more = more or asked == room
        end
        limited = limited or within ~= nil and #found >= within
    end
end
more = more or limit > 0 and #granted >= limit
return done({granted, next_due(), more, limited, true})
