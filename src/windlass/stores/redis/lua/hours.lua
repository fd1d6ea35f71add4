-- needs: record
-- given: since, until. Answers the numbers between which all jobs are that came in that time: by the hours of which
-- there are any, each of them with its first block and its last.

local from, to = hour_of(given[1] or 0), hour_of(given[2] or 9007199254740991)
local low, high = false, false
for _ = 1, 10000 do
    local member = call('ZRANGEBYLEX', K.labels, '[' .. from, '(' .. to .. '\0\255', 'LIMIT', 0, 1)[1]
    if not member then
        if not low then
            return pack({0, 0})
        end
        return pack({struct.unpack('>I5', low) * 256, struct.unpack('>I5', high) * 256 + 256})
    end
    local hour = sub(member, 1, 9)
    local first = sub(member, -5)
    local last = sub(call('ZREVRANGEBYLEX', K.labels, '(' .. hour .. '\1', '[' .. hour .. '\0', 'LIMIT', 0, 1)[1], -5)
    low, high = (low and low < first) and low or first, (high and high > last) and high or last
    from = hour .. '\1'
end
return pack({0, 2 ^ 47})
