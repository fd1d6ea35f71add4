-- needs: keys
-- given: the version that is wanted, how many tags there are. Answers the version and the number of tags that are there
-- now: whoever came first has said them.

call('HSETNX', K.marks, 'schema', given[1])
call('HSETNX', K.marks, 'tags', given[2])
return pack({tonumber(call('HGET', K.marks, 'schema')), tonumber(call('HGET', K.marks, 'tags'))})
