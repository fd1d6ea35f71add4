-- Every statement of the PostgreSQL store, by name. `windlass` stands for the schema that the URL names, also within
-- the names of locks, so that two stores in one database do not meet.
--
-- Where a name has several statements, they are sent together and the last one answers. Under READ COMMITTED each has a
-- snapshot of its own, so what comes after a lock sees what its last holder left: that is why locks stand in statements
-- of their own, and why they stand here and not in the plans, which SQLite's one writer needs them for nothing.
--
-- Where a statement reads `given`, it is given all rows of a batch, as one JSON array of arrays.
--
-- Locks, in the order in which they are taken:
-- 1. `moves`: shared by what moves single jobs and knows whose they are (claim, settle, promote, beat); exclusive for
--    what moves any (an operator, a takeover), which does not stand in line for it: the others would stand behind it.
--    An enqueue takes none: it may be part of somebody's long transaction.
-- 2. `schedules`, `endings`, `copies`: one at a time who fires or edits schedules; who prunes or revives; who moves
--    jobs from or to another store.
-- 3. `keys`, `unique`: buckets of idempotency and unique keys, in order, all at once; `bounds`: by queue, in order.
-- 4. rows of `held` by id; buckets of `limits` in order; rows of `unique_keys` by key. Rows of the lines (`ready`,
--    `waiting`, `blocked`) are only ever taken by skipping what is locked, or by who has the job's unique key.
-- An enqueue, which may be part of somebody's long transaction, has rows of `unique_keys` and, where it ousts a job, of
-- `held`. So whoever ends a job waits for no row of `unique_keys`, but leaves it to `passing`; and an operator, who has
-- `moves` alone, waits for nothing for more than an instant.
-- A claim waits for none of 3 and 4: it tries, and passes by.

-- name: has_schema
SELECT to_regclass('windlass.schema_version') IS NOT NULL

-- name: make_namespace
CREATE SCHEMA windlass

-- name: migrations_table
CREATE TABLE windlass.schema_version (version bigint PRIMARY KEY, applied bigint NOT NULL)

-- name: schema_version
SELECT coalesce(max(version), 0) FROM windlass.schema_version

-- name: schema_applied
INSERT INTO windlass.schema_version (version, applied) VALUES ($1, $2)

-- name: schema_try
-- Tried, and not waited for: who waits has a snapshot, for which the building of an index would wait in turn.
SELECT pg_try_advisory_xact_lock(hashtext('windlass.schema'), 0)

-- name: index_under_way
-- Whether somebody builds an index just now; of another's session not everybody is told which.
SELECT EXISTS (SELECT 1 FROM pg_stat_progress_create_index
               WHERE datname = current_database() AND coalesce(index_relid = to_regclass($1), true))

-- name: now
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint

-- name: moves_share (nobody reads the answer)
SELECT pg_advisory_xact_lock_shared(hashtext('windlass.moves'), 0)

-- name: moves_alone (nobody reads the answer)
SELECT pg_advisory_xact_lock(hashtext('windlass.moves'), 0)

-- name: schedules_alone (nobody reads the answer)
SELECT pg_advisory_xact_lock(hashtext('windlass.schedules'), 0)

-- name: endings_alone (nobody reads the answer)
SELECT pg_advisory_xact_lock(hashtext('windlass.endings'), 0)

-- name: changed
SELECT last_value FROM windlass.changes_seq

-- name: touch (nobody reads the answer)
-- The last statement before a commit. A sequence is no row: it costs no dead tuple, and nobody waits for it.
SELECT nextval('windlass.changes_seq')

-- name: wait_at_most (nobody reads the answer)
SELECT set_config('lock_timeout', $1, true)

-- name: be_quick (nobody reads the answer)
-- A process that was stopped, or cut off, in the middle of a transaction would keep its locks for as long.
SELECT set_config('idle_in_transaction_session_timeout', '5s', true)

-- name: take_your_time (nobody reads the answer)
-- A handler may think between two statements of its own; it holds no lock of ours.
SELECT set_config('idle_in_transaction_session_timeout', '0', true)

-- name: backend
SELECT pg_backend_pid(), (extract(epoch FROM now()) * 1000000)::bigint

-- name: backend_busy
-- Whether the backend with the number $1 is at work for the transaction that began at $2, or may be, as somebody else's
-- role, or a server that keeps no account of it, is shown nothing. Else it waits for its client, or is gone.
SELECT count(*) FROM pg_stat_activity
WHERE pid = $1 AND CASE
    WHEN state IS NULL OR state = 'disabled' THEN true
    WHEN (extract(epoch FROM xact_start) * 1000000)::bigint = $2 THEN wait_event_type IS DISTINCT FROM 'Client'
    ELSE false END

-- name: backend_end
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = $1 AND (extract(epoch FROM xact_start) * 1000000)::bigint = $2

-- --- enqueue --------------------------------------------------------------------------------------------------

-- fragment: ready_part
coalesce((SELECT current FROM windlass.rings WHERE name = 'ready'), 0)

-- fragment: waiting_part
coalesce((SELECT current FROM windlass.rings WHERE name = 'waiting'), 0)

-- fragment: held_part
coalesce((SELECT current FROM windlass.rings WHERE name = 'held'), 0)

-- name: jobs_store
-- Who sends a job again while its first sending is under way waits for that, and then begins anew. (ON CONFLICT would
-- write 48 bytes more for each job to the log.)
WITH x AS MATERIALIZED (
    SELECT j, n,
           windlass.part_in(j ->> 1, (SELECT since FROM windlass.parts), (SELECT width FROM windlass.parts)) AS part
    FROM jsonb_array_elements($2::jsonb) WITH ORDINALITY x (j, n)),
v AS (
    SELECT j, n, part FROM x
    WHERE CASE part WHEN 15 THEN (SELECT count(*) FROM windlass.jobs k WHERE k.id = x.j ->> 1)
          ELSE (SELECT count(*) FROM windlass.jobs k WHERE k.part = x.part AND k.id = x.j ->> 1)
               + (SELECT count(*) FROM windlass.jobs k WHERE k.part = 14 AND k.id = x.j ->> 1) END = 0
    ORDER BY n),
new AS (
    INSERT INTO windlass.jobs (part, seq, id, tenant, task, version, queue, priority, head_start, created, due, rank,
                               expires, payload, meta)
    SELECT part, nextval('windlass.jobs_seq') * 16 + part, j ->> 1, j ->> 2, j ->> 3, (j ->> 4)::bigint, j ->> 5,
           (j ->> 6)::bigint, (j ->> 7)::bigint, (j ->> 8)::bigint, (j ->> 9)::bigint, (j ->> 10)::bigint,
           (j ->> 11)::bigint, j ->> 12, j ->> 13
    FROM v RETURNING seq, queue, due, rank, expires),
line AS (
    INSERT INTO windlass.ready (part, lane, queue, rank, seq)
    SELECT {ready_part}, 0, queue, rank, seq FROM new WHERE due <= $1),
later AS (
    INSERT INTO windlass.waiting (part, seq, due, state)
    SELECT {waiting_part}, seq, due, 'scheduled' FROM new WHERE due > $1)
INSERT INTO windlass.expiring (expires, seq) SELECT expires, seq FROM new WHERE expires IS NOT NULL

-- name: queue_bounds
SELECT coalesce(json_object_agg(name, bounds::json)::text, '{}'), EXISTS (SELECT 1 FROM windlass.departed)::int
FROM windlass.queues WHERE bounds IS NOT NULL

-- name: queue_depth
-- One at a time fills a queue that has a bound, or each would fill the same places.
SELECT pg_advisory_xact_lock(hashtext('windlass.bounds'), hashtext($1));
SELECT count(*) FROM (SELECT 1 FROM windlass.ready WHERE lane = 0 AND queue = $1 LIMIT $2) r

-- name: job_insert
INSERT INTO windlass.jobs (part, seq, id, tenant, task, version, queue, priority, head_start, created, due, rank,
                           expires, payload, meta)
