-- needs: reading
-- given: ids. Answers the jobs, nil for what is not there.

local found = {}
read_all(given[1])
for n, id in ipairs(given[1]) do
    found[n] = read(id) or false
end
return list_of(as_jobs(found))
