-- needs: record
-- given: how many, how many to look at. Answers, of those that ended, the ones enqueued last.

local found = {}
for _, id in ipairs(call('ZREVRANGE', INDEX, 0, given[2] - 1)) do
    local job = read(id)
    if TERMINAL[job[STATE]] and #found < given[1] then
        insert(found, {job[TASK], job[STATE], job[CREATED], job[DUE_AT], job[STARTED] or NIL, job[FINISHED]})
    end
end
return pack(found)