VALUES ($1::bigint & 15, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING

-- fragment: lock_keys
SELECT pg_advisory_xact_lock(hashtext('windlass.keys'), b.n)
FROM (SELECT DISTINCT hashtext(v::text) & 1023 AS n FROM jsonb_array_elements($1::jsonb) v ORDER BY n) b

-- name: keys_lock (nobody reads the answer)
{lock_keys}

-- name: keys_find
{lock_keys};
SELECT json_build_array(k.tenant, k.task, k.key, k.id, k.digest, k.free_at, e.finished)::text
FROM jsonb_array_elements($1::jsonb) v
JOIN windlass.keys k ON k.tenant = v ->> 0 AND k.task = v ->> 1 AND k.key = v ->> 2
LEFT JOIN windlass.ended e ON e.seq = k.seq

-- name: key_insert
INSERT INTO windlass.keys (tenant, task, key, id, seq, digest)
SELECT DISTINCT ON (1, 2, 3) given ->> 0, given ->> 1, given ->> 2, j.id, j.seq, given ->> 3
FROM jsonb_array_elements($1::jsonb) given JOIN windlass.jobs j ON j.id = given ->> 4
ON CONFLICT (tenant, task, key) DO UPDATE SET id = excluded.id, seq = excluded.seq, digest = excluded.digest,
                                              free_at = NULL

-- A key with free_at has outlived its owner.
-- name: key_part
INSERT INTO windlass.past_keys (seq, id, tenant, task, key, digest)
SELECT seq, id, tenant, task, key, digest FROM windlass.keys
WHERE tenant = $1 AND task = $2 AND key = $3 AND free_at IS NULL
ON CONFLICT (seq) DO UPDATE SET id = excluded.id, tenant = excluded.tenant, task = excluded.task, key = excluded.key,
                                digest = excluded.digest

-- name: key_part_of
INSERT INTO windlass.past_keys (seq, id, tenant, task, key, digest)
SELECT k.seq, k.id, k.tenant, k.task, k.key, k.digest
FROM jsonb_array_elements($1::jsonb) given JOIN windlass.keys k ON k.seq = (given ->> 0)::bigint AND k.free_at IS NULL
ON CONFLICT (seq) DO UPDATE SET id = excluded.id, tenant = excluded.tenant, task = excluded.task, key = excluded.key,
                                digest = excluded.digest

-- name: key_never_had
INSERT INTO windlass.past_keys (seq, id, tenant, task, key, digest) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (seq) DO UPDATE SET id = excluded.id, tenant = excluded.tenant, task = excluded.task, key = excluded.key,
                                digest = excluded.digest

-- --- claim ----------------------------------------------------------------------------------------------------

-- name: claim_gate
SELECT taken, closed_seq, (SELECT min(due) FROM windlass.waiting), (SELECT min(expires) FROM windlass.expiring),
       (SELECT coalesce(json_agg(json_build_array(name, paused, most))::text, '[]') FROM windlass.queues
        WHERE paused <> 0 OR most IS NOT NULL)
FROM windlass.workers WHERE id = $1

-- name: time_gate
SELECT (SELECT min(due) FROM windlass.waiting), (SELECT min(expires) FROM windlass.expiring)

-- name: suspect_queues
SELECT coalesce(json_agg(DISTINCT queue)::text, '[]')
FROM (SELECT queue FROM windlass.ready WHERE lane = 1 LIMIT 1000) r
WHERE queue NOT IN (SELECT name FROM windlass.queues WHERE paused <> 0)

-- name: promote_ready
-- Whoever else promotes passes by what is locked here, so nothing comes into line twice.
WITH due AS MATERIALIZED (
    SELECT seq FROM windlass.waiting WHERE due <= $1 ORDER BY due, seq LIMIT $2 FOR UPDATE SKIP LOCKED),
gone AS (
    DELETE FROM windlass.waiting w USING due WHERE w.seq = due.seq RETURNING w.seq),
line AS (
    INSERT INTO windlass.ready (part, lane, queue, rank, seq)
    SELECT {ready_part}, j.lane, j.queue, j.rank, j.seq FROM gone r {job_of_r} RETURNING 1)
SELECT count(*) FROM line

-- name: expired_find
-- The third column: it still waits, and its place is locked here. A row may also be left over from a job that was
-- deleted, revived or has started. What somebody else is moving just now is not answered at all.
WITH x AS MATERIALIZED (
    SELECT expires, seq FROM windlass.expiring WHERE expires <= $1 ORDER BY expires, seq LIMIT $2
    FOR UPDATE SKIP LOCKED)
SELECT expires, seq, mine, fence, lane, queue, rank FROM (
    SELECT x.expires, x.seq, j.fence, j.lane, j.queue, j.rank,
           j.seq IS NULL OR j.expires IS DISTINCT FROM x.expires
           OR EXISTS (SELECT 1 FROM windlass.held h WHERE h.id = j.id)
           OR EXISTS (SELECT 1 FROM windlass.ended e WHERE e.seq = j.seq) AS stale,
           coalesce(r.seq, w.seq, b.seq) IS NOT NULL AS mine
    FROM x LEFT JOIN windlass.jobs j ON j.seq = x.seq
    LEFT JOIN LATERAL (SELECT r.seq FROM windlass.ready r WHERE r.lane = j.lane AND r.queue = j.queue
                       AND r.rank = j.rank AND r.seq = j.seq AND j.expires = x.expires FOR UPDATE SKIP LOCKED) r ON true
    LEFT JOIN LATERAL (SELECT w.seq FROM windlass.waiting w WHERE w.seq = j.seq AND j.expires = x.expires
                       FOR UPDATE SKIP LOCKED) w ON true
    LEFT JOIN LATERAL (SELECT b.seq FROM windlass.blocked b WHERE b.seq = j.seq AND j.expires = x.expires
                       FOR UPDATE SKIP LOCKED) b ON true) f
WHERE stale OR mine ORDER BY expires, seq

-- name: expiring_delete
DELETE FROM windlass.expiring x USING jsonb_array_elements($1::jsonb) given
WHERE x.expires = (given ->> 0)::bigint AND x.seq = (given ->> 1)::bigint

-- fragment: held_row
j.id, greatest(j.fence + 1, $1::bigint), j.task, j.version, j.queue, j.tenant, j.payload, j.meta, j.attempt + 1,
j.crashes, j.losses, j.lane <> 0, j.priority, j.created, j.due, $1::bigint, j.expires, j.seq, j.rank, 0, r.part, r.ctid

-- fragment: job_of_r
-- By its number and nothing else, whatever the planner believes: of a part that was analysed while it was empty it
-- believes that to read all of it for each row costs nothing, and a plan is kept.
CROSS JOIN LATERAL (SELECT * FROM windlass.jobs j WHERE j.part = (r.seq & 15)::smallint AND j.seq = r.seq OFFSET 0) j

-- fragment: window
coalesce(json_agg(json_build_array({held_row}) ORDER BY r.rank, r.seq)::text, '[]'),
coalesce(bool_or(j.meta <> '{}'), false)

-- name: ready_window
-- The second column: some job has a meta. The third: the microseconds that it took, if they were many and dead rows are
-- to blame.
WITH r AS MATERIALIZED (
    SELECT rank, seq, part, ctid FROM windlass.ready WHERE lane = $2 AND queue = $3 ORDER BY rank, seq LIMIT $4
    FOR UPDATE SKIP LOCKED)
SELECT {window},
       CASE WHEN clock_timestamp() > statement_timestamp() + $6::bigint * interval '1 us'
                 AND pg_stat_get_dead_tuples('windlass.ready_0'::regclass)
                     + pg_stat_get_dead_tuples('windlass.ready_1'::regclass) > $5
            THEN (extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000000)::bigint ELSE 0 END
FROM r {job_of_r}

-- name: ready_window_from
WITH r AS MATERIALIZED (
    SELECT rank, seq, part, ctid FROM windlass.ready
    WHERE lane = $2 AND queue = $3 AND (rank, seq) >= ($5, $6) ORDER BY rank, seq LIMIT $4
    FOR UPDATE SKIP LOCKED)
SELECT {window} FROM r {job_of_r}

-- name: ready_by_id
WITH r AS MATERIALIZED (
    SELECT r.seq, r.part, r.ctid FROM windlass.jobs j
    JOIN windlass.ready r ON r.lane = j.lane AND r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq
    WHERE j.id = ANY (ARRAY(SELECT jsonb_array_elements_text($2::jsonb))) FOR UPDATE OF r SKIP LOCKED)
SELECT coalesce(json_agg(json_build_array({held_row}))::text, '[]') FROM r {job_of_r}

-- name: held_of
SELECT coalesce(json_agg(json_build_array(
           j.id, h.fence, j.task, j.version, j.queue, j.tenant, j.payload, j.meta, h.attempt, j.crashes, j.losses,
           j.lane <> 0, j.priority, j.created, j.due, h.started, j.expires, j.seq, j.rank, h.grant_seq)
           ORDER BY h.id)::text, '[]')
FROM windlass.held h JOIN windlass.jobs j ON j.seq = h.seq WHERE h.worker = $1

-- name: held_insert
INSERT INTO windlass.held (part, id, seq, worker, grant_seq, fence, attempt, started)
SELECT {held_part}, v ->> 1, (v ->> 0)::bigint, $1::text, $2::bigint, (v ->> 2)::bigint, (v ->> 3)::bigint, $3::bigint
FROM jsonb_array_elements($4::jsonb) v

-- name: ready_take
-- Where they were found, which is where they stay while they are locked: a walk would pass by dead rows again.
DELETE FROM windlass.ready
WHERE part = $1 AND ctid = ANY (ARRAY(SELECT v::tid FROM jsonb_array_elements_text($2::jsonb) v))

-- --- flow -----------------------------------------------------------------------------------------------------

-- name: queue_try
-- Of queues with a limit: one claim at a time decides.
SELECT pg_try_advisory_xact_lock(hashtext('windlass.queues'), hashtext($1))

-- name: queue_held
SELECT count(*)
FROM (SELECT 1 FROM windlass.held h JOIN windlass.jobs j ON j.seq = h.seq WHERE j.queue = $1 LIMIT $2) h

-- name: limits_try
-- Which of these keys nobody else decides about just now; they are ours until the end of the transaction.
SELECT v #>> '{}' FROM jsonb_array_elements($1::jsonb) v
WHERE pg_try_advisory_xact_lock(hashtext('windlass.limits'), hashtext(v::text) & 1023)

-- name: unique_try
-- Which of these unique keys nobody else has in hand: an enqueue may be putting another job in the place of its owner.
SELECT v ->> 0, v ->> 1, v ->> 2 FROM jsonb_array_elements($1::jsonb) v
WHERE pg_try_advisory_xact_lock(hashtext('windlass.unique'), hashtext(v::text) & 1023)

-- name: unique_wait
-- Those who enqueue under a key without a pause would else keep its owner from ever being claimed.
SELECT v ->> 0, v ->> 1, v ->> 2 FROM jsonb_array_elements($1::jsonb) v
WHERE windlass.lock_soon('windlass.unique', hashtext(v::text) & 1023)

-- name: permits_count
SELECT key, count(*) FROM windlass.permits
WHERE key = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb))) GROUP BY key

-- name: permit_insert
INSERT INTO windlass.permits (key, id) SELECT given ->> 0, given ->> 1 FROM jsonb_array_elements($1::jsonb) given

-- name: permit_delete
DELETE FROM windlass.permits p USING jsonb_array_elements($1::jsonb) given WHERE p.key = given ->> 0
AND p.id = given ->> 1

-- name: held_flow
UPDATE windlass.held h SET flow = given ->> 0 FROM jsonb_array_elements($1::jsonb) given WHERE h.id = given ->> 1

-- name: blocked_insert
INSERT INTO windlass.blocked (key, lane, queue, rank, seq, most)
SELECT given ->> 0, (given ->> 1)::smallint, given ->> 2, (given ->> 3)::bigint, (given ->> 4)::bigint,
       (given ->> 5)::bigint
FROM jsonb_array_elements($1::jsonb) given

-- name: blocked_remove
DELETE FROM windlass.blocked t USING jsonb_array_elements($1::jsonb) given WHERE t.seq = (given ->> 0)::bigint

-- name: blocked_under
-- Under the locks of the keys: a claim that found one full before this run was over may be blocking a job under it.
SELECT pg_advisory_xact_lock(hashtext('windlass.limits'), b.n)
FROM (SELECT DISTINCT hashtext(v::text) & 1023 AS n FROM jsonb_array_elements($1::jsonb) v ORDER BY n) b;
SELECT DISTINCT v FROM jsonb_array_elements_text($1::jsonb) v
WHERE EXISTS (SELECT 1 FROM windlass.blocked b WHERE b.key = v)

-- name: blocked_lines
-- From one line to the next, never past the jobs in them.
WITH RECURSIVE q (queue, most) AS (
    (SELECT queue, most FROM windlass.blocked WHERE key = $1 AND lane = $2 ORDER BY queue, most LIMIT 1)
    UNION ALL
    SELECT n.queue, n.most FROM q CROSS JOIN LATERAL (
        SELECT b.queue, b.most FROM windlass.blocked b
        WHERE b.key = $1 AND b.lane = $2 AND (b.queue, b.most) > (q.queue, q.most)
        ORDER BY b.queue, b.most LIMIT 1) n)
