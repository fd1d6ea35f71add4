-- needs:
-- What the keys hold, the time, and what was given. K: the keys by their names, as scripts.py puts them before
-- everything. ARGV: the test's clock, or nothing; the parameters, as msgpack; when it is too late to begin, or nothing.
--
-- Hashes by the id of a job: `jobs`, what is decided with, an array as msgpack; `bodies`, its payload and its meta,
-- which scripts pass on unread; `attempts`, `logs`, `once`, `progress`, `into`. `index` has all ids by their number.
-- The lines are sorted sets in which members sort by their bytes (`ready`, `held`, `permits`, `blocked`), or by time
-- (`due`, `expiring`, `following`). Who has ended stands in a list of its state, in the order of their ends. Numbers of
-- jobs are put together in blocks of 256: `labels` says which blocks have, or had, jobs of a queue, task, tag, state,
-- schedule or hour, `results` when results of a block are to go. So a finished job costs no set a place, and a search
-- looks at few blocks.

local NIL = cjson.null -- which msgpack writes as nil; a job has false instead, as nil would be a hole in its array

local NONE = {}
local TERMINAL = {completed = K.completed, dead = K.dead, cancelled = K.cancelled, expired = K.expired}
local call, pack, unpack_one = redis.call, cmsgpack.pack, cmsgpack.unpack
local format, sub, find, insert, concat = string.format, string.sub, string.find, table.insert, table.concat

local function server_time()
    local time = call('TIME')
    return time[1] * 1000000 + time[2]
end

local now = ARGV[1] == '' and server_time() or tonumber(ARGV[1])
local given = unpack_one(ARGV[2])

if ARGV[3] ~= '' and (ARGV[1] == '' and now or server_time()) > tonumber(ARGV[3]) then
    return redis.error_reply('LATE')
end
