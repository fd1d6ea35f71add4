-- needs: keys
-- What Python decides: it reads fields of a hash, and they are written if they are still as it read them.

-- Fields, each with what was read of it (nil: nothing) and what to keep (nil: nothing). Whether that was done.
local function cas(key, fields)
    for _, each in ipairs(fields) do
        if (call('HGET', key, each[1]) or nil) ~= each[2] then
            return false
        end
    end
    for _, each in ipairs(fields) do
        if each[3] == nil then
            call('HDEL', key, each[1])
        else
            call('HSET', key, each[1], each[3])
        end
    end
    return true
end