SELECT queue, most FROM q

-- name: blocked_first
SELECT seq FROM windlass.blocked WHERE key = $1 AND lane = $2 AND queue = $3 AND most = $4 ORDER BY rank, seq LIMIT $5
FOR UPDATE SKIP LOCKED

-- name: blocked_keys
WITH RECURSIVE k (key) AS (
    SELECT min(key) FROM windlass.blocked WHERE key > $1
    UNION ALL
    SELECT (SELECT min(b.key) FROM windlass.blocked b WHERE b.key > k.key) FROM k WHERE k.key IS NOT NULL)
SELECT key FROM k WHERE key IS NOT NULL LIMIT $2

-- name: blocked_by
SELECT b.key, b.most, (SELECT count(*) FROM windlass.permits p WHERE p.key = b.key),
       (SELECT min(p.id) FROM windlass.permits p WHERE p.key = b.key)
FROM windlass.blocked b WHERE b.seq = $1

-- Whose turn it is under a key under which none runs: for a person who asks, so it may look through a line.
-- name: ready_under
SELECT j.id FROM (SELECT seq, rank FROM windlass.ready LIMIT $2) r JOIN windlass.jobs j ON j.seq = r.seq
WHERE j.meta LIKE '%"limits"%'
      AND EXISTS (SELECT 1 FROM jsonb_path_query(windlass.as_json(j.meta), '$.limits[*]') l WHERE l ->> 0 = $1)
ORDER BY r.rank, r.seq LIMIT 1

-- --- unique ---------------------------------------------------------------------------------------------------

-- fragment: among
ANY (ARRAY(SELECT v::bigint FROM jsonb_array_elements_text($1::jsonb) v))

-- fragment: lock_unique
SELECT pg_advisory_xact_lock(hashtext('windlass.unique'), b.n)
FROM (SELECT DISTINCT hashtext(v::text) & 1023 AS n FROM jsonb_array_elements($1::jsonb) v ORDER BY n) b

-- fragment: unique_of
jsonb_array_elements($1::jsonb) v
JOIN windlass.unique_keys u ON u.tenant = v ->> 0 AND u.task = v ->> 1 AND u.key = v ->> 2

-- name: unique_find
-- The rows as well: who ends the owner meanwhile finds them locked, and leaves the key to `passing`.
{lock_unique};
SELECT 1 FROM {unique_of} ORDER BY u.tenant, u.task, u.key FOR UPDATE OF u;
SELECT json_build_array(u.tenant, u.task, u.key, u.id, u.seq, u.live, u.successor, u.until,
                        EXISTS (SELECT 1 FROM windlass.held h WHERE h.id = u.id)::int, o.created, s.id, s.created,
                        (EXISTS (SELECT 1 FROM windlass.ended e WHERE e.seq = u.seq)
                         OR (u.seq IS NOT NULL AND o.seq IS NULL))::int)::text
FROM {unique_of}
LEFT JOIN windlass.jobs o ON o.seq = u.seq LEFT JOIN windlass.jobs s ON s.seq = u.successor

-- name: merged_find
SELECT json_build_array(m.id, j.id)::text FROM windlass.merged m JOIN windlass.jobs j ON j.seq = m.seq
WHERE m.id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))

-- name: merged_put
INSERT INTO windlass.merged (id, seq) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET seq = excluded.seq

-- name: unique_put
INSERT INTO windlass.unique_keys (tenant, task, key, until, id, seq, live)
SELECT given ->> 0, given ->> 1, given ->> 2, (given ->> 3)::bigint, j.id, j.seq, 1
FROM jsonb_array_elements($1::jsonb) given JOIN windlass.jobs j ON j.id = given ->> 4
ON CONFLICT (tenant, task, key) DO UPDATE SET until = excluded.until, id = excluded.id, seq = excluded.seq, live = 1,
                                              successor = NULL

-- name: unique_retake
INSERT INTO windlass.unique_keys (id, tenant, task, key, seq, live)
SELECT j.id, given ->> 1, given ->> 2, given ->> 3, j.seq, 1 FROM jsonb_array_elements($1::jsonb) given
JOIN windlass.jobs j ON j.id = given ->> 0
ON CONFLICT (tenant, task, key) DO UPDATE SET id = excluded.id, seq = excluded.seq, live = 1, successor = NULL

-- name: unique_lock (nobody reads the answer)
{lock_unique}

-- name: owners_hold (nobody reads the answer)
-- The runs of those who own these keys must not end until it is committed what became of a job that found them running.
-- Not in a transaction of an application's: there what was so when it was asked must do.
{lock_unique};
SELECT 1 FROM windlass.held h WHERE h.id = ANY (ARRAY(SELECT u.id FROM {unique_of})) ORDER BY h.id FOR UPDATE

-- name: unique_busy
-- Of jobs that end: the owners and successors of keys that an enqueue has in hand; the rows of the others are locked.
WITH ours AS MATERIALIZED (
    SELECT tenant, task, key FROM windlass.unique_keys
    WHERE seq = {among} OR successor = {among} ORDER BY tenant, task, key FOR UPDATE SKIP LOCKED)
SELECT u.seq, u.successor FROM windlass.unique_keys u
WHERE (u.seq = {among} OR u.successor = {among})
      AND NOT EXISTS (SELECT 1 FROM ours o WHERE o.tenant = u.tenant AND o.task = u.task AND o.key = u.key)

-- name: passing_any
SELECT 1 FROM windlass.passing LIMIT 1

-- name: passing_put
INSERT INTO windlass.passing (seq) SELECT v::bigint FROM jsonb_array_elements_text($1::jsonb) v ON CONFLICT DO NOTHING

-- name: passing_take
-- Answers whether the job has ended, or is gone: one that was revived meanwhile has its key for itself.
WITH p AS MATERIALIZED (
    SELECT seq FROM windlass.passing ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED),
gone AS (
    DELETE FROM windlass.passing d USING p WHERE d.seq = p.seq)
SELECT p.seq, EXISTS (SELECT 1 FROM windlass.ended e WHERE e.seq = p.seq)
              OR NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = p.seq)
FROM p

-- name: unique_live
{lock_unique};
SELECT u.tenant, u.task, u.key FROM {unique_of} WHERE u.live <> 0

-- name: unique_succeed
UPDATE windlass.unique_keys SET successor = $4 WHERE tenant = $1 AND task = $2 AND key = $3

-- name: unique_owner
SELECT id FROM windlass.unique_keys WHERE successor = $1

-- name: unique_orphan
-- Under the locks of all rows that `unique_over` will read: an enqueue may be adding a successor to one of them.
SELECT 1 FROM windlass.unique_keys
WHERE seq = ANY (ARRAY(SELECT v::bigint FROM jsonb_array_elements_text($1::jsonb) v))
      OR successor = ANY (ARRAY(SELECT v::bigint FROM jsonb_array_elements_text($1::jsonb) v))
ORDER BY tenant, task, key FOR UPDATE;
UPDATE windlass.unique_keys SET successor = NULL
WHERE successor = ANY (ARRAY(SELECT v::bigint FROM jsonb_array_elements_text($1::jsonb) v))

-- name: unique_over
SELECT coalesce(json_agg(json_build_array(u.seq, u.successor, u.until, j.due))::text, '[]')
FROM windlass.unique_keys u LEFT JOIN windlass.jobs j ON j.seq = u.successor
WHERE u.live <> 0 AND u.seq = ANY (ARRAY(SELECT v::bigint FROM jsonb_array_elements_text($1::jsonb) v))

-- name: unique_inherit
UPDATE windlass.unique_keys u
SET id = (SELECT j.id FROM windlass.jobs j WHERE j.seq = u.successor), seq = u.successor, successor = NULL, until = NULL
FROM jsonb_array_elements($1::jsonb) given WHERE u.seq = (given ->> 0)::bigint

-- name: unique_rest
UPDATE windlass.unique_keys u SET live = 0 FROM jsonb_array_elements($1::jsonb) given
WHERE u.seq = (given ->> 0)::bigint

-- name: unique_drop
DELETE FROM windlass.unique_keys t USING jsonb_array_elements($1::jsonb) given WHERE t.seq = (given ->> 0)::bigint

-- name: unique_outlive
UPDATE windlass.unique_keys u SET seq = NULL FROM jsonb_array_elements($1::jsonb) given
WHERE u.seq = (given ->> 0)::bigint AND u.live = 0

-- name: unique_prune
-- What an enqueue has in hand it keeps: whoever prunes has others wait for him.
DELETE FROM windlass.unique_keys u
USING (SELECT tenant, task, key FROM windlass.unique_keys WHERE live = 0 AND until <= $1 LIMIT 5000
       FOR UPDATE SKIP LOCKED) o
WHERE u.tenant = o.tenant AND u.task = o.task AND u.key = o.key

-- name: blocked_insert_unique
INSERT INTO windlass.blocked (key, lane, queue, rank, seq, most)
SELECT '', lane, queue, rank, seq, 0 FROM windlass.jobs WHERE seq = $1

-- name: unplace_ready
DELETE FROM windlass.ready r USING windlass.jobs j
WHERE j.seq = $1 AND r.lane = j.lane AND r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq RETURNING r.seq

-- name: unplace_waiting
DELETE FROM windlass.waiting WHERE seq = $1 RETURNING seq

-- name: unplace_blocked
DELETE FROM windlass.blocked WHERE seq = $1 RETURNING seq

-- name: job_replace
UPDATE windlass.jobs SET version = $1, queue = $2, priority = $3, head_start = $4, due = $5, rank = $6, expires = $7,
                         payload = $8, meta = $9, attempt = 0, crashes = 0, losses = 0, lane = 0, error = NULL
WHERE seq = $10

-- name: drop_merged
DELETE FROM windlass.merged t USING jsonb_array_elements($1::jsonb) given WHERE t.seq = (given ->> 0)::bigint

-- name: mark_text
SELECT text FROM windlass.marks WHERE name = $1

-- name: mark_text_put
INSERT INTO windlass.marks (name, value, text) VALUES ($1, 0, $2) ON CONFLICT (name) DO UPDATE SET text = excluded.text

-- --- settle ---------------------------------------------------------------------------------------------------

-- name: held_by_id
WITH h AS MATERIALIZED (
    SELECT id, seq, worker, fence, attempt, started, cancelling, flow FROM windlass.held
    WHERE id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb))) ORDER BY id FOR UPDATE)
