-- needs: keys
-- Answers the version that is there, 0 where there is none, and the number of tags.

return pack({tonumber(call('HGET', K.marks, 'schema') or 0), tonumber(call('HGET', K.marks, 'tags') or 0)})
