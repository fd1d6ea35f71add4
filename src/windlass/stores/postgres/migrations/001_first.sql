-- As in the SQLite store, a job's state is the table in which it lies, exactly one of `ready`, `waiting`, `blocked`,
-- `held` and `ended`. The row in `jobs` is written at enqueue and touched again only by what is rare. Texts that are
-- compared are in the collation "C", so that every database orders them alike.
-- `windlass` stands for the schema that the URL names.

-- JSON, or NULL where it cannot be read: one bad row must not fail a search.
CREATE FUNCTION windlass.as_json(body text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN body::jsonb;
EXCEPTION WHEN others THEN
    RETURN NULL;
END
$$;

-- Whether a lock could be had within an instant. Who has it may want a row of the asker's: then both would wait.
CREATE FUNCTION windlass.lock_soon(name text, bucket integer) RETURNS boolean LANGUAGE plpgsql
SET lock_timeout = '20ms' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext(name), bucket);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

CREATE SEQUENCE windlass.jobs_seq;

-- In which part a job lies: one of eight, in turn by the time in its id, each for as many
-- milliseconds as `width` says. An id that tells no time, or one before `since`, when that was said, is in none of
-- these but in the rest (15). So a job that is sent a second time meets itself in the same part, whose index knows it,
-- or in the one for what outlasts its part (14; see 004_parts.sql). Its number tells the part as well: seq & 15.
CREATE TABLE windlass.parts (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    since bigint NOT NULL,
    width bigint NOT NULL CHECK (width > 0)
);
INSERT INTO windlass.parts (since, width) VALUES (0, 120960000);

CREATE FUNCTION windlass.part_in(id text, since bigint, width bigint) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
SELECT CASE WHEN id LIKE '________-____-7%' AND translate(left(id, 13), '0123456789abcdef', '') = '-'
                 AND ('x' || left(id, 8) || substr(id, 10, 4))::bit(48)::bigint >= since
            THEN (('x' || left(id, 8) || substr(id, 10, 4))::bit(48)::bigint / width & 7)::smallint
            ELSE 15::smallint END
$$;

CREATE FUNCTION windlass.part_of(id text) RETURNS smallint LANGUAGE sql STABLE AS $$
SELECT windlass.part_in(part_of.id, (SELECT since FROM windlass.parts), (SELECT width FROM windlass.parts))
$$;

-- Moves whenever something was committed that others may wait for; see `changed` in queries.sql.
CREATE SEQUENCE windlass.changes_seq;

CREATE TABLE windlass.jobs (
    seq        bigint NOT NULL DEFAULT nextval('windlass.jobs_seq') * 16 + 15,
    version    bigint NOT NULL,
    priority   bigint NOT NULL,
    head_start bigint NOT NULL,
    created    bigint NOT NULL,
    due        bigint NOT NULL,
    rank       bigint NOT NULL,
    expires    bigint,
    fence      bigint NOT NULL DEFAULT 0,
    attempt    integer NOT NULL DEFAULT 0,
    crashes    integer NOT NULL DEFAULT 0,
    losses     integer NOT NULL DEFAULT 0,
    lane       smallint NOT NULL DEFAULT 0,
    part       smallint NOT NULL DEFAULT 15 CHECK (part = (seq & 15)),
    id         text COLLATE "C" NOT NULL,
    tenant     text COLLATE "C" NOT NULL,
    task       text COLLATE "C" NOT NULL,
    queue      text COLLATE "C" NOT NULL,
    payload    text NOT NULL,
    meta       text NOT NULL,
    error      text
) PARTITION BY LIST (part);
CREATE TABLE windlass.jobs_0 PARTITION OF windlass.jobs (UNIQUE (seq), UNIQUE (id)) FOR VALUES IN (0);
CREATE TABLE windlass.jobs_1 PARTITION OF windlass.jobs (UNIQUE (seq), UNIQUE (id)) FOR VALUES IN (1);
CREATE TABLE windlass.jobs_2 PARTITION OF windlass.jobs (UNIQUE (seq), UNIQUE (id)) FOR VALUES IN (2);
CREATE TABLE windlass.jobs_3 PARTITION OF windlass.jobs (UNIQUE (seq), UNIQUE (id)) FOR VALUES IN (3);
CREATE TABLE windlass.jobs_4 PARTITION OF windlass.jobs (UNIQUE (seq), UNIQUE (id)) FOR VALUES IN (4);
CREATE TABLE windlass.jobs_5 PARTITION OF windlass.jobs (UNIQUE (seq), UNIQUE (id)) FOR VALUES IN (5);
CREATE TABLE windlass.jobs_6 PARTITION OF windlass.jobs (UNIQUE (seq), UNIQUE (id)) FOR VALUES IN (6);
CREATE TABLE windlass.jobs_7 PARTITION OF windlass.jobs (UNIQUE (seq), UNIQUE (id)) FOR VALUES IN (7);
CREATE TABLE windlass.jobs_kept PARTITION OF windlass.jobs (UNIQUE (seq), UNIQUE (id)) FOR VALUES IN (14);
CREATE TABLE windlass.jobs_rest PARTITION OF windlass.jobs (UNIQUE (seq), UNIQUE (id)) DEFAULT;

