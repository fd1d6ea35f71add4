-- needs: departure landing
-- given: who is gone; parcels and schedules (name, as it was) that go back. Answers those that can't be put back.

local lost, digests, target = {}, {}, nil
for _, name in ipairs(given[1]) do
    call('HDEL', K.departing, name)
end
for _, p in ipairs(given[2]) do
    local id = p[JOB][ID]
    local found = call('HGET', K.departing, id)
    if found then
        target = unpack_one(found)[3]
        if land(p)[2] == 'moved' then
            insert(digests, p[PRINT])
            call('HDEL', K.departing, id)
        else
            insert(lost, id)
        end
    end
end
for _, each in ipairs(given[3]) do
    if call('HDEL', K.departing, each[1]) == 1 then
        call('HSET', K.schedules, each[1], each[2])
    end
end
if target then
    add_up('to:' .. target, digests, -1)
end
return done_with(lost)
