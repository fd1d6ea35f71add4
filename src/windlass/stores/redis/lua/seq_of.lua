-- needs: record
-- given: id. Answers its place in the order of enqueue, or if it is gone, nil.

local job = read(given[1])
return pack(job and job[SEQ] or NIL)
