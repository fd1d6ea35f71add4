-- needs: record
-- Answers every contradiction between the jobs and the lines in which they stand (I3).

local found, stands, says = {}, 0, 0
local flat = call('HGETALL', JOBS)
for n = 2, #flat, 2 do
    local job = unpack_one(flat[n])
    local where = lines(job)
    for at = 1, #where, 3 do
        says = says + 1
        local score = call('ZSCORE', where[at], where[at + 1])
        if not score or tonumber(score) ~= where[at + 2] then
            insert(found, 'job ' .. job[ID] .. ' does not stand where it says: ' .. where[at])
        end
    end
end
for _, key in ipairs({READY, DUE, EXPIRING, HELD, PERMITS, BLOCKED, RESULTS, TERMINAL.completed, TERMINAL.dead,
                      TERMINAL.cancelled, TERMINAL.expired}) do
    stands = stands + call('ZCARD', key)
end
if stands ~= says then
    insert(found, stands .. ' places are taken, and jobs say that they have ' .. says)
end
return pack(found)
