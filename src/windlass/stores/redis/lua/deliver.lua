-- needs: store
-- given: source, number, jobs. Stores jobs that come from there under that number, unless it, or a later one, has come
-- before. Answers whether they were stored.

local mark = 'from:' .. given[1]
if given[2] <= tonumber(call('HGET', K.marks, mark) or 0) then
    return pack(false)
end
expect(given[3])
for _, g in ipairs(given[3]) do
    store_one(g, false)
end
later('HSET', K.marks, mark, given[2])
return done_with(true)
