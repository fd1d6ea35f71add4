-- needs: record matching reading
-- given: nothing. Answers, of the dead, by fingerprint: how many, when the first and the last died, and the last one.

local groups, order = {}, {}
for _, member in ipairs(call('ZRANGE', TERMINAL.dead, 0, -1)) do
    local job = read(sub(member, 7))
    local fingerprint = fingerprint_of(job)
    local group = groups[fingerprint]
    if not group then
        group = {fingerprint, 0, job[FINISHED], 0, false}
        groups[fingerprint] = group
        insert(order, group)
    end
    group[2] = group[2] + 1
    group[3] = math.min(group[3], job[FINISHED])
    if job[FINISHED] > group[4] or job[FINISHED] == group[4] and job[SEQ] > group[5][SEQ] then
        group[4], group[5] = job[FINISHED], job
    end
end
for _, group in ipairs(order) do
    group[5] = as_job(group[5])
end
return pack(order)