-- Children by their parent, so that a family is found without a walk through all jobs. Partial: a job without a parent
-- pays for one look through its meta, which is short.
CREATE INDEX jobs_parent ON windlass.jobs ((windlass.as_json(meta) ->> 'parent_id'), seq)
WHERE meta LIKE '%"parent_id"%';

-- Fixed lengths first, wherever many rows are written: what stands behind a text is padded.

-- The three tables through which every job goes. A row lives as long as a job waits or runs, and what is deleted
-- stays in the way of every claim until vacuum takes it, which it may not while any transaction of the server is older.
-- So each has two parts: new rows go to the one that `rings` names, and the other, once its last rows have moved on,
-- is truncated, which waits for nobody's snapshot. (These parts have nothing to do with those of `jobs` and `ended`.)
CREATE TABLE windlass.rings (
    name     text COLLATE "C" PRIMARY KEY,
    current  smallint NOT NULL,
    deserted bigint NOT NULL DEFAULT 0
);
INSERT INTO windlass.rings (name, current) VALUES ('ready', 0), ('waiting', 0), ('held', 0);

-- lane 0 is everybody's, lane 1 holds suspects, which only a quarantine worker claims.
CREATE TABLE windlass.ready (
    rank  bigint NOT NULL,
    seq   bigint NOT NULL,
    part  smallint NOT NULL,
    lane  smallint NOT NULL,
    queue text COLLATE "C" NOT NULL
) PARTITION BY LIST (part);
CREATE TABLE windlass.ready_0 PARTITION OF windlass.ready FOR VALUES IN (0)
WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE TABLE windlass.ready_1 PARTITION OF windlass.ready FOR VALUES IN (1)
WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
-- Of each part, where one of the whole would have to name the part as well: 8 bytes more, read by nobody.
CREATE UNIQUE INDEX ready_0_line ON windlass.ready_0 (lane, queue, rank, seq);
CREATE UNIQUE INDEX ready_1_line ON windlass.ready_1 (lane, queue, rank, seq);

CREATE TABLE windlass.waiting (
    part   smallint NOT NULL,
    seq    bigint NOT NULL,
    due    bigint NOT NULL,
    state  text NOT NULL,
    reason text,
    PRIMARY KEY (seq, part)
) PARTITION BY LIST (part);
CREATE TABLE windlass.waiting_0 PARTITION OF windlass.waiting FOR VALUES IN (0)
WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE TABLE windlass.waiting_1 PARTITION OF windlass.waiting FOR VALUES IN (1)
WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX waiting_due ON windlass.waiting (due, seq);

-- `flow` is what the end of a run has to give up: a JSON object with the keys of its limits, and whether it owns a
-- unique key; NULL for a job without either. There is no index by worker: what asks for one looks through all that is
-- held, which is never much, and rarely.
CREATE TABLE windlass.held (
    seq        bigint NOT NULL,
    grant_seq  bigint NOT NULL,
    fence      bigint NOT NULL,
    started    bigint NOT NULL,
    attempt    integer NOT NULL,
    part       smallint NOT NULL,
    cancelling smallint NOT NULL DEFAULT 0,
    id         text COLLATE "C" NOT NULL,
    worker     text COLLATE "C" NOT NULL,
    flow       text,
    PRIMARY KEY (id, part)
) PARTITION BY LIST (part);
CREATE TABLE windlass.held_0 PARTITION OF windlass.held FOR VALUES IN (0)
WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000,
      autovacuum_vacuum_cost_delay = 0);
CREATE TABLE windlass.held_1 PARTITION OF windlass.held FOR VALUES IN (1)
WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000,
      autovacuum_vacuum_cost_delay = 0);

