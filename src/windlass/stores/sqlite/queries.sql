-- Every statement of the SQLite store, by name. Tables are prefixed: they may lie in an application's own database.
-- The hot ones take one JSON text and give back one JSON text: a step of SQLite lets go of Python's lock and has to win
-- it back, so a statement that stepped once per job would crawl (5 ms a row) whenever a handler computes in another
-- thread. Measured here: 11 us a job for claim and settle in batches of 250, against 8.5 us for row-by-row binding on
-- an idle interpreter.

-- name: migrations_table
CREATE TABLE IF NOT EXISTS windlass_schema_version (version INTEGER PRIMARY KEY, applied INTEGER NOT NULL) STRICT

-- name: has_schema
SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'windlass_schema_version'

-- name: schema_version
SELECT ifnull(max(version), 0) FROM windlass_schema_version

-- name: schema_applied
INSERT INTO windlass_schema_version (version, applied) VALUES (?, ?)

-- --- enqueue --------------------------------------------------------------------------------------------------

-- name: jobs_tail
SELECT ifnull(max(seq), 0) FROM windlass_jobs

-- name: queue_bounds
SELECT json_group_object(name, json(bounds)), EXISTS (SELECT 1 FROM windlass_departed)
FROM windlass_queues WHERE bounds IS NOT NULL

-- name: queue_depth
SELECT count(*) FROM (SELECT 1 FROM windlass_ready WHERE lane = 0 AND queue = ? LIMIT ?)

-- name: changes
SELECT total_changes()

-- name: job_insert
INSERT INTO windlass_jobs (seq, id, tenant, task, version, queue, priority, head_start, created, due, rank, expires,
                           payload, meta)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING

-- name: ready_insert_new
INSERT INTO windlass_ready (lane, queue, rank, seq)
SELECT 0, queue, rank, seq FROM windlass_jobs WHERE seq > ? AND due <= ?

-- name: waiting_insert_new
INSERT INTO windlass_waiting (seq, due, state)
SELECT seq, due, 'scheduled' FROM windlass_jobs WHERE seq > ? AND due > ?

-- name: expiring_insert_new
INSERT OR IGNORE INTO windlass_expiring (expires, seq)
SELECT expires, seq FROM windlass_jobs WHERE seq > ? AND expires IS NOT NULL

-- JSON, as a caller's own connection may convert columns by the type that they were declared with.
-- name: keys_find
SELECT json_array(k.tenant, k.task, k.key, k.id, k.digest, k.free_at, e.finished)
FROM json_each(?) v
JOIN windlass_keys k ON k.tenant = v.value ->> 0 AND k.task = v.value ->> 1 AND k.key = v.value ->> 2
LEFT JOIN windlass_ended e ON e.seq = k.seq

-- name: key_insert
INSERT OR REPLACE INTO windlass_keys (tenant, task, key, id, seq, digest)
SELECT ?, ?, ?, id, seq, ? FROM windlass_jobs WHERE id = ?

-- A key with free_at has outlived its owner, whose seq may be another job's by now.
-- name: key_part
INSERT OR REPLACE INTO windlass_past_keys (seq, id, tenant, task, key, digest)
SELECT seq, id, tenant, task, key, digest FROM windlass_keys
WHERE tenant = ? AND task = ? AND key = ? AND free_at IS NULL

-- name: key_part_of
INSERT OR REPLACE INTO windlass_past_keys (seq, id, tenant, task, key, digest)
SELECT seq, id, tenant, task, key, digest FROM windlass_keys WHERE seq = ? AND free_at IS NULL

-- name: key_never_had
INSERT OR REPLACE INTO windlass_past_keys (seq, id, tenant, task, key, digest) VALUES (?, ?, ?, ?, ?, ?)

-- --- claim ----------------------------------------------------------------------------------------------------

-- name: claim_gate
SELECT taken, closed_seq, (SELECT min(due) FROM windlass_waiting), (SELECT min(expires) FROM windlass_expiring),
       (SELECT json_group_array(json_array(name, paused, most)) FROM windlass_queues WHERE paused OR most IS NOT NULL)
FROM windlass_workers WHERE id = ?

-- name: time_gate
SELECT (SELECT min(due) FROM windlass_waiting), (SELECT min(expires) FROM windlass_expiring)

-- name: suspect_queues
SELECT json_group_array(DISTINCT queue) FROM (SELECT queue FROM windlass_ready WHERE lane = 1 LIMIT 1000)
WHERE queue NOT IN (SELECT name FROM windlass_queues WHERE paused)

-- name: promote_ready
INSERT INTO windlass_ready (lane, queue, rank, seq)
SELECT j.lane, j.queue, j.rank, j.seq FROM windlass_waiting w JOIN windlass_jobs j ON j.seq = w.seq
WHERE w.due <= ? ORDER BY w.due, w.seq LIMIT ?

-- name: promote_waiting
DELETE FROM windlass_waiting WHERE seq IN (SELECT seq FROM windlass_waiting WHERE due <= ? ORDER BY due, seq LIMIT ?)

-- name: expired_find
-- The third column: it still waits. A row may also be left over from a job that was deleted, revived or has started.
SELECT x.expires, x.seq, ifnull(j.expires = x.expires AND h.id IS NULL AND e.seq IS NULL, 0), j.fence, j.lane, j.queue,
       j.rank
FROM windlass_expiring x LEFT JOIN windlass_jobs j ON j.seq = x.seq
     LEFT JOIN windlass_held h ON h.id = j.id LEFT JOIN windlass_ended e ON e.seq = x.seq
WHERE x.expires <= ? ORDER BY x.expires, x.seq LIMIT ?

-- name: expiring_delete
DELETE FROM windlass_expiring WHERE expires <= ? AND seq = ?

-- The second column: some job has a meta.
-- name: ready_window
SELECT json_group_array(json_array(id, fence, task, version, queue, tenant, payload, meta, attempt, crashes, losses,
                                   json(iif(lane, 'true', 'false')), priority, created, due, ?1, expires, seq, rank)),
       max(meta <> '{}')
FROM (SELECT j.id, max(j.fence + 1, ?1) AS fence, j.task, j.version, j.queue, j.tenant, j.payload, j.meta,
             j.attempt + 1 AS attempt, j.crashes, j.losses, j.lane, j.priority, j.created, j.due, j.expires, j.seq,
             r.rank
      FROM windlass_ready r JOIN windlass_jobs j ON j.seq = r.seq
      WHERE r.lane = ?2 AND r.queue = ?3 ORDER BY r.rank, r.seq LIMIT ?4)

