-- needs: record
-- given: parents, from which of them on, behind which of its children, how many. Answers children, each with the number
-- of its parent and its own place.

local found = {}
for n = given[2], #given[1] do
    local from = given[1][n] .. '\0'
    local first, last = '[' .. from, '(' .. given[1][n] .. '\1'
    if n == given[2] and given[3] > 0 then
        first = '(' .. from .. struct.pack('>I6', given[3]) .. '\255'
    end
    for _, member in ipairs(call('ZRANGEBYLEX', K.children, first, last, 'LIMIT', 0, given[4] - #found)) do
        insert(found, {sub(member, #from + 7), n, (struct.unpack('>I6', member, #from + 1))})
    end
    if #found >= given[4] then
        break
    end
end
return pack(found)
