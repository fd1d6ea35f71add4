-- needs: record
-- given: id. Answers its place in the order of enqueue; if it is gone, that behind the last one with a smaller id, as
-- ids are made in the order of time.

local job = read(given[1])
if job then
    return pack(job[SEQ])
end
local low, high = 0, call('ZCARD', K.index)
while low < high do
    local middle = math.floor((low + high) / 2)
    if call('ZRANGE', K.index, middle, middle)[1] < given[1] then
        low = middle + 1
    else
        high = middle
    end
end
local older = low > 0 and read(call('ZRANGE', K.index, low - 1, low - 1)[1])
return pack(older and older[SEQ] + 1 or 0)
