-- needs: record
-- given: id, fence, name, value. Answers whether the run is one, and what was kept first.

local job = read(given[1])
if not job or job[STATE] ~= 'running' or job[FENCE] ~= given[2] then
    return pack({false, NIL})
end
local found = call('HGET', K.once, given[1])
local known = found and unpack_one(found) or {}
if known[given[3]] == nil and given[4] ~= nil then
    known[given[3]] = given[4]
    call('HSET', K.once, given[1], pack(known))
    return done_with({true, given[4]})
end
return pack({true, known[given[3]] or NIL})