-- name: ready_by_id
SELECT json_group_array(json_array(j.id, max(j.fence + 1, ?1), j.task, j.version, j.queue, j.tenant, j.payload, j.meta,
                                   j.attempt + 1, j.crashes, j.losses, json(iif(j.lane, 'true', 'false')), j.priority,
                                   j.created, j.due, ?1, j.expires, j.seq, j.rank))
FROM json_each(?2) v JOIN windlass_jobs j ON j.id = v.value
JOIN windlass_ready r ON r.lane = j.lane AND r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq

-- name: held_of
SELECT json_group_array(json_array(j.id, h.fence, j.task, j.version, j.queue, j.tenant, j.payload, j.meta, h.attempt,
                                   j.crashes, j.losses, json(iif(j.lane, 'true', 'false')), j.priority, j.created,
                                   j.due, h.started, j.expires, j.seq, j.rank, h.grant_seq))
FROM windlass_held h JOIN windlass_jobs j ON j.seq = h.seq WHERE h.worker = ?

-- name: held_insert
INSERT INTO windlass_held (id, seq, worker, grant_seq, fence, attempt, started)
SELECT j.id, j.seq, ?1, ?2, max(j.fence + 1, ?3), j.attempt + 1, ?3
FROM json_each(?4) v JOIN windlass_jobs j ON j.seq = v.value

-- name: ready_take
DELETE FROM windlass_ready WHERE lane = ?1 AND queue = ?2
       AND (rank, seq) <= (?3, ?4) AND seq IN (SELECT value FROM json_each(?5))

-- name: ready_left
SELECT EXISTS (SELECT 1 FROM windlass_ready WHERE lane = ? AND queue = ?)

-- --- flow -----------------------------------------------------------------------------------------------------

-- name: queue_held
SELECT count(*) FROM (SELECT 1 FROM windlass_held h JOIN windlass_jobs j ON j.seq = h.seq WHERE j.queue = ? LIMIT ?)

-- name: permits_count
SELECT key, count(*) FROM windlass_permits WHERE key IN (SELECT value FROM json_each(?)) GROUP BY key

-- name: permit_insert
INSERT INTO windlass_permits (key, id) VALUES (?, ?)

-- name: permit_delete
DELETE FROM windlass_permits WHERE key = ? AND id = ?

-- name: held_flow
UPDATE windlass_held SET flow = ? WHERE id = ?

-- name: blocked_insert
INSERT INTO windlass_blocked (key, lane, queue, rank, seq, most) VALUES (?, ?, ?, ?, ?, ?)

-- name: blocked_remove
DELETE FROM windlass_blocked WHERE seq = ?

-- name: blocked_under
SELECT DISTINCT v.value FROM json_each(?) v WHERE EXISTS (SELECT 1 FROM windlass_blocked b WHERE b.key = v.value)

-- From one line to the next, never past the jobs in them: to the next number in the queue, else to the next queue. (Of
-- `(queue, most) > (?, ?)` SQLite would ask the index for the queue alone.)
-- name: blocked_lines
WITH RECURSIVE q (queue, most) AS (
    SELECT min(queue), NULL FROM windlass_blocked WHERE key = ?1 AND lane = ?2
    UNION ALL
    SELECT iif(EXISTS (SELECT 1 FROM windlass_blocked b WHERE b.key = ?1 AND b.lane = ?2 AND b.queue = q.queue
                       AND b.most > ifnull(q.most, -1)),
               q.queue,
               (SELECT min(b.queue) FROM windlass_blocked b WHERE b.key = ?1 AND b.lane = ?2 AND b.queue > q.queue)),
           (SELECT min(b.most) FROM windlass_blocked b WHERE b.key = ?1 AND b.lane = ?2 AND b.queue = q.queue
            AND b.most > ifnull(q.most, -1))
    FROM q WHERE q.queue IS NOT NULL)
SELECT queue, most FROM q WHERE queue IS NOT NULL AND most IS NOT NULL

-- name: blocked_first
SELECT seq FROM windlass_blocked WHERE key = ? AND lane = ? AND queue = ? AND most = ? ORDER BY rank, seq LIMIT ?

-- name: blocked_keys
WITH RECURSIVE k (key) AS (
    SELECT min(key) FROM windlass_blocked WHERE key > ?1
    UNION ALL
    SELECT (SELECT min(key) FROM windlass_blocked WHERE key > k.key) FROM k WHERE k.key IS NOT NULL)
SELECT key FROM k WHERE key IS NOT NULL LIMIT ?2

-- name: blocked_by
SELECT b.key, b.most, (SELECT count(*) FROM windlass_permits p WHERE p.key = b.key),
       (SELECT min(p.id) FROM windlass_permits p WHERE p.key = b.key)
FROM windlass_blocked b WHERE b.seq = ?

-- Whose turn it is under a key under which none runs: for a person who asks, so it may look through a line.
-- name: ready_under
SELECT j.id FROM (SELECT seq, rank FROM windlass_ready LIMIT ?2) r CROSS JOIN windlass_jobs j ON j.seq = r.seq
WHERE EXISTS (SELECT 1 FROM json_each(j.meta, '$.limits') l WHERE l.value ->> 0 = ?1)
ORDER BY r.rank, r.seq LIMIT 1

-- --- unique ---------------------------------------------------------------------------------------------------

-- JSON, as in keys_find.
-- name: unique_find
SELECT json_array(u.tenant, u.task, u.key, u.id, u.seq, u.live, u.successor, u.until,
                  EXISTS (SELECT 1 FROM windlass_held h WHERE h.id = u.id), o.created, s.id, s.created,
                  EXISTS (SELECT 1 FROM windlass_ended e WHERE e.seq = u.seq))
FROM json_each(?) v
JOIN windlass_unique u ON u.tenant = v.value ->> 0 AND u.task = v.value ->> 1 AND u.key = v.value ->> 2
LEFT JOIN windlass_jobs o ON o.seq = u.seq LEFT JOIN windlass_jobs s ON s.seq = u.successor

-- name: merged_find
SELECT json_array(m.id, j.id) FROM windlass_merged m JOIN windlass_jobs j ON j.seq = m.seq
WHERE m.id IN (SELECT value FROM json_each(?))

-- name: merged_put
INSERT OR REPLACE INTO windlass_merged (id, seq) VALUES (?, ?)

