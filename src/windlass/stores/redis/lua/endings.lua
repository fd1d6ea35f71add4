-- needs: record
-- given: how many, how many to look at. Answers, of those that ended, the ones enqueued last.

local found = {}
local ids = call('ZREVRANGE', K.index, 0, given[2] - 1)
read_all(ids)
for _, id in ipairs(ids) do
    local job = read(id)
    if TERMINAL[job[STATE]] and #found < given[1] then
        insert(found, {job[TASK], job[STATE], job[CREATED], job[DUE_AT], job[STARTED] or NIL, job[FINISHED]})
    end
end
return pack(found)
