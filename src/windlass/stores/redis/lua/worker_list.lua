-- needs: record workers
-- Answers every worker that was not taken over: id, report, started, beat, lease.

local found = {}
for _, each in ipairs(all_workers()) do
    if not each[2].taken then
        insert(found, {each[1], each[2].report, each[2].started, each[2].beat, each[2].lease})
    end
end
return pack(found)