-- name: unique_put
INSERT OR REPLACE INTO windlass_unique (tenant, task, key, until, id, seq, live)
SELECT ?, ?, ?, ?, id, seq, 1 FROM windlass_jobs WHERE id = ?

-- name: unique_retake
INSERT INTO windlass_unique (id, tenant, task, key, seq, live)
SELECT ?1, ?2, ?3, ?4, seq, 1 FROM windlass_jobs WHERE id = ?1
ON CONFLICT (tenant, task, key) DO UPDATE SET id = excluded.id, seq = excluded.seq, live = 1, successor = NULL

-- name: unique_live
SELECT u.tenant, u.task, u.key FROM json_each(?) v
JOIN windlass_unique u ON u.tenant = v.value ->> 0 AND u.task = v.value ->> 1 AND u.key = v.value ->> 2 WHERE u.live

-- name: unique_succeed
UPDATE windlass_unique SET successor = ?4 WHERE tenant = ?1 AND task = ?2 AND key = ?3

-- name: unique_owner
SELECT id FROM windlass_unique WHERE successor = ?

-- name: unique_orphan
UPDATE windlass_unique SET successor = NULL WHERE successor IN (SELECT value FROM json_each(?))

-- name: unique_over
SELECT json_group_array(json_array(u.seq, u.successor, u.until, j.due))
FROM windlass_unique u LEFT JOIN windlass_jobs j ON j.seq = u.successor
WHERE u.live AND u.seq IN (SELECT value FROM json_each(?))

-- name: unique_inherit
UPDATE windlass_unique SET id = (SELECT id FROM windlass_jobs j WHERE j.seq = successor), seq = successor,
                           successor = NULL, until = NULL
WHERE seq = ?

-- name: unique_rest
UPDATE windlass_unique SET live = 0 WHERE seq = ?

-- name: unique_drop
DELETE FROM windlass_unique WHERE seq = ?

-- name: unique_outlive
UPDATE windlass_unique SET seq = NULL WHERE seq = ? AND NOT live

-- name: unique_prune
DELETE FROM windlass_unique WHERE NOT live AND until <= ?

-- name: blocked_insert_unique
INSERT INTO windlass_blocked (key, lane, queue, rank, seq, most)
SELECT '', lane, queue, rank, seq, 0 FROM windlass_jobs WHERE seq = ?

-- name: unplace_ready
DELETE FROM windlass_ready
WHERE seq = ?1 AND lane = (SELECT lane FROM windlass_jobs WHERE seq = ?1)
      AND queue = (SELECT queue FROM windlass_jobs WHERE seq = ?1)
      AND rank = (SELECT rank FROM windlass_jobs WHERE seq = ?1)

-- name: unplace_waiting
DELETE FROM windlass_waiting WHERE seq = ?

-- name: unplace_blocked
DELETE FROM windlass_blocked WHERE seq = ?

-- name: job_replace
UPDATE windlass_jobs SET version = ?, queue = ?, priority = ?, head_start = ?, due = ?, rank = ?, expires = ?,
                         payload = ?, meta = ?, attempt = 0, crashes = 0, losses = 0, lane = 0, error = NULL
WHERE seq = ?

-- name: drop_merged
DELETE FROM windlass_merged WHERE seq = ?

-- name: mark_text
SELECT text FROM windlass_marks WHERE name = ?

-- name: mark_text_put
INSERT OR REPLACE INTO windlass_marks (name, value, text) VALUES (?, 0, ?)

-- --- settle ---------------------------------------------------------------------------------------------------

-- name: held_by_id
SELECT json_group_array(json_array(id, seq, worker, fence, attempt, started, cancelling)),
       json_group_object(id, json(flow)) FILTER (WHERE flow IS NOT NULL)
FROM windlass_held WHERE id IN (SELECT value FROM json_each(?))

-- name: held_delete
DELETE FROM windlass_held WHERE id IN (SELECT value FROM json_each(?))

-- name: ended_insert
-- ?7: id -> result of those that completed, error of the others
INSERT INTO windlass_ended (seq, state, reason, finished, fence, number, charged, worker, started, outcome, result,
                            error, result_until)
SELECT h.seq, ?2, ?3, ?1, h.fence, h.attempt, ?4, h.worker, h.started, ?5, iif(?2 = 'completed', v.value, NULL),
       iif(?2 = 'completed', NULL, v.value), ?1 + ?6
FROM json_each(?7) v JOIN windlass_held h ON h.id = v.key

-- name: ended_insert_unrun
INSERT INTO windlass_ended (seq, state, reason, finished, fence) VALUES (?, ?, ?, ?, ?)

-- name: attempt_insert
INSERT OR IGNORE INTO windlass_attempts (seq, fence, number, worker, started, ended, outcome, reason, error)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: job_turned
UPDATE windlass_jobs SET attempt = ?1, crashes = crashes + ?2, losses = losses + ?3, fence = ?4,
                         lane = ifnull(?5, lane), due = ifnull(?6, due),
                         rank = iif(?6 IS NULL, rank, ?6 - head_start), error = ifnull(?7, error)
WHERE seq = ?8

-- name: ready_insert
INSERT INTO windlass_ready (lane, queue, rank, seq) SELECT lane, queue, rank, seq FROM windlass_jobs WHERE seq = ?

-- name: waiting_insert
INSERT INTO windlass_waiting (seq, due, state, reason) VALUES (?, ?, ?, ?)

-- name: expiring_insert
INSERT OR IGNORE INTO windlass_expiring (expires, seq)
SELECT expires, seq FROM windlass_jobs WHERE seq = ? AND expires IS NOT NULL

-- name: receipts
SELECT v.value ->> 0, j.seq IS NOT NULL,
       EXISTS (SELECT 1 FROM windlass_ended e WHERE e.seq = j.seq AND e.fence = v.value ->> 1 AND e.outcome IS NOT NULL)
       OR EXISTS (SELECT 1 FROM windlass_attempts a WHERE a.seq = j.seq AND a.fence = v.value ->> 1)
FROM json_each(?) v LEFT JOIN windlass_jobs j ON j.id = v.value ->> 0

-- name: last_words
-- Tokens that were settled, of jobs that nobody has been given since.
SELECT j.id, v.value ->> 1, j.seq
FROM json_each(?) v JOIN windlass_jobs j ON j.id = v.value ->> 0 LEFT JOIN windlass_ended e ON e.seq = j.seq
WHERE v.value ->> 1 > 0 AND v.value ->> 1 = coalesce(e.fence, j.fence)

-- name: progress_put
INSERT OR REPLACE INTO windlass_progress (seq, body) VALUES (?, ?)

