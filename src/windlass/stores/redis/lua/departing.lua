-- needs: record
-- Answers what is set aside: number, place, target, kind, text, digest.

local found = call('HVALS', K.departing)
return list_of(found)
