-- needs: record
-- given: name. Answers what is kept of it, the greatest term that was forgotten, and the time.

return pack({call('HGET', LEADS, given[1]) or NIL, tonumber(call('HGET', MARKS, 'terms') or 0), now})
