-- needs: record
-- Whoever asks listens from now on, and is told of the next that comes. Answers how often something came before.

call('HSET', K.marks, 'listening', 1)
return pack(tonumber(call('HGET', K.marks, 'came') or 0))