SELECT coalesce(json_agg(json_build_array(id, seq, worker, fence, attempt, started, cancelling))::text, '[]'),
       coalesce(json_object_agg(id, flow::json) FILTER (WHERE flow IS NOT NULL)::text, '{}')
FROM h

-- name: held_take
-- $1: id -> the fences under which it is believed to be held.
WITH h AS (
    DELETE FROM windlass.held h
    WHERE h.id = ANY (ARRAY(SELECT jsonb_object_keys($1::jsonb))) AND $1::jsonb -> h.id @> to_jsonb(h.fence)
    RETURNING h.id, h.seq, h.worker, h.fence, h.attempt, h.started, h.cancelling, h.flow)
SELECT coalesce(json_agg(json_build_array(id, seq, worker, fence, attempt, started, cancelling))::text, '[]'),
       coalesce(json_object_agg(id, flow::json) FILTER (WHERE flow IS NOT NULL)::text, '{}')
FROM h

-- name: ended_insert
-- The last of each row: the result of one that completed, the error of any other.
INSERT INTO windlass.ended (part, seq, state, reason, finished, fence, number, charged, worker, started, outcome,
                            result, error, result_until)
SELECT (v ->> 0)::bigint & 15, (v ->> 0)::bigint, $2::text, $3::text, $1::bigint, (v ->> 1)::bigint,
       (v ->> 2)::bigint, $4::smallint, $7::text, (v ->> 3)::bigint, $5::text,
       CASE WHEN $2::text = 'completed' THEN v ->> 4 END, CASE WHEN $2::text <> 'completed' THEN v ->> 4 END,
       $1::bigint + $6::bigint
FROM jsonb_array_elements($8::jsonb) v

-- name: ended_insert_unrun
INSERT INTO windlass.ended (part, seq, state, reason, finished, fence)
SELECT (given ->> 0)::bigint & 15, (given ->> 0)::bigint, given ->> 1, given ->> 2, (given ->> 3)::bigint,
       (given ->> 4)::bigint
FROM jsonb_array_elements($1::jsonb) given

-- name: attempt_insert
INSERT INTO windlass.attempts (seq, fence, number, worker, started, ended, outcome, reason, error)
SELECT (given ->> 0)::bigint, (given ->> 1)::bigint, (given ->> 2)::bigint, given ->> 3, (given ->> 4)::bigint,
       (given ->> 5)::bigint, given ->> 6, given ->> 7, given ->> 8
FROM jsonb_array_elements($1::jsonb) given ON CONFLICT DO NOTHING

-- name: job_turned
UPDATE windlass.jobs j
SET attempt = (given ->> 0)::bigint, crashes = crashes + (given ->> 1)::bigint, losses = losses + (given ->> 2)::bigint,
    fence = (given ->> 3)::bigint, lane = coalesce((given ->> 4)::smallint, lane),
    due = coalesce((given ->> 5)::bigint, due), rank = coalesce((given ->> 5)::bigint - head_start, rank),
    error = coalesce(given ->> 6, error)
FROM jsonb_array_elements($1::jsonb) given WHERE j.seq = (given ->> 7)::bigint

-- name: ready_insert
INSERT INTO windlass.ready (part, lane, queue, rank, seq)
SELECT {ready_part}, j.lane, j.queue, j.rank, j.seq FROM jsonb_array_elements($1::jsonb) given
JOIN windlass.jobs j ON j.seq = (given ->> 0)::bigint

-- name: waiting_insert
INSERT INTO windlass.waiting (part, seq, due, state, reason)
SELECT {waiting_part}, (given ->> 0)::bigint, (given ->> 1)::bigint, given ->> 2, given ->> 3
FROM jsonb_array_elements($1::jsonb) given

-- name: expiring_insert
INSERT INTO windlass.expiring (expires, seq)
SELECT j.expires, j.seq FROM jsonb_array_elements($1::jsonb) given
JOIN windlass.jobs j ON j.seq = (given ->> 0)::bigint WHERE j.expires IS NOT NULL
ON CONFLICT DO NOTHING

-- name: receipts
SELECT v.j ->> 0, j.seq IS NOT NULL,
       EXISTS (SELECT 1 FROM windlass.ended e
               WHERE e.seq = j.seq AND e.fence = (v.j ->> 1)::bigint AND e.outcome IS NOT NULL)
       OR EXISTS (SELECT 1 FROM windlass.attempts a WHERE a.seq = j.seq AND a.fence = (v.j ->> 1)::bigint)
FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY v (j, n) LEFT JOIN windlass.jobs j ON j.id = v.j ->> 0
ORDER BY v.n

-- name: last_words
-- Tokens that were settled, of jobs that nobody has been given since.
SELECT j.id, (v ->> 1)::bigint, j.seq
FROM jsonb_array_elements($1::jsonb) v JOIN windlass.jobs j ON j.id = v ->> 0
LEFT JOIN windlass.ended e ON e.seq = j.seq
WHERE (v ->> 1)::bigint > 0 AND (v ->> 1)::bigint = coalesce(e.fence, j.fence)

-- name: progress_put
INSERT INTO windlass.progress (seq, body) SELECT (given ->> 0)::bigint, given ->> 1
FROM jsonb_array_elements($1::jsonb) given
ON CONFLICT (seq) DO UPDATE SET body = excluded.body

-- name: logs_count
SELECT count(*) FROM windlass.logs WHERE seq = $1

-- name: log_insert
INSERT INTO windlass.logs (seq, line, at, level, message)
SELECT (given ->> 0)::bigint, (given ->> 1)::bigint, (given ->> 2)::bigint, given ->> 3, given ->> 4
FROM jsonb_array_elements($1::jsonb) given

-- name: once_get
SELECT value FROM windlass.once WHERE seq = $1 AND name = $2

-- name: once_put
INSERT INTO windlass.once (seq, name, value) VALUES ($1, $2, $3)

-- --- workers --------------------------------------------------------------------------------------------------

-- name: worker_close_seq
UPDATE windlass.workers SET closed_seq = greatest(closed_seq, $1) WHERE id = $2

-- name: held_tokens
SELECT coalesce(json_agg(json_build_array(worker, id, fence, cancelling))::text, '[]') FROM windlass.held
WHERE worker = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))

-- name: worker_state
SELECT taken, lease, since, hold FROM windlass.workers WHERE id = $1

-- name: worker_beat
INSERT INTO windlass.workers AS w (id, supervisor, host, pid, state, slots, busy, queues, tasks, started, since, beat,
                                   lease, hold)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $10, $10::bigint + $11::bigint, $11)
ON CONFLICT (id) DO UPDATE SET
    supervisor = $2, host = $3, pid = $4, state = $5, slots = $6, busy = $7, queues = $8, tasks = $9,
    since = CASE WHEN w.lease < $10 OR w.since > $10 THEN $10 ELSE w.since END, beat = $10,
    lease = $10::bigint + $11::bigint, hold = $11
WHERE w.taken = 0

-- name: workers_set_back
UPDATE windlass.workers SET lease = $1::bigint + hold WHERE taken = 0 AND lease > $1::bigint + hold

-- name: worker_take
UPDATE windlass.workers SET taken = 1, state = 'taken' WHERE id = $1

-- name: held_refence
UPDATE windlass.held SET fence = greatest(fence + 1, $1) WHERE worker = $2

-- name: workers_lapsed
SELECT w.id FROM windlass.workers w, windlass.workers r
WHERE r.id = $1 AND r.taken = 0 AND r.lease >= $2 AND r.since + r.hold <= $2 AND w.taken = 0 AND w.lease < $2

-- name: workers_list
SELECT coalesce(json_agg(json_build_array(id, supervisor, host, pid, state, slots, busy, queues::json, tasks::json,
                                          started, beat, lease, taken <> 0))::text, '[]')
FROM windlass.workers WHERE taken = 0

-- --- reading --------------------------------------------------------------------------------------------------

-- fragment: state
CASE WHEN e.seq IS NOT NULL THEN e.state WHEN h.id IS NOT NULL THEN 'running'
     WHEN w.seq IS NOT NULL THEN w.state WHEN b.seq IS NOT NULL THEN 'blocked' ELSE 'queued' END

-- fragment: reason
coalesce(e.reason, w.reason, CASE WHEN b.seq IS NULL THEN NULL WHEN b.key = '' THEN 'unique' ELSE 'limit' END)

-- fragment: job
json_build_array(j.id, j.task, j.version, j.tenant, j.queue, {state}, {reason}, j.priority, j.created,
                 coalesce(w.due, j.due), j.expires, j.payload, j.meta,
                 coalesce(e.number - 1 + e.charged, h.attempt, j.attempt),
                 j.crashes, j.losses, j.lane <> 0 AND e.seq IS NULL,
                 coalesce(h.fence, e.fence, j.fence), coalesce(h.worker, e.worker), coalesce(h.started, e.started),
                 e.finished, coalesce(h.cancelling, 0) <> 0, e.result,
                 coalesce(e.state = 'completed' AND e.result IS NULL, false),
                 CASE WHEN e.seq IS NULL THEN j.error ELSE e.error END, p.body)::text

-- fragment: places_of_j
-- By the number alone, as in job_of_r.
LEFT JOIN LATERAL (
    SELECT * FROM windlass.ended e WHERE e.part = (j.seq & 15)::smallint AND e.seq = j.seq OFFSET 0) e ON true
LEFT JOIN windlass.held h ON h.id = j.id LEFT JOIN windlass.waiting w ON w.seq = j.seq
LEFT JOIN windlass.blocked b ON b.seq = j.seq LEFT JOIN windlass.progress p ON p.seq = j.seq

-- fragment: located
windlass.jobs j {places_of_j}

-- fragment: asked
-- In the order of v.n.
jsonb_array_elements_text($1::jsonb) WITH ORDINALITY v (id, n)
CROSS JOIN LATERAL (SELECT * FROM windlass.jobs j WHERE j.id = v.id OFFSET 0) j {places_of_j}

-- name: jobs_by_id
SELECT {job} FROM {asked}

-- fragment: places
SELECT j.id, j.seq, {state}, j.fence, j.lane, j.queue, j.rank, j.meta, j.tenant, j.task FROM {asked} ORDER BY v.n

-- name: places_by_id
{places}

-- name: places_to_change
-- Under the locks of their unique keys: an enqueue, which does not ask for `moves`, may be changing an owner's place.
SELECT 1 FROM windlass.unique_keys u
WHERE u.seq = ANY (ARRAY(SELECT j.seq FROM windlass.jobs j
                         WHERE j.id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))))
      OR u.successor = ANY (ARRAY(SELECT j.seq FROM windlass.jobs j
                                  WHERE j.id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))))
