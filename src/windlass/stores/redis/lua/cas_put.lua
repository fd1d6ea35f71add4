-- needs: cas record
-- given: which hash, and fields, as cas.lua takes them. Answers whether all was still as it was read.

local key = ({leads = K.leads, schedules = K.schedules, marks = K.marks})[given[1]]
return done_with(cas(key, given[2]))
