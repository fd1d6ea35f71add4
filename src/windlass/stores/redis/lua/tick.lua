-- needs: record
-- given: schedules (name, the ids of its previous jobs, the id of the new one). Answers the time; and of each what is
-- kept of it, which of the previous live, and whether the new one is stored ('fired') or took another's place
-- ('skipped').

local answers = {}
for n, each in ipairs(given[1]) do
    local left, before = {}, NIL
    for _, id in ipairs(each[2]) do
        local job = read(id)
        if job and not TERMINAL[job[STATE]] then
            insert(left, id)
        end
    end
    if each[3] and read(each[3]) then
        before = 'fired'
    elseif each[3] and call('HEXISTS', K.merged, each[3]) == 1 then
        before = 'skipped'
    end
    answers[n] = {call('HGET', K.schedules, each[1]) or NIL, left, before}
end
return pack({now, answers})
