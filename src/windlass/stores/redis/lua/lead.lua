-- needs: record
-- given: name, what was read (nil: nothing), what to keep. Answers whether what was read was still there.

if (call('HGET', LEADS, given[1]) or nil) ~= given[2] then
    return pack(false)
end
call('HSET', LEADS, given[1], given[3])
return done(true)
