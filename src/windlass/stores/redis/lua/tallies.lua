-- needs: record
-- given: other store. Answers what has gone there, and what has come from there: how many, and four numbers.

local function tally(name)
    local found = call('HGET', K.tallies, name)
    return found and unpack_one(found) or {0, 0, 0, 0, 0}
end

return pack({tally('to:' .. given[1]), tally('from:' .. given[1])})
