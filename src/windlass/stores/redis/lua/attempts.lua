-- needs: settle_one
-- given: id. Answers its history, as core/job.py has an Attempt.

local job = read(given[1])
return pack(job and history(job) or {})