-- name: logs_count
SELECT count(*) FROM windlass_logs WHERE seq = ?

-- name: log_insert
INSERT INTO windlass_logs (seq, line, at, level, message) VALUES (?, ?, ?, ?, ?)

-- name: once_get
SELECT value FROM windlass_once WHERE seq = ? AND name = ?

-- name: once_put
INSERT INTO windlass_once (seq, name, value) VALUES (?, ?, ?)

-- --- workers --------------------------------------------------------------------------------------------------

-- name: worker_close_seq
UPDATE windlass_workers SET closed_seq = max(closed_seq, ?) WHERE id = ?

-- name: held_tokens
SELECT json_group_array(json_array(worker, id, fence, cancelling)) FROM windlass_held
WHERE worker IN (SELECT value FROM json_each(?))

-- name: worker_state
SELECT taken, lease, since, hold FROM windlass_workers WHERE id = ?

-- name: worker_beat
INSERT INTO windlass_workers (id, supervisor, host, pid, state, slots, busy, queues, tasks, started, since, beat,
                              lease, hold)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?10, ?10 + ?11, ?11)
ON CONFLICT (id) DO UPDATE SET
    supervisor = ?2, host = ?3, pid = ?4, state = ?5, slots = ?6, busy = ?7, queues = ?8, tasks = ?9,
    since = iif(lease < ?10 OR since > ?10, ?10, since), beat = ?10, lease = ?10 + ?11, hold = ?11
WHERE NOT taken

-- name: workers_set_back
UPDATE windlass_workers SET lease = ?1 + hold WHERE NOT taken AND lease > ?1 + hold

-- name: worker_take
UPDATE windlass_workers SET taken = 1, state = 'taken' WHERE id = ?

-- name: held_refence
UPDATE windlass_held SET fence = max(fence + 1, ?) WHERE worker = ?

-- name: workers_lapsed
SELECT w.id FROM windlass_workers w, windlass_workers r
WHERE r.id = ?1 AND NOT r.taken AND r.lease >= ?2 AND r.since + r.hold <= ?2 AND NOT w.taken AND w.lease < ?2

-- name: workers_list
SELECT json_group_array(json_array(id, supervisor, host, pid, state, slots, busy, json(queues), json(tasks), started,
                                   beat, lease, json(iif(taken, 'true', 'false'))))
FROM windlass_workers WHERE NOT taken

-- --- reading --------------------------------------------------------------------------------------------------

-- fragment: state
CASE WHEN e.seq IS NOT NULL THEN e.state WHEN h.id IS NOT NULL THEN 'running'
     WHEN w.seq IS NOT NULL THEN w.state WHEN b.seq IS NOT NULL THEN 'blocked' ELSE 'queued' END

-- fragment: reason
coalesce(e.reason, w.reason, iif(b.seq IS NULL, NULL, iif(b.key = '', 'unique', 'limit')))

-- fragment: job
json_array(j.id, j.task, j.version, j.tenant, j.queue, {state}, {reason}, j.priority, j.created,
           coalesce(w.due, j.due), j.expires, j.payload, j.meta,
           coalesce(e.number - 1 + e.charged, h.attempt, j.attempt),
           j.crashes, j.losses, json(iif(j.lane AND e.seq IS NULL, 'true', 'false')),
           coalesce(h.fence, e.fence, j.fence), coalesce(h.worker, e.worker), coalesce(h.started, e.started),
           e.finished, json(iif(ifnull(h.cancelling, 0), 'true', 'false')), e.result,
           json(iif(e.state = 'completed' AND e.result IS NULL, 'true', 'false')),
           iif(e.seq IS NULL, j.error, e.error), p.body)

-- fragment: located
windlass_jobs j LEFT JOIN windlass_ended e ON e.seq = j.seq LEFT JOIN windlass_held h ON h.id = j.id
LEFT JOIN windlass_waiting w ON w.seq = j.seq LEFT JOIN windlass_blocked b ON b.seq = j.seq
LEFT JOIN windlass_progress p ON p.seq = j.seq

-- name: jobs_by_id
SELECT {job} FROM json_each(?) v CROSS JOIN {located} WHERE j.id = v.value

-- fragment: places
SELECT j.id, j.seq, {state}, j.fence, j.lane, j.queue, j.rank, j.meta, j.tenant, j.task
FROM json_each(?) v CROSS JOIN {located} WHERE j.id = v.value

-- name: places_by_id
{places}

-- name: places_to_change
{places}

-- name: seq_before
-- Of an id that is gone: where it would stand, since ids are made in the order of time.
SELECT ifnull((SELECT seq + 1 FROM windlass_jobs WHERE id < ? ORDER BY id DESC LIMIT 1), 0)

-- name: seq_of
SELECT seq FROM windlass_jobs WHERE id = ?

-- name: attempts_of
SELECT json_array(number, fence, worker, started, ended, outcome, reason, error) FROM (
    SELECT number, fence, worker, started, ended, outcome, reason, error FROM windlass_attempts WHERE seq = ?1
    UNION ALL
    SELECT number, fence, worker, started, finished, outcome, reason, error FROM windlass_ended
    WHERE seq = ?1 AND outcome IS NOT NULL)
ORDER BY fence

-- name: logs_of
SELECT json_array(at, level, message) FROM windlass_logs WHERE seq = ? AND line >= ? ORDER BY line

-- fragment: matches
(?1 IS NULL OR j.queue = ?1) AND (?2 IS NULL OR j.task = ?2) AND (?3 IS NULL OR j.created >= ?3)
AND (?4 IS NULL OR j.created < ?4) AND j.tenant = ?5 AND j.seq < ?6
AND (?7 IS NULL OR EXISTS (SELECT 1 FROM json_each(j.meta, '$.tags') t WHERE t.value = ?7))
AND (?8 IS NULL OR {reason} = ?8)
AND (?9 IS NULL OR iif(json_valid(j.meta), j.meta ->> '$.parent_id', NULL) = ?9)
AND (?10 IS NULL OR {state} IN (SELECT value FROM json_each(?10)))
AND (?11 IS NULL OR j.seq IN (SELECT seq FROM windlass_ended WHERE state = 'dead' AND {fingerprint} = ?11))
AND (?12 IS NULL OR e.finished < ?12)
AND (?13 IS NULL OR j.meta ->> '$.schedule' = ?13)
ORDER BY j.seq DESC LIMIT ?14

-- name: matching
-- Of the jobs with these ids.
SELECT j.id FROM json_each(?15) v CROSS JOIN {located} WHERE j.id = v.value AND {matches}

