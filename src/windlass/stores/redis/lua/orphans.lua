-- needs: record flow workers grant
-- given: worker, reaper, observed. Answers whether it was taken, whether it may be, and what it holds.

local worker = worker_of(given[1])
if not worker or worker.taken then
    return pack({worker ~= nil, false, {}})
end
local may = given[3]
for _, id in ipairs(not may and lapsed(given[2]) or {}) do
    may = may or id == given[1]
end
local found = {}
for n, job in ipairs(may and held_by(given[1]) or {}) do
    found[n] = as_held(job)
end
return pack({false, may, found})