ORDER BY u.tenant, u.task, u.key FOR UPDATE;
{places}

-- name: seq_before
-- Of an id that is gone: where it would stand, since ids are made in the order of time.
SELECT coalesce((SELECT seq + 1 FROM windlass.jobs WHERE id < $1 ORDER BY id DESC LIMIT 1), 0)

-- name: seq_of
SELECT seq FROM windlass.jobs WHERE id = $1

-- name: attempts_of
SELECT json_build_array(number, fence, worker, started, ended, outcome, reason, error)::text FROM (
    SELECT number, fence, worker, started, ended, outcome, reason, error FROM windlass.attempts WHERE seq = $1
    UNION ALL
    SELECT number, fence, worker, started, finished, outcome, reason, error FROM windlass.ended
    WHERE seq = $1 AND outcome IS NOT NULL) a
ORDER BY fence

-- name: logs_of
SELECT json_build_array(at, level, message)::text FROM windlass.logs WHERE seq = $1 AND line >= $2 ORDER BY line

-- fragment: fingerprint
-- As the index ended_dead has it, to the letter.
coalesce(substring(error FROM '"fingerprint":"([^"\\]*)"'), '') COLLATE "C"

-- fragment: parent
-- As the index jobs_parent has it, to the letter. The index is partial, so its condition must stand beside it.
(windlass.as_json(meta) ->> 'parent_id')

-- fragment: states
ANY (ARRAY(SELECT jsonb_array_elements_text($3::jsonb)))

-- fragment: matches
($1::text IS NULL OR j.queue = $1) AND ($2::text IS NULL OR j.task = $2) AND ($3::bigint IS NULL OR j.created >= $3)
AND ($4::bigint IS NULL OR j.created < $4) AND j.tenant = $5 AND j.seq < $6
AND ($7::text IS NULL OR (j.meta LIKE '%"tags"%' AND windlass.as_json(j.meta) -> 'tags' ? $7))
AND ($8::text IS NULL OR {reason} = $8)
AND ($9::text IS NULL OR (meta LIKE '%"parent_id"%' AND {parent} = $9))
AND ($10::text IS NULL OR {state} = ANY (ARRAY(SELECT jsonb_array_elements_text($10::jsonb))))
AND ($11::text IS NULL
     OR j.seq IN (SELECT seq FROM windlass.ended WHERE state = 'dead' AND {fingerprint} = $11))
AND ($12::bigint IS NULL OR e.finished < $12)
AND ($13::text IS NULL OR (j.meta LIKE '%"schedule"%' AND windlass.as_json(j.meta) ->> 'schedule' = $13))
ORDER BY j.seq DESC LIMIT $14

-- name: matching
-- Of the jobs with these ids.
SELECT j.id
FROM jsonb_array_elements_text($15::jsonb) v (id)
CROSS JOIN LATERAL (SELECT * FROM windlass.jobs j WHERE j.id = v.id OFFSET 0) j {places_of_j} WHERE {matches}

-- name: search_all
SELECT j.seq, {job} FROM {located} WHERE {matches}

-- name: search_children
SELECT j.seq, {job} FROM {located} WHERE {parent} = $9 AND meta LIKE '%"parent_id"%' AND {matches}

-- name: search_among
-- Of the jobs with these numbers.
SELECT j.seq, {job} FROM jsonb_array_elements_text($15::jsonb) v
CROSS JOIN LATERAL (SELECT * FROM windlass.jobs j WHERE j.part = (v::bigint & 15)::smallint AND j.seq = v::bigint
                    OFFSET 0) j {places_of_j} WHERE {matches}

-- fragment: last_of
seq < $1 ORDER BY seq DESC LIMIT $2

-- name: numbers_of
-- The greatest numbers below $1 of the jobs in some states, each from the table in which they lie.
SELECT seq FROM (
    (SELECT seq FROM windlass.ready WHERE 'queued' = {states} AND {last_of})
    UNION (SELECT seq FROM windlass.waiting WHERE state = {states} AND {last_of})
    UNION (SELECT seq FROM windlass.blocked WHERE 'blocked' = {states} AND {last_of})
    UNION (SELECT seq FROM windlass.held WHERE 'running' = {states} AND {last_of})
    UNION (SELECT seq FROM windlass.ended WHERE state = 'dead' AND 'dead' = {states} AND {last_of})
    UNION (SELECT seq FROM windlass.ended WHERE state = 'cancelled' AND 'cancelled' = {states} AND {last_of})
    UNION (SELECT seq FROM windlass.ended WHERE state = 'expired' AND 'expired' = {states} AND {last_of})) n
ORDER BY seq DESC LIMIT $2

-- name: numbers_in_group
SELECT seq FROM windlass.ended WHERE state = 'dead' AND {fingerprint} = $3 AND {last_of}

-- name: stats_ended
SELECT state, count(*) FROM windlass.ended GROUP BY state

-- name: stats_unhappy
SELECT state, count(*) FROM windlass.ended WHERE state <> 'completed' GROUP BY state

-- name: stats_ended_capped
SELECT count(*) FROM (SELECT 1 FROM windlass.ended LIMIT $1) e

-- name: stats_waiting
SELECT w.state, j.queue, count(*) FROM (SELECT seq, state FROM windlass.waiting LIMIT nullif($1::bigint, -1)) w
JOIN windlass.jobs j ON j.seq = w.seq GROUP BY 1, 2

-- name: stats_blocked
SELECT queue, count(*) FROM (SELECT queue FROM windlass.blocked LIMIT nullif($1::bigint, -1)) b GROUP BY 1

-- name: stats_held
SELECT j.queue, count(*) FROM windlass.held h JOIN windlass.jobs j ON j.seq = h.seq GROUP BY 1

-- name: ready_queues
WITH RECURSIVE q (queue) AS (
    SELECT min(queue) FROM windlass.ready WHERE lane = $1
    UNION ALL
    SELECT (SELECT min(r.queue) FROM windlass.ready r WHERE r.lane = $1 AND r.queue > q.queue) FROM q
    WHERE q.queue IS NOT NULL)
SELECT queue FROM q WHERE queue IS NOT NULL

-- name: stats_ready
SELECT count(*)
FROM (SELECT 1 FROM windlass.ready WHERE lane = $1 AND queue = $2 LIMIT nullif($3::bigint, -1)) r

-- name: ready_head
-- Since when the longest-waiting has been due. Who is first by rank need not be: with a head start he may have come
-- later; but whoever was due before him has a rank no larger than his due time.
SELECT min(j.due)
FROM (SELECT seq FROM windlass.ready
      WHERE lane = $1 AND queue = $2 AND rank <= (
          SELECT greatest(h.due, f.rank) FROM windlass.ready f JOIN windlass.jobs h ON h.seq = f.seq
          WHERE f.lane = $1 AND f.queue = $2 ORDER BY f.rank, f.seq LIMIT 1)
      ORDER BY rank, seq LIMIT nullif($3::bigint, -1)) r
JOIN windlass.jobs j ON j.seq = r.seq

-- name: ready_ahead
SELECT count(*)
FROM (SELECT 1 FROM windlass.ready WHERE lane = $1 AND queue = $2 AND (rank, seq) < ($3, $4) LIMIT 10000) r

-- --- operator -------------------------------------------------------------------------------------------------

-- name: ready_remove
DELETE FROM windlass.ready r USING jsonb_array_elements($1::jsonb) given
WHERE r.lane = (given ->> 0)::smallint AND r.queue = given ->> 1 AND r.rank = (given ->> 2)::bigint
      AND r.seq = (given ->> 3)::bigint

-- name: waiting_remove
DELETE FROM windlass.waiting t USING jsonb_array_elements($1::jsonb) given WHERE t.seq = (given ->> 0)::bigint

-- name: held_cancel
UPDATE windlass.held h SET cancelling = greatest(h.cancelling, (given ->> 1)::smallint)
FROM jsonb_array_elements($1::jsonb) given WHERE h.id = given ->> 0

-- fragment: families
hashtext('windlass.children'), b.n)
FROM (SELECT DISTINCT hashtext(v) & 1023 AS n FROM jsonb_array_elements_text($1::jsonb) v ORDER BY n) b

-- name: held_stopped
-- Whoever looks for the children of a parent that was just cancelled waits for this child; see children_try.
SELECT pg_advisory_xact_lock_shared({families};
SELECT id FROM windlass.held WHERE id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb))) AND cancelling = 2

-- name: children_try
-- Whether all are stored whose enqueue has not seen that these parents are cancelled. Tried, and not waited for: the
-- children of others would stand behind.
SELECT pg_try_advisory_xact_lock({families}

-- name: attempt_from_ended
INSERT INTO windlass.attempts (seq, fence, number, worker, started, ended, outcome, reason, error)
SELECT seq, fence, number, worker, started, finished, outcome, reason, error
FROM windlass.ended WHERE seq = $1 AND outcome IS NOT NULL ON CONFLICT DO NOTHING

-- name: ids_known
SELECT id FROM windlass.jobs WHERE id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))

-- name: job_revive
UPDATE windlass.jobs SET attempt = 0, crashes = 0, losses = 0, lane = 0, fence = $1, due = $2,
                         rank = $2::bigint - head_start, error = NULL, expires = NULL
WHERE seq = $3

-- name: job_due_at
UPDATE windlass.jobs j SET due = (given ->> 0)::bigint, rank = (given ->> 0)::bigint - head_start
FROM jsonb_array_elements($1::jsonb) given WHERE j.seq = (given ->> 1)::bigint

-- name: ended_fence
SELECT fence FROM windlass.ended WHERE seq = $1

-- Of jobs that have a key, or had one: which, and who has it now.
-- name: keys_again
WITH asked AS (SELECT j.id, j.seq FROM windlass.jobs j
               WHERE j.id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb))))
SELECT json_build_array(a.id, p.tenant, p.task, p.key, k.id, k.free_at, e.finished)::text
FROM asked a JOIN windlass.past_keys p ON p.seq = a.seq AND p.id = a.id
LEFT JOIN windlass.keys k ON k.tenant = p.tenant AND k.task = p.task AND k.key = p.key
LEFT JOIN windlass.ended e ON e.seq = k.seq AND k.free_at IS NULL
UNION ALL
SELECT json_build_array(a.id, k.tenant, k.task, k.key, a.id, NULL, NULL)::text
FROM asked a JOIN windlass.keys k ON k.seq = a.seq AND k.id = a.id