-- name: search_all
SELECT j.seq, {job} FROM {located} WHERE {matches}

-- name: search_ready
SELECT j.seq, {job} FROM {located}
WHERE j.seq IN (SELECT seq FROM windlass_ready) AND {matches}

-- name: search_waiting
SELECT j.seq, {job} FROM {located}
WHERE j.seq IN (SELECT seq FROM windlass_waiting) AND {matches}

-- name: search_blocked
SELECT j.seq, {job} FROM {located}
WHERE j.seq IN (SELECT seq FROM windlass_blocked) AND {matches}

-- name: search_held
SELECT j.seq, {job} FROM {located}
WHERE j.seq IN (SELECT seq FROM windlass_held) AND {matches}

-- name: search_unhappy
SELECT j.seq, {job} FROM {located}
WHERE j.seq IN (SELECT seq FROM windlass_ended WHERE state <> 'completed') AND {matches}

-- name: search_children
SELECT j.seq, {job} FROM {located}
WHERE j.seq IN (SELECT seq FROM windlass_jobs WHERE {parent} = ?9 AND instr(meta, '"parent_id"')) AND {matches}

-- name: search_group
SELECT j.seq, {job} FROM {located}
WHERE j.seq IN (SELECT seq FROM windlass_ended WHERE state = 'dead' AND {fingerprint} = ?11) AND {matches}

-- name: stats_ended
SELECT state, count(*) FROM windlass_ended GROUP BY state

-- name: stats_unhappy
SELECT state, count(*) FROM windlass_ended WHERE state <> 'completed' GROUP BY state

-- name: stats_ended_capped
SELECT count(*) FROM (SELECT 1 FROM windlass_ended LIMIT ?)

-- name: stats_waiting
SELECT w.state, j.queue, count(*) FROM (SELECT seq, state FROM windlass_waiting LIMIT ?) w
JOIN windlass_jobs j ON j.seq = w.seq GROUP BY 1, 2

-- name: stats_blocked
SELECT queue, count(*) FROM (SELECT queue FROM windlass_blocked LIMIT ?) GROUP BY 1

-- name: stats_held
SELECT j.queue, count(*) FROM windlass_held h JOIN windlass_jobs j ON j.seq = h.seq GROUP BY 1

-- name: ready_queues
WITH RECURSIVE q (queue) AS (
    SELECT min(queue) FROM windlass_ready WHERE lane = ?1
    UNION ALL
    SELECT (SELECT min(queue) FROM windlass_ready WHERE lane = ?1 AND queue > q.queue) FROM q WHERE q.queue IS NOT NULL)
SELECT queue FROM q WHERE queue IS NOT NULL

-- name: stats_ready
SELECT count(*) FROM (SELECT 1 FROM windlass_ready WHERE lane = ? AND queue = ? LIMIT ?)

-- name: ready_head
-- Since when the longest-waiting has been due. Who is first by rank need not be: with a head start he may have come
-- later; but whoever was due before him has a rank no larger than his due time.
SELECT min(j.due)
FROM (SELECT seq FROM windlass_ready
      WHERE lane = ?1 AND queue = ?2 AND rank <= (
          SELECT max(h.due, f.rank) FROM windlass_ready f JOIN windlass_jobs h ON h.seq = f.seq
          WHERE f.lane = ?1 AND f.queue = ?2 ORDER BY f.rank, f.seq LIMIT 1)
      ORDER BY rank, seq LIMIT ?3) r
JOIN windlass_jobs j ON j.seq = r.seq

-- name: ready_ahead
SELECT count(*)
FROM (SELECT 1 FROM windlass_ready WHERE lane = ?1 AND queue = ?2 AND (rank, seq) < (?3, ?4) LIMIT 10000)

-- --- operator -------------------------------------------------------------------------------------------------

-- name: ready_remove
DELETE FROM windlass_ready WHERE lane = ? AND queue = ? AND rank = ? AND seq = ?

-- name: waiting_remove
DELETE FROM windlass_waiting WHERE seq = ?

-- name: held_cancel
UPDATE windlass_held SET cancelling = max(cancelling, ?2) WHERE id = ?1

-- name: held_stopped
SELECT id FROM windlass_held WHERE cancelling = 2 AND id IN (SELECT value FROM json_each(?))

-- name: attempt_from_ended
INSERT OR IGNORE INTO windlass_attempts (seq, fence, number, worker, started, ended, outcome, reason, error)
SELECT seq, fence, number, worker, started, finished, outcome, reason, error
FROM windlass_ended WHERE seq = ? AND outcome IS NOT NULL

-- name: ids_known
SELECT id FROM windlass_jobs WHERE id IN (SELECT value FROM json_each(?))

-- name: job_revive
UPDATE windlass_jobs SET attempt = 0, crashes = 0, losses = 0, lane = 0, fence = ?, due = ?, rank = ?2 - head_start,
                         error = NULL, expires = NULL
WHERE seq = ?3

-- name: job_due_at
UPDATE windlass_jobs SET due = ?1, rank = ?1 - head_start WHERE seq = ?2

-- name: ended_fence
SELECT fence FROM windlass_ended WHERE seq = ?

-- name: ended_remove
DELETE FROM windlass_ended WHERE seq = ?

-- Of jobs that have a key, or had one: which, and who has it now.
-- name: keys_again
SELECT json_array(j.id, p.tenant, p.task, p.key, k.id, k.free_at, e.finished)
FROM json_each(?1) v CROSS JOIN windlass_jobs j ON j.id = v.value
JOIN windlass_past_keys p ON p.seq = j.seq AND p.id = j.id
LEFT JOIN windlass_keys k ON k.tenant = p.tenant AND k.task = p.task AND k.key = p.key
LEFT JOIN windlass_ended e ON e.seq = k.seq AND k.free_at IS NULL
UNION ALL
SELECT json_array(j.id, k.tenant, k.task, k.key, j.id, NULL, NULL)
FROM json_each(?1) v CROSS JOIN windlass_jobs j ON j.id = v.value
JOIN windlass_keys k ON k.seq = j.seq AND k.id = j.id

-- name: key_retake
INSERT OR REPLACE INTO windlass_keys (tenant, task, key, id, seq, digest)
SELECT tenant, task, key, id, seq, digest FROM windlass_past_keys WHERE id = ?1 AND seq = ?2

-- name: drop_past_keys
DELETE FROM windlass_past_keys WHERE seq = ?

