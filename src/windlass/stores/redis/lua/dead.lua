-- needs: record
-- given: before which number (nil: the end), how many to look at. Answers, of those that died, newest first:
-- fingerprint, when, id; and the number that was reached, nil at the end.

local found, at = {}, nil
local block = block_of((given[1] or 2 ^ 47) - 1)
repeat
    local member = call('ZREVRANGEBYLEX', K.labels, '[sdead\0' .. block, '[sdead\0', 'LIMIT', 0, 1)[1]
    if not member then
        return pack({found, NIL})
    end
    at = struct.unpack('>I5', sub(member, -5)) * 256
    local ids = call('ZREVRANGEBYSCORE', K.index, format('%.0f', at + 255), format('%.0f', at))
    read_all(ids)
    for _, id in ipairs(ids) do
        local job = read(id)
        if job[STATE] == 'dead' then
            insert(found, {job[FINGERPRINT] or '', job[FINISHED], id})
        end
    end
    if at == 0 then
        return pack({found, NIL})
    end
    block = block_of(at - 1)
until #found >= given[2]
return pack({found, at})