-- name: key_retake
INSERT INTO windlass.keys (tenant, task, key, id, seq, digest)
SELECT p.tenant, p.task, p.key, p.id, p.seq, p.digest
FROM jsonb_array_elements($1::jsonb) given
JOIN windlass.past_keys p ON p.id = given ->> 0 AND p.seq = (given ->> 1)::bigint
ON CONFLICT (tenant, task, key) DO UPDATE SET id = excluded.id, seq = excluded.seq, digest = excluded.digest,
                                              free_at = NULL

-- name: ended_remove
DELETE FROM windlass.ended WHERE seq = $1

-- name: job_edit
UPDATE windlass.jobs j SET payload = given ->> 0 FROM jsonb_array_elements($1::jsonb) given
WHERE j.seq = (given ->> 1)::bigint

-- name: keys_outlive
UPDATE windlass.keys k
SET free_at = (SELECT e.finished FROM windlass.ended e WHERE e.seq = k.seq) + (given ->> 0)::bigint
FROM jsonb_array_elements($1::jsonb) given WHERE k.seq = (given ->> 1)::bigint AND k.free_at IS NULL

-- name: keys_drop_of
-- A key with free_at has outlived its owner, whose seq may be another job's by now.
DELETE FROM windlass.keys t USING jsonb_array_elements($1::jsonb) given WHERE t.seq = (given ->> 0)::bigint
AND t.free_at IS NULL

-- name: drop_ended
DELETE FROM windlass.ended t USING jsonb_array_elements($1::jsonb) given WHERE t.seq = (given ->> 0)::bigint

-- name: drop_attempts
DELETE FROM windlass.attempts t USING jsonb_array_elements($1::jsonb) given WHERE t.seq = (given ->> 0)::bigint

-- name: drop_once
DELETE FROM windlass.once t USING jsonb_array_elements($1::jsonb) given WHERE t.seq = (given ->> 0)::bigint

-- name: drop_progress
DELETE FROM windlass.progress t USING jsonb_array_elements($1::jsonb) given WHERE t.seq = (given ->> 0)::bigint

-- name: drop_logs
DELETE FROM windlass.logs t USING jsonb_array_elements($1::jsonb) given WHERE t.seq = (given ->> 0)::bigint

-- name: drop_past_keys
DELETE FROM windlass.past_keys t USING jsonb_array_elements($1::jsonb) given WHERE t.seq = (given ->> 0)::bigint

-- name: drop_job
DELETE FROM windlass.jobs t USING jsonb_array_elements($1::jsonb) given WHERE t.seq = (given ->> 0)::bigint

-- --- prune ----------------------------------------------------------------------------------------------------

-- name: mark_get
SELECT value FROM windlass.marks WHERE name = $1

-- name: mark_put
INSERT INTO windlass.marks (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: prune_slice
SELECT seq, state, finished, result IS NOT NULL, result_until FROM windlass.ended WHERE seq > $1 ORDER BY seq LIMIT $2

-- name: result_drop
UPDATE windlass.ended e SET result = NULL FROM jsonb_array_elements($1::jsonb) given WHERE e.seq = (given ->> 0)::bigint

-- name: parts_width
SELECT width FROM windlass.parts

-- name: parts_lock (nobody reads the answer)
-- Whoever has enqueued anything, or looked whether it is stored, is through, and nobody else does meanwhile.
LOCK TABLE windlass.jobs IN ACCESS EXCLUSIVE MODE

-- name: parts_resize
-- For later ids only than are stored, or than a transaction of a caller's that still sees the old width will bring;
-- another time, if there is one of a time far ahead.
UPDATE windlass.parts SET width = $1,
    since = greatest(since, $2, ('x' || left(last.id, 8) || substr(last.id, 10, 4))::bit(48)::bigint + 1)
FROM (SELECT max(j.id) AS id FROM windlass.jobs j WHERE j.part IN (0, 1, 2, 3, 4, 5, 6, 7)) last
WHERE last.id IS NULL OR last.id < $3

-- name: parts_worth
-- Those that weigh as much; and what parts_width answers.
SELECT n, p.width FROM windlass.parts p, generate_series(0, 7) n
WHERE pg_relation_size(to_regclass('windlass.jobs_' || n)) >= $1 ORDER BY n

-- name: part_bound
SELECT b.seq, EXISTS (SELECT 1 FROM windlass.ended e WHERE e.part = $1 AND e.seq = b.seq AND e.state = 'completed'
                      AND e.finished <= $4)
FROM windlass.part_bound($1, $2, $3) b (seq) ORDER BY b.seq

-- name: part_known
SELECT windlass.part_known($1)

-- name: part_walk
SELECT coalesce(reached, 0), old, to_json(others)::text FROM windlass.part_walk($1, $2, $3, $4, $5)

-- name: part_keep
SELECT windlass.part_keep($1, ARRAY(SELECT v::bigint FROM jsonb_array_elements_text($2::jsonb) v))

-- name: part_empty
SELECT windlass.part_empty($1, $2, $3, ARRAY(SELECT v::bigint FROM jsonb_array_elements_text($4::jsonb) v))

-- name: revival (nobody reads the answer)
-- Of jobs that were found to be old somebody is emptying the part, slice by slice: then all is looked at again.
INSERT INTO windlass.marks AS m (name, value) VALUES ('revived', 1)
ON CONFLICT (name) DO UPDATE SET value = m.value + 1

-- name: keys_prune
DELETE FROM windlass.keys k
USING (SELECT tenant, task, key FROM windlass.keys WHERE free_at <= $1 LIMIT 5000 FOR UPDATE SKIP LOCKED) o
WHERE k.tenant = o.tenant AND k.task = o.task AND k.key = o.key

-- name: prune_busy
-- Of these jobs: those with a key that an enqueue has in hand.
WITH k AS MATERIALIZED (SELECT seq FROM windlass.keys WHERE seq = {among} FOR UPDATE SKIP LOCKED),
u AS MATERIALIZED (SELECT seq FROM windlass.unique_keys WHERE seq = {among} FOR UPDATE SKIP LOCKED)
SELECT seq FROM windlass.keys WHERE seq = {among} AND seq NOT IN (SELECT seq FROM k)
UNION SELECT seq FROM windlass.unique_keys WHERE seq = {among} AND seq NOT IN (SELECT seq FROM u)

-- name: workers_prune
DELETE FROM windlass.workers w WHERE (taken <> 0 OR lease < $2) AND beat < $1
      AND w.id <> ALL (ARRAY(SELECT h.worker FROM windlass.held h))

-- --- rings ----------------------------------------------------------------------------------------------------

-- name: rings
-- Of each: the part in use, its dead rows, whether the other part is empty to the last page, and since when it is known
-- that no row lives there (0: it is not).
SELECT r.name, r.current, pg_stat_get_dead_tuples(a.oid), pg_relation_size(o.oid) = 0, r.deserted
FROM windlass.rings r
JOIN pg_class a ON a.oid = to_regclass('windlass.' || r.name || '_' || r.current)
JOIN pg_class o ON o.oid = to_regclass('windlass.' || r.name || '_' || (1 - r.current))

-- name: ring_turn
UPDATE windlass.rings SET current = 1 - current, deserted = 0 WHERE name = $1

-- name: ring_deserted
UPDATE windlass.rings SET deserted = $2 WHERE name = $1

-- name: ring_move_ready
WITH s AS (SELECT lane, queue, rank, seq FROM windlass.ready WHERE part = $1 LIMIT $2)
UPDATE windlass.ready r SET part = 1 - r.part FROM s
WHERE r.part = $1 AND r.lane = s.lane AND r.queue = s.queue AND r.rank = s.rank AND r.seq = s.seq RETURNING 1

-- name: ring_move_waiting
WITH s AS (SELECT seq FROM windlass.waiting WHERE part = $1 LIMIT $2)
UPDATE windlass.waiting w SET part = 1 - w.part FROM s WHERE w.part = $1 AND w.seq = s.seq RETURNING 1

-- name: ring_move_held
WITH s AS (SELECT id FROM windlass.held WHERE part = $1 LIMIT $2)
UPDATE windlass.held h SET part = 1 - h.part FROM s WHERE h.part = $1 AND h.id = s.id RETURNING 1

-- --- strays ----------------------------------------------------------------------------------------------------
-- Rows of the lines that somebody put in by hand, and wrongly: claims would be granted a job twice, or find nothing.

-- fragment: astray_ready
FROM (SELECT f.*, row_number() OVER (PARTITION BY seq ORDER BY part) AS n
      FROM (SELECT lane, queue, rank, seq, part FROM windlass.ready WHERE lane = $1 AND queue = $2
            ORDER BY rank, seq LIMIT 500) f) s
LEFT JOIN windlass.jobs j ON j.seq = s.seq
WHERE j.seq IS NULL OR j.lane <> s.lane OR j.queue <> s.queue OR j.rank <> s.rank OR s.n > 1
      OR EXISTS (SELECT 1 FROM windlass.held h WHERE h.id = j.id)
      OR EXISTS (SELECT 1 FROM windlass.ended e WHERE e.seq = s.seq)
      OR EXISTS (SELECT 1 FROM windlass.blocked b WHERE b.seq = s.seq)

-- name: ready_strays
SELECT 1 {astray_ready} LIMIT 1

-- name: ready_strays_remove
DELETE FROM windlass.ready r USING (SELECT s.lane, s.queue, s.rank, s.seq, s.part {astray_ready}) s
WHERE r.lane = s.lane AND r.queue = s.queue AND r.rank = s.rank AND r.seq = s.seq AND r.part = s.part RETURNING r.seq

-- fragment: astray_waiting
FROM (SELECT seq, part FROM windlass.waiting ORDER BY due, seq LIMIT 500) s JOIN windlass.jobs j ON j.seq = s.seq
WHERE EXISTS (SELECT 1 FROM windlass.held h WHERE h.id = j.id)
      OR EXISTS (SELECT 1 FROM windlass.ended e WHERE e.seq = s.seq)
      OR EXISTS (SELECT 1 FROM windlass.blocked b WHERE b.seq = s.seq)
      OR EXISTS (SELECT 1 FROM windlass.ready r
                 WHERE r.lane = j.lane AND r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq)

-- name: waiting_strays
SELECT 1 {astray_waiting} LIMIT 1

-- name: waiting_strays_remove
DELETE FROM windlass.waiting w USING (SELECT s.seq, s.part {astray_waiting}) s WHERE w.seq = s.seq AND w.part = s.part

-- name: held_strays
SELECT 1 FROM windlass.held h JOIN windlass.ended e ON e.seq = h.seq LIMIT 1

-- name: held_strays_remove
DELETE FROM windlass.held h USING windlass.ended e WHERE e.seq = h.seq

-- name: strays_home
-- Whoever lies nowhere now is put where it belongs.
INSERT INTO windlass.ready (part, lane, queue, rank, seq)
SELECT {ready_part}, j.lane, j.queue, j.rank, j.seq FROM windlass.jobs j
WHERE j.seq = ANY (ARRAY(SELECT v::bigint FROM jsonb_array_elements_text($1::jsonb) v))
      AND NOT EXISTS (SELECT 1 FROM windlass.held h WHERE h.id = j.id)
      AND NOT EXISTS (SELECT 1 FROM windlass.ended e WHERE e.seq = j.seq)
      AND NOT EXISTS (SELECT 1 FROM windlass.waiting w WHERE w.seq = j.seq)
      AND NOT EXISTS (SELECT 1 FROM windlass.blocked b WHERE b.seq = j.seq)
      AND NOT EXISTS (SELECT 1 FROM windlass.ready r
                      WHERE r.lane = j.lane AND r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq)

-- --- schedules ------------------------------------------------------------------------------------------------

-- fragment: schedule
name, revision, definition, digest, timing, origin, paused, cursor, next_at, created, changed, seen, shown, past,
previous, last_tick, last_outcome, last_job, fired, skipped

-- name: schedules_all
SELECT {schedule} FROM windlass.schedules ORDER BY name

-- name: schedules_by_name
SELECT {schedule} FROM windlass.schedules
WHERE name = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb))) ORDER BY name

