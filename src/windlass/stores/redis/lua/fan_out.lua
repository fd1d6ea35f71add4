-- needs: store
-- given: id, fence, name, after how many, jobs. Answers whether the run is one, and how many there are now.

local job = read(given[1])
if not job or job[STATE] ~= 'running' or job[FENCE] ~= given[2] then
    return pack({false, 0})
end
local found = call('HGET', K.once, given[1])
local known = found and unpack_one(found) or {}
local count = tonumber(known[given[3]] or '0')
if count ~= given[4] or #given[5] == 0 then
    return pack({true, count})
end
expect(given[5])
for _, g in ipairs(given[5]) do
    store_one(g, false)
end
count = count + #given[5]
known[given[3]] = format('%.0f', count)
call('HSET', K.once, given[1], pack(known))
return done_with({true, count})
