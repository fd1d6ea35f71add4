-- needs: flow grant
-- given: worker, turn, limit, quotas, exclude, suspects, how long to park at least and most.
-- Answers grants, when the next is due, more, limited, alive.

local worker, turn, limit, suspects = given[1], given[2], given[3], given[6]
local no = refused(worker, turn)
if no then
    return no
end
local excluded = {}
for _, each in ipairs(given[5]) do
    excluded[each[1] .. '\0' .. each[2]] = true
end

-- The first of a line: those that are ready, those of them that this worker can run, and whether there may be more
-- behind. What stands first is looked at first, the rest only if that was not enough.
local function front(queue, room)
    local line, ready, runnable, limited, from = ready_line(suspects, queue), {}, {}, false, 0
    for _, most in ipairs({room, CLAIM_WINDOW}) do
        if #runnable >= room and not limited then
            return ready, runnable, true
        end
        flush()
        local members = call('ZRANGEBYLEX', K.ready, '[' .. line, '(' .. line .. '\255', 'LIMIT', from, most)
        local ids = {}
        for n, member in ipairs(members) do
            ids[n] = sub(member, #line + 15)
        end
        read_all(ids)
        for n, id in ipairs(ids) do
            local job = read(id)
            met(job, K.ready, members[n])
            if claimable(job) then
                insert(ready, job)
                if not excluded[job[TASK] .. '\0' .. job[VERSION]] then
                    insert(runnable, job)
                    limited = limited or job[LIMITS]
                end
            end
        end
        if #members < most then
            return ready, runnable, false
        end
        from = from + most
    end
    return ready, runnable, true
end

come_due(PROMOTE)
local granted, more, limited = {}, false, false
for _, quota in ipairs(given[4]) do
    local queue, rules = quota[1], rules_of(quota[1])
    local asked = math.min(quota[2], limit - #granted)
    local within = queue_room(queue)
    local room = within and math.min(asked, within) or asked
    if room <= 0 or rules.paused then
        limited = limited or within == 0 and asked > 0 and not rules.paused
    else
        local ready, runnable, full = front(queue, room)
        local found, kept = admit(runnable, room)
        -- A whole window of jobs that this worker cannot run is parked, else every claim to come would walk past them.
        if full and #runnable == 0 then
            for _, job in ipairs(ready) do
                park(job, given[7], given[8])
            end
        end
        for _, job in ipairs(found) do
            grant(job, worker, turn)
            insert(granted, job)
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
return claimed(granted, more or limit > 0 and #granted >= limit, limited)