-- name: job_edit
UPDATE windlass_jobs SET payload = ? WHERE seq = ?

-- name: keys_outlive
UPDATE windlass_keys
SET free_at = (SELECT finished FROM windlass_ended WHERE windlass_ended.seq = windlass_keys.seq) + ?1
WHERE seq = ?2 AND free_at IS NULL

-- name: keys_drop_of
-- A key with free_at has outlived its owner, whose seq may be another job's by now.
DELETE FROM windlass_keys WHERE seq = ? AND free_at IS NULL

-- name: drop_ended
DELETE FROM windlass_ended WHERE seq = ?

-- name: drop_attempts
DELETE FROM windlass_attempts WHERE seq = ?

-- name: drop_once
DELETE FROM windlass_once WHERE seq = ?

-- name: drop_progress
DELETE FROM windlass_progress WHERE seq = ?

-- name: drop_logs
DELETE FROM windlass_logs WHERE seq = ?

-- name: drop_job
DELETE FROM windlass_jobs WHERE seq = ?

-- --- prune ----------------------------------------------------------------------------------------------------

-- name: mark_get
SELECT value FROM windlass_marks WHERE name = ?

-- name: mark_put
INSERT OR REPLACE INTO windlass_marks (name, value) VALUES (?, ?)

-- name: prune_slice
SELECT seq, state, finished, result IS NOT NULL, result_until FROM windlass_ended WHERE seq > ? ORDER BY seq LIMIT ?

-- name: result_drop
UPDATE windlass_ended SET result = NULL WHERE seq = ?

-- name: keys_prune
DELETE FROM windlass_keys WHERE free_at <= ?

-- name: workers_prune
DELETE FROM windlass_workers WHERE (taken OR lease < ?2) AND beat < ?1 AND id NOT IN (SELECT worker FROM windlass_held)

-- --- schedules ------------------------------------------------------------------------------------------------

-- fragment: schedule
name, revision, definition, digest, timing, origin, paused, cursor, next_at, created, changed, seen, shown, past,
previous, last_tick, last_outcome, last_job, fired, skipped

-- name: schedules_all
SELECT {schedule} FROM windlass_schedules ORDER BY name

-- name: schedules_by_name
SELECT {schedule} FROM windlass_schedules WHERE name IN (SELECT value FROM json_each(?)) ORDER BY name

-- name: schedules_due
SELECT {schedule} FROM windlass_schedules WHERE NOT paused AND next_at <= ? ORDER BY next_at, name LIMIT ?

-- name: schedules_next
SELECT min(next_at) FROM windlass_schedules WHERE NOT paused AND next_at > ?

-- name: schedule_put
INSERT OR REPLACE INTO windlass_schedules ({schedule})
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: schedule_drop
DELETE FROM windlass_schedules WHERE name = ?

-- name: jobs_unended
SELECT v.value FROM json_each(?) v JOIN windlass_jobs j ON j.id = v.value
WHERE NOT EXISTS (SELECT 1 FROM windlass_ended e WHERE e.seq = j.seq) ORDER BY v.key

-- name: once_replace
INSERT OR REPLACE INTO windlass_once (seq, name, value) VALUES (?, ?, ?)

-- --- queues, cluster ------------------------------------------------------------------------------------------

-- name: queue_put
INSERT INTO windlass_queues (name, paused, most, bounds) VALUES (?1, ifnull(?2, 0), nullif(?3, 0), nullif(?4, '{}'))
ON CONFLICT (name) DO UPDATE SET paused = ifnull(?2, paused), most = iif(?3 IS NULL, most, nullif(?3, 0)),
                                 bounds = iif(?4 IS NULL, bounds, nullif(?4, '{}'))

-- name: queues_all
SELECT name, paused, most, ifnull(bounds, '{}') FROM windlass_queues

-- name: lead_get
SELECT slot, holder, term, until, ttl FROM windlass_leads WHERE name = ? ORDER BY until, slot

-- name: lead_put
INSERT OR REPLACE INTO windlass_leads (name, slot, holder, term, until, ttl) VALUES (?, ?, ?, ?, ?, ?)

-- name: lead_free
UPDATE windlass_leads SET until = min(until, ?) WHERE name = ? AND holder = ?

-- name: leads_of_nobody
SELECT name, holder, until, ?1 FROM windlass_leads l WHERE name IN ('maintainer', 'scheduler') AND until > ?1
    AND NOT EXISTS (SELECT 1 FROM windlass_workers w WHERE w.supervisor = l.holder AND NOT w.taken)

-- name: leads_old
SELECT ifnull(max(term), 0) FROM windlass_leads WHERE until < ?

-- name: leads_prune
DELETE FROM windlass_leads WHERE until < ?

-- --- audit ----------------------------------------------------------------------------------------------------

-- name: audit_places
SELECT j.id, (EXISTS (SELECT 1 FROM windlass_ready r
                      WHERE r.lane = j.lane AND r.queue = j.queue AND r.rank = j.rank AND r.seq = j.seq))
           + (EXISTS (SELECT 1 FROM windlass_waiting w WHERE w.seq = j.seq))
           + (EXISTS (SELECT 1 FROM windlass_blocked b
                      WHERE b.seq = j.seq AND b.lane = j.lane AND b.queue = j.queue AND b.rank = j.rank))
           + (EXISTS (SELECT 1 FROM windlass_held h WHERE h.id = j.id))
           + (EXISTS (SELECT 1 FROM windlass_ended e WHERE e.seq = j.seq)) AS places
FROM windlass_jobs j WHERE places <> 1 LIMIT 100

-- name: audit_orphans
SELECT 'ready', seq FROM windlass_ready WHERE seq NOT IN (SELECT seq FROM windlass_jobs)
UNION ALL SELECT 'ready twice', seq FROM windlass_ready GROUP BY seq HAVING count(*) > 1
UNION ALL SELECT 'waiting', seq FROM windlass_waiting WHERE seq NOT IN (SELECT seq FROM windlass_jobs)
UNION ALL SELECT 'blocked', seq FROM windlass_blocked WHERE seq NOT IN (SELECT seq FROM windlass_jobs)
UNION ALL SELECT 'permit of ' || key, id FROM windlass_permits p
          WHERE NOT EXISTS (SELECT 1 FROM windlass_held h, json_each(h.flow, '$.keys') k
                            WHERE h.id = p.id AND k.value = p.key)
UNION ALL SELECT 'no permit of ' || k.value, h.id FROM windlass_held h, json_each(h.flow, '$.keys') k
          WHERE NOT EXISTS (SELECT 1 FROM windlass_permits p WHERE p.key = k.value AND p.id = h.id)