-- The last attempt rides in this row: a job that succeeds at once writes no row of history.
CREATE TABLE windlass.ended (
    seq          bigint NOT NULL,
    finished     bigint NOT NULL,
    fence        bigint NOT NULL,
    started      bigint,
    result_until bigint,
    number       integer,
    charged      smallint NOT NULL DEFAULT 0,
    part         smallint NOT NULL CHECK (part = (seq & 15)),
    state        text COLLATE "C" NOT NULL,
    reason       text,
    worker       text,
    outcome      text,
    result       text,
    error        text
) PARTITION BY LIST (part);
CREATE TABLE windlass.ended_0 PARTITION OF windlass.ended (UNIQUE (seq)) FOR VALUES IN (0);
CREATE TABLE windlass.ended_1 PARTITION OF windlass.ended (UNIQUE (seq)) FOR VALUES IN (1);
CREATE TABLE windlass.ended_2 PARTITION OF windlass.ended (UNIQUE (seq)) FOR VALUES IN (2);
CREATE TABLE windlass.ended_3 PARTITION OF windlass.ended (UNIQUE (seq)) FOR VALUES IN (3);
CREATE TABLE windlass.ended_4 PARTITION OF windlass.ended (UNIQUE (seq)) FOR VALUES IN (4);
CREATE TABLE windlass.ended_5 PARTITION OF windlass.ended (UNIQUE (seq)) FOR VALUES IN (5);
CREATE TABLE windlass.ended_6 PARTITION OF windlass.ended (UNIQUE (seq)) FOR VALUES IN (6);
CREATE TABLE windlass.ended_7 PARTITION OF windlass.ended (UNIQUE (seq)) FOR VALUES IN (7);
CREATE TABLE windlass.ended_kept PARTITION OF windlass.ended (UNIQUE (seq)) FOR VALUES IN (14);
CREATE TABLE windlass.ended_rest PARTITION OF windlass.ended (UNIQUE (seq)) DEFAULT;
CREATE INDEX ended_unhappy ON windlass.ended (state, seq) WHERE state <> 'completed';
-- Taken from the text, not from the JSON: JSON that holds an escaped NUL, as messages of exceptions may, is JSON that
-- PostgreSQL will not read.
CREATE INDEX ended_dead
ON windlass.ended (coalesce(substring(error FROM '"fingerprint":"([^"\\]*)"'), '') COLLATE "C", finished, seq)
WHERE state = 'dead';

CREATE TABLE windlass.attempts (
    seq     bigint NOT NULL,
    fence   bigint NOT NULL,
    number  bigint NOT NULL,
    worker  text,
    started bigint,
    ended   bigint NOT NULL,
    outcome text NOT NULL,
    reason  text,
    error   text,
    PRIMARY KEY (seq, fence)
);

CREATE TABLE windlass.expiring (
    expires bigint NOT NULL,
    seq     bigint NOT NULL,
    PRIMARY KEY (expires, seq)
);

CREATE TABLE windlass.keys (
    tenant  text COLLATE "C" NOT NULL,
    task    text COLLATE "C" NOT NULL,
    key     text COLLATE "C" NOT NULL,
    id      text COLLATE "C" NOT NULL,
    seq     bigint NOT NULL,
    digest  text NOT NULL,
    free_at bigint,
    PRIMARY KEY (tenant, task, key)
);
CREATE INDEX keys_seq ON windlass.keys (seq);
CREATE INDEX keys_free ON windlass.keys (free_at) WHERE free_at IS NOT NULL;

-- The idempotency key that a job had, where it was freed while the job is still there: a revived job takes it again, or
-- if another job has it by now, is not revived.
CREATE TABLE windlass.past_keys (
    seq    bigint PRIMARY KEY,
    id     text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    task   text COLLATE "C" NOT NULL,
    key    text COLLATE "C" NOT NULL,
    digest text NOT NULL
);

CREATE TABLE windlass.once (
    seq   bigint NOT NULL,
    name  text COLLATE "C" NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (seq, name)
);

