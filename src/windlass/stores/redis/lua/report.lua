-- needs: record
-- given: progress (id, fence, text), logs (id, fence, line as msgpack), how many lines are kept. Answers the tokens
-- that may not speak.

local dead, may = {}, {}

local function speaks(id, fence)
    local key = id .. '\0' .. format('%.0f', fence) -- as two dots would cut it to fourteen digits
    if may[key] == nil then
        local job = fence > 0 and read(id)
        may[key] = job and job[FENCE] == fence or false
        if not may[key] then
            insert(dead, {id, fence})
        end
    end
    return may[key]
end

for _, each in ipairs(given[1]) do
    if speaks(each[1], each[2]) then
        call('HSET', K.progress, each[1], each[3])
    end
end
for _, each in ipairs(given[2]) do
    if speaks(each[1], each[2]) and tonumber(call('HGET', K.logs, each[1]) or 0) < given[3] then
        call('HSET', K.logs, each[1] .. '\0' .. call('HINCRBY', K.logs, each[1], 1), each[3])
    end
end
return done_with(dead)
