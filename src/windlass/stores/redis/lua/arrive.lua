-- needs: cas departure landing
-- given: source, number, parcels, schedules (as cas.lua takes them). Answers the last number that came from there, and
-- of each parcel its id, how it went, and who was in its way; only the last number where that is greater; nil where a
-- schedule is no longer as it was read. In both cases nothing is done.

local source, number = given[1], given[2]
local last = tonumber(call('HGET', K.marks, 'from:' .. source) or 0)
if number < last then
    return pack({last})
end
if not cas(K.schedules, given[4]) then
    return pack(NIL)
end
call('HSET', K.marks, 'from:' .. source, number)
local answers, digests = {}, {}
for n, p in ipairs(given[3]) do
    answers[n] = land(p)
    local word = answers[n][2]
    -- What is present already was counted when this departure came first.
    if word == 'moved' or word == 'keyless' or word == 'present' and number > last then
        insert(digests, p[PRINT])
    end
end
add_up('from:' .. source, digests, 1)
return done_with({last, answers})