-- name: schedules_due
SELECT {schedule} FROM windlass.schedules WHERE paused = 0 AND next_at <= $1 ORDER BY next_at, name LIMIT $2

-- name: schedules_next
SELECT min(next_at) FROM windlass.schedules WHERE paused = 0 AND next_at > $1

-- name: schedule_put
INSERT INTO windlass.schedules ({schedule})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
ON CONFLICT (name) DO UPDATE SET
    revision = $2, definition = $3, digest = $4, timing = $5, origin = $6, paused = $7, cursor = $8, next_at = $9,
    created = $10, changed = $11, seen = $12, shown = $13, past = $14, previous = $15, last_tick = $16,
    last_outcome = $17, last_job = $18, fired = $19, skipped = $20

-- name: schedule_drop
DELETE FROM windlass.schedules WHERE name = $1

-- name: jobs_unended
SELECT v.id FROM jsonb_array_elements_text($1::jsonb) WITH ORDINALITY v (id, n)
JOIN windlass.jobs j ON j.id = v.id
WHERE NOT EXISTS (SELECT 1 FROM windlass.ended e WHERE e.seq = j.seq) ORDER BY v.n

-- name: once_replace
INSERT INTO windlass.once (seq, name, value) VALUES ($1, $2, $3)
ON CONFLICT (seq, name) DO UPDATE SET value = excluded.value

-- --- queues, cluster ------------------------------------------------------------------------------------------

-- name: queue_put
INSERT INTO windlass.queues AS q (name, paused, most, bounds)
VALUES ($1, coalesce($2::smallint, 0), nullif($3::bigint, 0), nullif($4::text, '{}'))
ON CONFLICT (name) DO UPDATE SET
    paused = coalesce($2::smallint, q.paused),
    most = CASE WHEN $3::bigint IS NULL THEN q.most ELSE nullif($3::bigint, 0) END,
    bounds = CASE WHEN $4::text IS NULL THEN q.bounds ELSE nullif($4::text, '{}') END

-- name: queues_all
SELECT name, paused, most, coalesce(bounds, '{}') FROM windlass.queues

-- name: lead_get
SELECT pg_advisory_xact_lock(hashtext('windlass.leads'), hashtext($1));
SELECT slot, holder, term, until, ttl FROM windlass.leads WHERE name = $1 ORDER BY until, slot

-- name: lead_put
INSERT INTO windlass.leads (name, slot, holder, term, until, ttl) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (name, slot) DO UPDATE SET holder = $3, term = $4, until = $5, ttl = $6

-- name: lead_free
UPDATE windlass.leads SET until = least(until, $1) WHERE name = $2 AND holder = $3

-- name: leads_of_nobody
SELECT name, holder, until, $1::bigint FROM windlass.leads l WHERE name IN ('maintainer', 'scheduler') AND until > $1
    AND NOT EXISTS (SELECT 1 FROM windlass.workers w WHERE w.supervisor = l.holder AND w.taken = 0)

-- name: leads_old
SELECT coalesce(max(term), 0) FROM windlass.leads WHERE until < $1

-- name: leads_prune
DELETE FROM windlass.leads WHERE until < $1

-- --- audit ----------------------------------------------------------------------------------------------------

-- name: audit_places
-- Of an id that is stored twice, those of both.
SELECT id, CASE count(*) WHEN 1 THEN sum(places) ELSE greatest(sum(places), 2) END FROM (
    SELECT j.id, (EXISTS (SELECT 1 FROM windlass.ready r WHERE r.lane = j.lane AND r.queue = j.queue
                          AND r.rank = j.rank AND r.seq = j.seq))::int
               + (EXISTS (SELECT 1 FROM windlass.waiting w WHERE w.seq = j.seq))::int
               + (EXISTS (SELECT 1 FROM windlass.blocked b WHERE b.seq = j.seq AND b.lane = j.lane
                          AND b.queue = j.queue AND b.rank = j.rank))::int
               + (EXISTS (SELECT 1 FROM windlass.held h WHERE h.id = j.id))::int
               + (EXISTS (SELECT 1 FROM windlass.ended e WHERE e.seq = j.seq))::int AS places
    FROM windlass.jobs j) p
GROUP BY id HAVING sum(places) <> 1 OR count(*) > 1 LIMIT 100

-- name: audit_orphans
SELECT * FROM (
SELECT 'ready', seq::text FROM windlass.ready r WHERE NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = r.seq)
UNION ALL SELECT 'ready twice', seq::text FROM windlass.ready GROUP BY seq HAVING count(*) > 1
UNION ALL SELECT 'waiting', seq::text FROM windlass.waiting w
          WHERE NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = w.seq)
UNION ALL SELECT 'blocked', seq::text FROM windlass.blocked b
          WHERE NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = b.seq)
UNION ALL SELECT 'permit of ' || key, id FROM windlass.permits p
          WHERE NOT EXISTS (SELECT 1 FROM windlass.held h, json_array_elements_text(h.flow::json -> 'keys') k
                            WHERE h.id = p.id AND k = p.key)
UNION ALL SELECT 'no permit of ' || k, h.id FROM windlass.held h, json_array_elements_text(h.flow::json -> 'keys') k
          WHERE NOT EXISTS (SELECT 1 FROM windlass.permits p WHERE p.key = k AND p.id = h.id)
UNION ALL SELECT 'merged', seq::text FROM windlass.merged m
          WHERE NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = m.seq)
UNION ALL SELECT 'past key ' || key, seq::text FROM windlass.past_keys p
          WHERE NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = p.seq AND j.id = p.id)
UNION ALL SELECT 'unique key ' || key, id FROM windlass.unique_keys u
          WHERE (live <> (EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = u.seq AND j.id = u.id
                                  AND NOT EXISTS (SELECT 1 FROM windlass.ended e WHERE e.seq = j.seq)))::int
                 AND u.seq IS NOT NULL AND NOT EXISTS (SELECT 1 FROM windlass.passing p WHERE p.seq = u.seq))
             OR (successor IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM windlass.blocked b WHERE b.seq = u.successor AND b.key = ''))
UNION ALL SELECT 'no unique key', seq::text FROM windlass.jobs j
          WHERE meta LIKE '%"unique"%' AND jsonb_typeof(windlass.as_json(meta) -> 'unique') = 'array'
            AND NOT EXISTS (SELECT 1 FROM windlass.ended e WHERE e.seq = j.seq)
            AND NOT EXISTS (SELECT 1 FROM windlass.unique_keys u WHERE u.seq = j.seq OR u.successor = j.seq)
UNION ALL SELECT 'held', seq::text FROM windlass.held h
          WHERE NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = h.seq)
UNION ALL SELECT 'ended', seq::text FROM windlass.ended e
          WHERE NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = e.seq)
UNION ALL SELECT 'attempts', seq::text FROM windlass.attempts a
          WHERE NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = a.seq)
UNION ALL SELECT 'once', seq::text FROM windlass.once o
          WHERE NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = o.seq)
UNION ALL SELECT 'progress', seq::text FROM windlass.progress p
          WHERE NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = p.seq)
UNION ALL SELECT 'logs', seq::text FROM windlass.logs l
          WHERE NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = l.seq)
UNION ALL SELECT 'key ' || key, seq::text FROM windlass.keys k
          WHERE free_at IS NULL AND NOT EXISTS (SELECT 1 FROM windlass.jobs j WHERE j.seq = k.seq)
UNION ALL SELECT 'held by a taken worker', seq::text FROM windlass.held
          WHERE worker IN (SELECT id FROM windlass.workers WHERE taken <> 0)
UNION ALL SELECT 'held by nobody', seq::text FROM windlass.held h
          WHERE NOT EXISTS (SELECT 1 FROM windlass.workers w WHERE w.id = h.worker)) found
LIMIT 100

-- name: integrity
SELECT 'ok'

-- --- surveys --------------------------------------------------------------------------------------------------

-- name: backlog_waiting
SELECT coalesce(json_agg(json_build_array(j.id, j.task, j.version, j.queue, w.state, j.payload, json_build_array(w.seq))
                         ORDER BY w.seq)::text, '[]')
FROM (SELECT seq, state FROM windlass.waiting WHERE seq > $1 ORDER BY seq LIMIT $2) w
JOIN windlass.jobs j ON j.seq = w.seq

-- name: backlog_blocked
SELECT coalesce(json_agg(json_build_array(j.id, j.task, j.version, j.queue, 'blocked', j.payload,
                                          json_build_array(b.seq)) ORDER BY b.seq)::text, '[]')
FROM (SELECT seq FROM windlass.blocked WHERE seq > $1 ORDER BY seq LIMIT $2) b
JOIN windlass.jobs j ON j.seq = b.seq

-- name: backlog_ready
SELECT coalesce(json_agg(json_build_array(j.id, j.task, j.version, j.queue, 'queued', j.payload,
                                          json_build_array(r.lane, r.queue, r.rank, r.seq))
                         ORDER BY r.lane, r.queue, r.rank, r.seq)::text, '[]')
