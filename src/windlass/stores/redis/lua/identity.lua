-- needs: record
-- given: a name. Answers the name of this store, which is that one if it has none yet.

call('HSETNX', K.marks, 'identity', given[1])
return pack(call('HGET', K.marks, 'identity'))
