-- needs: flow unique
-- given: behind which key, how many keys. Answers how many are departing, the rules of queues, keys that outlived their
-- jobs (tenant, task, key; id; digest; when their job ended), and windows (tenant, task, key; id; until when).

local left, windows = {}, {}
local from = given[1] and '(' .. given[1] or '-'
for n, at in ipairs(call('ZRANGEBYLEX', K.left, from, '+', 'LIMIT', 0, given[2])) do
    local owned = unpack_one(call('HGET', K.keys, at))
    left[n] = {at, owned[1], owned[2], owned[3]}
end
for _, member in ipairs(call('ZRANGE', K.outliving, 0, -1)) do
    local entry = sub(member, 1, 1) == 'u' and entry_of(sub(member, 2))
    if entry and not entry[LIVE] and entry[WINDOW] and entry[WINDOW] > now then
        insert(windows, {sub(member, 2), entry[OWNER], entry[WINDOW]})
    end
end
return pack({call('HLEN', K.departing), all_rules(), left, windows})
