-- needs: matching acting
-- given: the number before which to go on (nil: the end), the first number that counts, a filter, an action, how many
-- to find, how many to look at. Newest first. Answers the ids of those that fit (and that the action would change), and
-- the number that was reached, nil at the end.

local before, first, f, action, most, look = given[1] or 2 ^ 47, given[2], given[3], given[4], given[5], given[6]
local found, looked = {}, 0

local function fits(job)
    return matches(job, f) and (not action or not job[CANCELLING] and judges[action](job) ~= 'untouched')
end

-- Look at these, newest first. Where it stopped, if there were enough.
local function take(ids)
    read_all(ids)
    for _, id in ipairs(ids) do
        local job = read(id)
        looked = looked + 1
        if job and fits(job) then
            insert(found, id)
            if #found == most then
                return job[SEQ]
            end
        end
    end
end

local function numbered(ids)
    local line = {}
    read_all(ids)
    for _, id in ipairs(ids) do
        local job = read(id)
        if job and job[SEQ] < before then
            insert(line, job)
        end
    end
    table.sort(line, function(one, other) return one[SEQ] > other[SEQ] end)
    for n, job in ipairs(line) do
        line[n] = job[ID]
    end
    return line
end

local function children_of(parent)
    local ids, from = {}, parent .. '\0'
    local last = '(' .. from .. struct.pack('>I6', before)
    for n, member in ipairs(call('ZREVRANGEBYLEX', K.children, last, '[' .. from, 'LIMIT', 0, look)) do
        ids[n] = sub(member, #from + 7)
    end
    local reached = take(ids)
    return reached or #ids == look and read(ids[#ids])[SEQ] or NIL
end

local function blocks()
    local groups, at = groups_of(f), block_of(before - 1)
    while looked < look do
        at = last_block(groups, at)
        local start = at and struct.unpack('>I5', at) * 256
        if not at or start + 255 < first then
            return NIL
        end
        local last = format('%.0f', math.min(before - 1, start + 255))
        local reached = take(call('ZREVRANGEBYSCORE', K.index, last, format('%.0f', start)))
        if reached then
            return reached
        end
        before = start
        if start == 0 then
            return NIL
        end
        at = block_of(start - 1)
    end
    return before
end

if before <= 0 then
    return pack({found, NIL})
elseif f.parent and f.parent ~= '' then
    return pack({found, children_of(f.parent)})
elseif f.states and live(f.states) and count_of(f.states) <= LINE_MOST then
    local reached = take(numbered(ids_in_lines(f.states)))
    return pack({found, reached or NIL})
end
local reached = blocks()
return pack({found, reached})