UNION ALL SELECT 'merged', seq FROM windlass_merged WHERE seq NOT IN (SELECT seq FROM windlass_jobs)
UNION ALL SELECT 'past key ' || key, seq FROM windlass_past_keys p
          WHERE NOT EXISTS (SELECT 1 FROM windlass_jobs j WHERE j.seq = p.seq AND j.id = p.id)
UNION ALL SELECT 'unique key ' || key, id FROM windlass_unique u
          WHERE (live <> EXISTS (SELECT 1 FROM windlass_jobs j WHERE j.seq = u.seq AND j.id = u.id
                                 AND j.seq NOT IN (SELECT seq FROM windlass_ended))
                 AND u.seq IS NOT NULL)
             OR (successor IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM windlass_blocked b WHERE b.seq = u.successor AND b.key = ''))
UNION ALL SELECT 'no unique key', seq FROM windlass_jobs j
          WHERE iif(json_valid(meta), json_type(meta, '$.unique'), NULL) = 'array'
            AND seq NOT IN (SELECT seq FROM windlass_ended)
            AND NOT EXISTS (SELECT 1 FROM windlass_unique u WHERE u.seq = j.seq OR u.successor = j.seq)
UNION ALL SELECT 'held', seq FROM windlass_held WHERE seq NOT IN (SELECT seq FROM windlass_jobs)
UNION ALL SELECT 'ended', seq FROM windlass_ended WHERE seq NOT IN (SELECT seq FROM windlass_jobs)
UNION ALL SELECT 'attempts', seq FROM windlass_attempts WHERE seq NOT IN (SELECT seq FROM windlass_jobs)
UNION ALL SELECT 'held by a taken worker', seq FROM windlass_held
          WHERE worker IN (SELECT id FROM windlass_workers WHERE taken)
UNION ALL SELECT 'held by nobody', seq FROM windlass_held WHERE worker NOT IN (SELECT id FROM windlass_workers)
LIMIT 100

-- name: integrity
PRAGMA quick_check(10)

-- --- surveys --------------------------------------------------------------------------------------------------

-- name: backlog_waiting
SELECT json_group_array(json_array(j.id, j.task, j.version, j.queue, w.state, j.payload, json_array(w.seq)))
FROM (SELECT seq, state FROM windlass_waiting WHERE seq > ?1 ORDER BY seq LIMIT ?2) w
CROSS JOIN windlass_jobs j ON j.seq = w.seq

-- name: backlog_blocked
SELECT json_group_array(json_array(j.id, j.task, j.version, j.queue, 'blocked', j.payload, json_array(b.seq)))
FROM (SELECT seq FROM windlass_blocked WHERE seq > ?1 ORDER BY seq LIMIT ?2) b
CROSS JOIN windlass_jobs j ON j.seq = b.seq

-- name: backlog_ready
SELECT json_group_array(json_array(j.id, j.task, j.version, j.queue, 'queued', j.payload,
                                   json_array(r.lane, r.queue, r.rank, r.seq)))
FROM (SELECT lane, queue, rank, seq FROM windlass_ready WHERE (lane, queue, rank, seq) > (?1, ?2, ?3, ?4)
      ORDER BY lane, queue, rank, seq LIMIT ?5) r
CROSS JOIN windlass_jobs j ON j.seq = r.seq

-- name: backlog_held
SELECT json_group_array(json_array(j.id, j.task, j.version, j.queue, 'running', j.payload, json_array(h.id)))
FROM (SELECT id, seq FROM windlass_held WHERE id > ?1 ORDER BY id LIMIT ?2) h
CROSS JOIN windlass_jobs j ON j.seq = h.seq

-- fragment: parent
-- As the index windlass_jobs_parent has it, to the letter; the index is partial, so its condition must stand beside it.
iif(json_valid(meta), meta ->> '$.parent_id', NULL)

-- name: children
-- In the order of the parents, and of each in that of the enqueue: so the loops go, by CROSS JOIN and through the
-- index, and the last one answered is where the next page begins. An ORDER BY would sort all of them for each page.
SELECT json_group_array(json_array(id, place, seq))
FROM (SELECT j.id, v.key AS place, j.seq
      FROM json_each(?1) v CROSS JOIN windlass_jobs j INDEXED BY windlass_jobs_parent
      WHERE {parent} = v.value AND instr(meta, '"parent_id"') AND v.key >= ?2 AND j.seq > iif(v.key = ?2, ?3, 0)
      LIMIT ?4)

-- fragment: fingerprint
-- As the index windlass_ended_dead has it, to the letter.
iif(json_valid(error), coalesce(error ->> '$.fingerprint', ''), '')

-- name: dead_groups
-- By leaps through the index: GROUP BY would fetch the rows, and with them their errors (half a million dead letters:
-- 2.5 s, not 50 ms).
WITH RECURSIVE g (f) AS (
    SELECT min({fingerprint}) FROM windlass_ended INDEXED BY windlass_ended_dead WHERE state = 'dead'
    UNION ALL
    SELECT (SELECT min({fingerprint}) FROM windlass_ended INDEXED BY windlass_ended_dead
            WHERE state = 'dead' AND {fingerprint} > g.f)
    FROM g WHERE g.f IS NOT NULL)
SELECT f,
       (SELECT count(*) FROM windlass_ended INDEXED BY windlass_ended_dead
        WHERE state = 'dead' AND {fingerprint} = f) AS jobs,
       (SELECT min(finished) FROM windlass_ended INDEXED BY windlass_ended_dead
        WHERE state = 'dead' AND {fingerprint} = f),
       (SELECT max(finished) FROM windlass_ended INDEXED BY windlass_ended_dead
        WHERE state = 'dead' AND {fingerprint} = f)
FROM g WHERE f IS NOT NULL ORDER BY jobs DESC, f LIMIT ?

-- name: dead_latest
SELECT {job} FROM (
    SELECT seq FROM windlass_ended INDEXED BY windlass_ended_dead
    WHERE state = 'dead' AND {fingerprint} = ?1 AND finished = ?2 ORDER BY seq DESC LIMIT 1) v
CROSS JOIN {located} WHERE j.seq = v.seq

-- name: endings
SELECT json_group_array(json_array(j.task, e.state, j.created, j.due, e.started, e.finished))
FROM (SELECT seq, state, started, finished FROM windlass_ended ORDER BY seq DESC LIMIT ?) e
CROSS JOIN windlass_jobs j ON j.seq = e.seq

