-- needs: record
-- given: id, behind which line. Answers its lines.

local found = {}
for n = given[2] + 1, tonumber(call('HGET', K.logs, given[1]) or 0) do
    insert(found, call('HGET', K.logs, given[1] .. '\0' .. n))
end
return pack(found)
