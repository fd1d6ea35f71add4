-- needs: record reading
-- given: ids. Answers the jobs, false for what is not there.

local found = {}
for n, id in ipairs(given[1]) do
    local job = read(id)
    found[n] = job and as_job(job) or NIL
end
return pack(found)
