-- needs: unique
-- given: rules of queues, keys, windows (as standing.lua answers them), the least term, the least revision, and the
-- fields in which those are kept. Takes over what is not known here.

for _, each in ipairs(given[1]) do
    call('HSETNX', K.queues, each[1], pack(each[2]))
end
for _, key in ipairs(given[2]) do
    if call('HSETNX', K.keys, key[1], pack({key[2], key[3], key[4]})) == 1 then
        call('ZADD', K.left, 0, key[1])
        call('ZADD', K.outliving, key[4], 'k' .. key[1])
    end
end
for _, window in ipairs(given[3]) do
    if not entry_of(window[1]) then
        keep_window(window[1], {window[2], false, window[3], false, false})
    end
end
for _, each in ipairs({{K.leads, given[6], given[4]}, {K.schedules, given[7], given[5]}}) do
    if each[3] > tonumber(call('HGET', each[1], each[2]) or 0) then
        call('HSET', each[1], each[2], format('%.0f', each[3]))
    end
end
return done_with(true)
