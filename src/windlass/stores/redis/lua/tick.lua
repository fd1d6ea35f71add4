-- needs: record
-- given: schedule, the ids of its previous jobs, the id of the new one. Answers what is kept of it, the time, which of the
-- previous live, and whether the new one is stored, or took another's place.

local found, left = call('HGET', SCHEDULES, given[1]) or NIL, {}
for _, id in ipairs(given[2]) do
    local job = read(id)
    if job and not TERMINAL[job[STATE]] then
        insert(left, id)
    end
end
local before = given[3] and (call('HEXISTS', JOBS, given[3]) == 1 and 'fired' or call('HEXISTS', MERGED, given[3]) == 1 and 'skipped')
return pack({found, now, left, before or NIL})