-- --- from one store to another ------------------------------------------------------------------------------------

-- name: departed_find
SELECT id FROM windlass_departed WHERE id IN (SELECT value FROM json_each(?))

-- name: departed_put
INSERT OR REPLACE INTO windlass_departed (id, at) VALUES (?, ?)

-- name: departed_drop
DELETE FROM windlass_departed WHERE id = ?

-- name: departed_prune
DELETE FROM windlass_departed WHERE at < ?

-- name: departing_all
SELECT n, id, target, kind, body FROM windlass_departing ORDER BY n

-- name: departing_count
SELECT count(*) FROM windlass_departing

-- name: departing_put
INSERT INTO windlass_departing (n, id, target, kind, body) VALUES (?, ?, ?, ?, ?)

-- name: departing_take
DELETE FROM windlass_departing WHERE id IN (SELECT value FROM json_each(?)) RETURNING n, id, target, kind, body

-- name: tally_get
SELECT value, text FROM windlass_marks WHERE name = ?

-- name: tally_put
INSERT OR REPLACE INTO windlass_marks (name, value, text) VALUES (?, ?, ?)

-- name: leaving_ready
-- Of each line: who may leave, but those in ?1; and how much of it there is.
SELECT j.id, length(j.payload) FROM windlass_ready r CROSS JOIN windlass_jobs j ON j.seq = r.seq
WHERE j.id NOT IN (SELECT value FROM json_each(?1)) ORDER BY r.lane, r.queue, r.rank, r.seq LIMIT ?2

-- name: leaving_waiting
SELECT j.id, length(j.payload) FROM windlass_waiting w CROSS JOIN windlass_jobs j ON j.seq = w.seq
WHERE j.id NOT IN (SELECT value FROM json_each(?1)) ORDER BY w.due, w.seq LIMIT ?2

-- name: leaving_blocked
-- A successor goes with its owner, or behind one that went.
SELECT j.id, length(j.payload) FROM windlass_blocked b CROSS JOIN windlass_jobs j ON j.seq = b.seq
WHERE (b.key > '' OR EXISTS (SELECT 1 FROM windlass_unique u WHERE u.successor = b.seq AND u.live AND u.seq IS NULL))
      AND j.id NOT IN (SELECT value FROM json_each(?1))
ORDER BY b.key, b.lane, b.queue, b.most, b.rank, b.seq LIMIT ?2

-- name: leaving_ended
SELECT j.id, length(j.payload) + ifnull(length(e.result), 0)
FROM windlass_ended e CROSS JOIN windlass_jobs j ON j.seq = e.seq
WHERE j.id NOT IN (SELECT value FROM json_each(?1)) ORDER BY e.seq LIMIT ?2

-- name: successors_of
SELECT j.id FROM json_each(?) v CROSS JOIN windlass_jobs o ON o.id = v.value
CROSS JOIN windlass_unique u ON u.seq = o.seq CROSS JOIN windlass_jobs j ON j.seq = u.successor ORDER BY v.key

-- name: parcels_jobs
SELECT j.seq, {job}, j.head_start, j.rank, j.due, e.result_until, j.tenant, j.task
FROM json_each(?) v CROSS JOIN {located} WHERE j.id = v.value ORDER BY v.key

-- name: parcels_attempts
SELECT seq, json_array(number, fence, worker, started, ended, outcome, reason, error) FROM (
    SELECT seq, number, fence, worker, started, ended, outcome, reason, error FROM windlass_attempts
    WHERE seq IN (SELECT value FROM json_each(?1))
    UNION ALL
    SELECT seq, number, fence, worker, started, finished, outcome, reason, error FROM windlass_ended
    WHERE seq IN (SELECT value FROM json_each(?1)) AND outcome IS NOT NULL)
ORDER BY seq, fence

-- name: parcels_logs
SELECT seq, json_array(at, level, message) FROM windlass_logs WHERE seq IN (SELECT value FROM json_each(?))
ORDER BY seq, line

-- name: parcels_once
SELECT seq, name, value FROM windlass_once WHERE seq IN (SELECT value FROM json_each(?))

-- name: parcels_merged
SELECT seq, id FROM windlass_merged WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY id

-- name: parcels_keys
-- The fourth column: it was lost.
SELECT seq, key, digest, 0 FROM windlass_keys WHERE seq IN (SELECT value FROM json_each(?1)) AND free_at IS NULL
UNION ALL
SELECT seq, key, digest, 1 FROM windlass_past_keys WHERE seq IN (SELECT value FROM json_each(?1))

-- name: parcels_unique
SELECT seq, until, NULL FROM windlass_unique WHERE seq IN (SELECT value FROM json_each(?1))
UNION ALL
SELECT successor, NULL, id FROM windlass_unique WHERE successor IN (SELECT value FROM json_each(?1))

-- name: keys_depart
UPDATE windlass_keys SET free_at = ? WHERE seq = ? AND free_at IS NULL

-- name: unique_depart
-- Its owner lives elsewhere: `live` without a seq.
UPDATE windlass_unique SET seq = NULL WHERE seq = ? AND live

-- name: seqs_next
SELECT (SELECT ifnull(max(seq), 0) FROM windlass_jobs) + 1 + key FROM json_each(?)

-- name: seqs_by_id
SELECT id, seq FROM windlass_jobs WHERE id IN (SELECT value FROM json_each(?))

-- name: ended_put
INSERT INTO windlass_ended (seq, state, reason, finished, fence, number, charged, worker, started, outcome, result,
                            error, result_until)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: keys_left
SELECT tenant, task, key, id, digest, free_at FROM windlass_keys
WHERE (tenant, task, key) > (?, ?, ?) AND free_at < ? ORDER BY tenant, task, key LIMIT ?

-- name: key_leave
INSERT INTO windlass_keys (tenant, task, key, id, seq, digest, free_at) VALUES (?, ?, ?, ?, 0, ?, ?)
ON CONFLICT DO NOTHING

-- name: windows_left
SELECT tenant, task, key, id, until FROM windlass_unique WHERE NOT live AND until > ?

-- name: window_leave
INSERT INTO windlass_unique (tenant, task, key, id, live, until) VALUES (?, ?, ?, ?, 0, ?) ON CONFLICT DO NOTHING

-- name: terms_most
SELECT max(ifnull((SELECT max(term) FROM windlass_leads), 0),
           ifnull((SELECT value FROM windlass_marks WHERE name = 'terms'), 0))