FROM (SELECT lane, queue, rank, seq FROM windlass.ready WHERE (lane, queue, rank, seq) > ($1, $2, $3, $4)
      ORDER BY lane, queue, rank, seq LIMIT $5) r
JOIN windlass.jobs j ON j.seq = r.seq

-- name: backlog_held
SELECT coalesce(json_agg(json_build_array(j.id, j.task, j.version, j.queue, 'running', j.payload,
                                          json_build_array(h.id)) ORDER BY h.id)::text, '[]')
FROM (SELECT id, seq FROM windlass.held WHERE id > $1 ORDER BY id LIMIT $2) h
JOIN windlass.jobs j ON j.seq = h.seq

-- name: children
SELECT coalesce(json_agg(json_build_array(id, place, seq) ORDER BY place, seq)::text, '[]')
FROM (SELECT j.id, v.n - 1 AS place, j.seq
      FROM jsonb_array_elements_text($1::jsonb) WITH ORDINALITY v (parent, n)
      CROSS JOIN LATERAL (
          SELECT id, seq FROM windlass.jobs
          WHERE {parent} = v.parent AND meta LIKE '%"parent_id"%'
                AND seq > CASE WHEN v.n - 1 = $2 THEN $3::bigint ELSE 0 END
          ORDER BY seq LIMIT $4) j
      WHERE v.n - 1 >= $2 ORDER BY 2, 3 LIMIT $4) x

-- name: dead_groups
-- By leaps through the index: GROUP BY would fetch the rows, and with them their errors.
WITH RECURSIVE g (f) AS (
    SELECT min({fingerprint}) FROM windlass.ended WHERE state = 'dead'
    UNION ALL
    SELECT (SELECT min({fingerprint}) FROM windlass.ended WHERE state = 'dead' AND {fingerprint} > g.f)
    FROM g WHERE g.f IS NOT NULL)
SELECT f,
       (SELECT count(*) FROM windlass.ended WHERE state = 'dead' AND {fingerprint} = f) AS jobs,
       (SELECT min(finished) FROM windlass.ended WHERE state = 'dead' AND {fingerprint} = f),
       (SELECT max(finished) FROM windlass.ended WHERE state = 'dead' AND {fingerprint} = f)
FROM g WHERE f IS NOT NULL ORDER BY jobs DESC, f LIMIT $1

-- name: dead_latest
SELECT {job} FROM {located}
WHERE j.seq = (SELECT seq FROM windlass.ended WHERE state = 'dead' AND {fingerprint} = $1 AND finished = $2
               ORDER BY seq DESC LIMIT 1)

-- name: endings
SELECT coalesce(json_agg(json_build_array(j.task, e.state, j.created, j.due, e.started, e.finished)
                         ORDER BY e.seq DESC)::text, '[]')
FROM (SELECT seq, state, started, finished FROM windlass.ended ORDER BY seq DESC LIMIT $1) e
JOIN windlass.jobs j ON j.seq = e.seq

-- --- from one store to another ------------------------------------------------------------------------------------

-- name: copies_alone (nobody reads the answer)
SELECT pg_advisory_xact_lock(hashtext('windlass.copies'), 0)

-- name: departed_find
SELECT id FROM windlass.departed WHERE id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))

-- name: departed_put
INSERT INTO windlass.departed (id, at) SELECT given ->> 0, (given ->> 1)::bigint
FROM jsonb_array_elements($1::jsonb) given ON CONFLICT (id) DO UPDATE SET at = excluded.at

-- name: departed_drop
DELETE FROM windlass.departed d USING jsonb_array_elements($1::jsonb) given WHERE d.id = given ->> 0

-- name: departed_prune
DELETE FROM windlass.departed WHERE at < $1

-- name: departing_all
SELECT n, id, target, kind, body FROM windlass.departing ORDER BY n

-- name: departing_count
SELECT count(*) FROM windlass.departing

-- name: departing_put
INSERT INTO windlass.departing (n, id, target, kind, body)
SELECT (given ->> 0)::bigint, given ->> 1, given ->> 2, given ->> 3, given ->> 4
FROM jsonb_array_elements($1::jsonb) given

-- name: departing_take
DELETE FROM windlass.departing WHERE id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))
RETURNING n,id,target,kind,body

-- name: tally_get
SELECT value, text FROM windlass.marks WHERE name = $1

-- name: tally_put
INSERT INTO windlass.marks (name, value, text) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, text = excluded.text

-- fragment: staying
j.id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))

-- name: leaving_ready
-- Of each line: who may leave, but those in $1; and how much of it there is.
SELECT j.id, pg_column_size(j.payload) FROM windlass.ready r JOIN windlass.jobs j ON j.seq = r.seq
WHERE NOT {staying} ORDER BY r.lane, r.queue, r.rank, r.seq LIMIT $2

-- name: leaving_waiting
SELECT j.id, pg_column_size(j.payload) FROM windlass.waiting w JOIN windlass.jobs j ON j.seq = w.seq
WHERE NOT {staying} ORDER BY w.due, w.seq LIMIT $2

-- name: leaving_blocked
-- A successor goes with its owner, or behind one that went.
SELECT j.id, pg_column_size(j.payload) FROM windlass.blocked b JOIN windlass.jobs j ON j.seq = b.seq
WHERE (b.key > ''
       OR EXISTS (SELECT 1 FROM windlass.unique_keys u WHERE u.successor = b.seq AND u.live <> 0 AND u.seq IS NULL))
      AND NOT {staying}
ORDER BY b.key, b.lane, b.queue, b.most, b.rank, b.seq LIMIT $2

-- name: leaving_ended
SELECT j.id, pg_column_size(j.payload) + coalesce(pg_column_size(e.result), 0)
FROM windlass.ended e JOIN windlass.jobs j ON j.seq = e.seq WHERE NOT {staying} ORDER BY e.seq LIMIT $2

-- name: successors_of
-- Under the locks of the keys: an enqueue may be adding a successor.
SELECT 1 FROM windlass.unique_keys
WHERE seq = ANY (ARRAY(SELECT j.seq FROM windlass.jobs j
                       WHERE j.id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))))
ORDER BY tenant, task, key FOR UPDATE;
SELECT j.id FROM jsonb_array_elements_text($1::jsonb) WITH ORDINALITY v (id, n)
JOIN windlass.jobs o ON o.id = v.id JOIN windlass.unique_keys u ON u.seq = o.seq
JOIN windlass.jobs j ON j.seq = u.successor ORDER BY v.n

-- name: parcels_jobs
SELECT j.seq, {job}, j.head_start, j.rank, j.due, e.result_until, j.tenant, j.task FROM {asked} ORDER BY v.n

-- name: parcels_attempts
SELECT seq, json_build_array(number, fence, worker, started, ended, outcome, reason, error)::text FROM (
    SELECT seq, number, fence, worker, started, ended, outcome, reason, error FROM windlass.attempts
    WHERE seq = {among}
    UNION ALL
    SELECT seq, number, fence, worker, started, finished, outcome, reason, error FROM windlass.ended
    WHERE seq = {among} AND outcome IS NOT NULL) a
ORDER BY seq, fence

-- name: parcels_logs
SELECT seq, json_build_array(at, level, message)::text FROM windlass.logs WHERE seq = {among} ORDER BY seq, line

-- name: parcels_once
SELECT seq, name, value FROM windlass.once WHERE seq = {among}

-- name: parcels_merged
SELECT seq, id FROM windlass.merged WHERE seq = {among} ORDER BY id

-- name: parcels_keys
-- The fourth column: it was lost.
SELECT seq, key, digest, 0 FROM windlass.keys WHERE seq = {among} AND free_at IS NULL
UNION ALL
SELECT seq, key, digest, 1 FROM windlass.past_keys WHERE seq = {among}

-- name: parcels_unique
SELECT seq, until, NULL FROM windlass.unique_keys WHERE seq = {among}
UNION ALL
SELECT successor, NULL, id FROM windlass.unique_keys WHERE successor = {among}

-- name: keys_depart
UPDATE windlass.keys k SET free_at = (given ->> 0)::bigint FROM jsonb_array_elements($1::jsonb) given
WHERE k.seq = (given ->> 1)::bigint AND k.free_at IS NULL

-- name: unique_depart
-- Its owner lives elsewhere: `live` without a seq.
UPDATE windlass.unique_keys u SET seq = NULL FROM jsonb_array_elements($1::jsonb) given
WHERE u.seq = (given ->> 0)::bigint AND u.live <> 0

-- name: seqs_next
SELECT nextval('windlass.jobs_seq') * 16 + windlass.part_of(v.id)
FROM jsonb_array_elements_text($1::jsonb) WITH ORDINALITY v (id, n) ORDER BY v.n

-- name: seqs_by_id
SELECT id, seq FROM windlass.jobs WHERE id = ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb)))

-- name: ended_put
INSERT INTO windlass.ended (part, seq, state, reason, finished, fence, number, charged, worker, started, outcome,
                            result, error, result_until)
SELECT (given ->> 0)::bigint & 15, (given ->> 0)::bigint, given ->> 1, given ->> 2, (given ->> 3)::bigint,
       (given ->> 4)::bigint, (given ->> 5)::bigint, (given ->> 6)::smallint, given ->> 7, (given ->> 8)::bigint,
       given ->> 9, given ->> 10,
       given ->> 11, (given ->> 12)::bigint
FROM jsonb_array_elements($1::jsonb) given

-- name: keys_left
SELECT tenant, task, key, id, digest, free_at FROM windlass.keys
WHERE (tenant, task, key) > ($1, $2, $3) AND free_at < $4 ORDER BY tenant, task, key LIMIT $5

-- name: key_leave
INSERT INTO windlass.keys (tenant, task, key, id, seq, digest, free_at)
SELECT given ->> 0, given ->> 1, given ->> 2, given ->> 3, 0, given ->> 4, (given ->> 5)::bigint
FROM jsonb_array_elements($1::jsonb) given ON CONFLICT DO NOTHING

-- name: windows_left
SELECT tenant, task, key, id, until FROM windlass.unique_keys WHERE live = 0 AND until > $1

-- name: window_leave
INSERT INTO windlass.unique_keys (tenant, task, key, id, live, until)
SELECT given ->> 0, given ->> 1, given ->> 2, given ->> 3, 0, (given ->> 4)::bigint
FROM jsonb_array_elements($1::jsonb) given ON CONFLICT DO NOTHING

-- name: terms_most
SELECT greatest(coalesce((SELECT max(term) FROM windlass.leads), 0),
                coalesce((SELECT value FROM windlass.marks WHERE name = 'terms'), 0))
