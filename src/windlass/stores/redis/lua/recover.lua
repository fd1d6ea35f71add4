-- needs: grant
-- given: worker, turn. Closes that turn, and answers what it granted.

local worker, granted = worker_of(given[1]), {}
if worker then
    worker.closed = math.max(worker.closed, given[2])
    keep_worker(given[1], worker)
end
for _, job in ipairs(held_by(given[1])) do
    if job[GRANT] == given[2] then
        insert(granted, job)
    end
end
local answer = as_held(granted)
done()
return answer
