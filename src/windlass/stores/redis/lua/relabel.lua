-- needs: record
-- given: behind which label, how many. Of labels of states, takes away those that nothing in their block has any more:
-- a search for what waits would look at every block in which anything ever waited. Answers the last one, nil at the
-- end.

local members = call('ZRANGEBYLEX', K.labels, '(' .. (given[1] or STATE_LABEL), '(t', 'LIMIT', 0, given[2])
for _, member in ipairs(members) do
    local name, block, found = sub(member, 1, #member - 6), sub(member, -5), false
    local start = struct.unpack('>I5', block) * 256
    local ids = call('ZRANGEBYSCORE', K.index, start, start + 255)
    read_all(ids)
    for _, id in ipairs(ids) do
        found = found or STATE_LABEL .. read(id)[STATE] == name
    end
    if not found then
        call('ZREM', K.labels, member, '\0' .. block .. name)
    end
end
return array(2) .. pack(#members == given[2]) .. (#members > 0 and binary(members[#members]) or pack(NIL))