CREATE TABLE windlass.progress (
    seq  bigint PRIMARY KEY,
    body text NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE windlass.logs (
    seq     bigint NOT NULL,
    line    bigint NOT NULL,
    at      bigint NOT NULL,
    level   text NOT NULL,
    message text NOT NULL,
    PRIMARY KEY (seq, line)
);

-- A job that waits for a key: of a limit, or (key empty) for the owner of its unique key. Jobs of one limit that were
-- enqueued with different numbers, as by two releases of the code, wait in a line for each.
CREATE TABLE windlass.blocked (
    key   text COLLATE "C" NOT NULL,
    lane  smallint NOT NULL,
    queue text COLLATE "C" NOT NULL,
    rank  bigint NOT NULL,
    seq   bigint NOT NULL UNIQUE,
    most  bigint NOT NULL,
    PRIMARY KEY (key, lane, queue, most, rank, seq)
);

-- One row for each key of each running job that has any.
CREATE TABLE windlass.permits (
    key text COLLATE "C" NOT NULL,
    id  text COLLATE "C" NOT NULL,
    PRIMARY KEY (key, id)
);

-- Who has a unique key. `seq` is NULL once its owner was pruned; `live` is 0 where only a throttle's window is left.
CREATE TABLE windlass.unique_keys (
    tenant    text COLLATE "C" NOT NULL,
    task      text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    id        text COLLATE "C" NOT NULL,
    seq       bigint,
    live      smallint NOT NULL,
    successor bigint,
    until     bigint,
    PRIMARY KEY (tenant, task, key)
);
CREATE INDEX unique_seq ON windlass.unique_keys (seq) WHERE seq IS NOT NULL;
CREATE INDEX unique_successor ON windlass.unique_keys (successor) WHERE successor IS NOT NULL;
CREATE INDEX unique_until ON windlass.unique_keys (until) WHERE live = 0;

-- Jobs that ended while an enqueue had their unique key in hand: it is passed on once that is over.
CREATE TABLE windlass.passing (
    seq bigint PRIMARY KEY
);

-- Jobs that took the place of another, so that one that is sent again does not take it twice.
CREATE TABLE windlass.merged (
    id  text COLLATE "C" PRIMARY KEY,
    seq bigint NOT NULL
);
CREATE INDEX merged_seq ON windlass.merged (seq);

CREATE TABLE windlass.workers (
    id         text COLLATE "C" PRIMARY KEY,
    supervisor text COLLATE "C" NOT NULL,
    host       text NOT NULL,
    pid        bigint NOT NULL,
    state      text NOT NULL,
    slots      bigint NOT NULL,
    busy       bigint NOT NULL,
    queues     text NOT NULL,
    tasks      text NOT NULL,
    started    bigint NOT NULL,
    since      bigint NOT NULL,
    beat       bigint NOT NULL,
    lease      bigint NOT NULL,
    hold       bigint NOT NULL,
    taken      smallint NOT NULL DEFAULT 0,
    closed_seq bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE windlass.queues (
    name   text COLLATE "C" PRIMARY KEY,
    paused smallint NOT NULL,
    most   bigint,
    -- Every enqueue reads it, so what is written by hand must not be what nobody can read.
    bounds text CHECK (bounds IS NULL OR bounds ~ '^\{(,?"(depth|age)":[0-9]{1,18}|,?"shed":(true|false))*\}$'
                       AND windlass.as_json(bounds) IS NOT NULL)
);

CREATE TABLE windlass.leads (
    name   text COLLATE "C" NOT NULL,
    slot   bigint NOT NULL,
    holder text COLLATE "C" NOT NULL,
    term   bigint NOT NULL,
    until  bigint NOT NULL,
    ttl    bigint NOT NULL,
    PRIMARY KEY (name, slot)
) WITH (fillfactor = 50);

CREATE TABLE windlass.marks (
    name  text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL,
    text  text COLLATE "C"
);

CREATE TABLE windlass.schedules (
    name         text COLLATE "C" PRIMARY KEY,
    revision     bigint NOT NULL,
    definition   text NOT NULL,
    digest       text NOT NULL,
    timing       text NOT NULL,
    origin       text NOT NULL,
    paused       smallint NOT NULL DEFAULT 0,
    cursor       bigint NOT NULL,
    next_at      bigint,
    created      bigint NOT NULL,
    changed      bigint NOT NULL,
    seen         bigint,
    shown        bigint,
    past         text NOT NULL,
    previous     text NOT NULL,
    last_tick    bigint,
    last_outcome text,
    last_job     text,
    fired        bigint NOT NULL,
    skipped      bigint NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX schedules_next ON windlass.schedules (next_at) WHERE paused = 0 AND next_at IS NOT NULL;
