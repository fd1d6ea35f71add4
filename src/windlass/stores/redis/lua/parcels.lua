-- needs: departure
-- given: ids. Answers the parcels of those that are there, each with its print.

local found = {}
for _, id in ipairs(given[1]) do
    insert(found, read(id))
end
local answers, packed = {}, as_jobs(found)
for n, job in ipairs(found) do
    answers[n] = array(2) .. pack(print_of(job[ID])) .. parcel_of(job, packed[n])
end
return list_of(answers)
