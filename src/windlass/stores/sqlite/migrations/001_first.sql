-- A job's state is where it lies: `ready`, `waiting`, `held` or `ended`, exactly one of them. The row in `jobs` is
-- written at enqueue and touched again only by what is rare (a retry, an edit), so that a job that simply runs costs
-- seven narrow b-tree writes and no claim ever walks past what is not claimable.

CREATE TABLE windlass_jobs (
    seq        INTEGER PRIMARY KEY,
    id         TEXT    NOT NULL UNIQUE,
    tenant     TEXT    NOT NULL,
    task       TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    queue      TEXT    NOT NULL,
    priority   INTEGER NOT NULL,
    head_start INTEGER NOT NULL,
    created    INTEGER NOT NULL,
    due        INTEGER NOT NULL,
    rank       INTEGER NOT NULL,
    expires    INTEGER,
    payload    TEXT    NOT NULL,
    meta       TEXT    NOT NULL,
    attempt    INTEGER NOT NULL DEFAULT 0,
    crashes    INTEGER NOT NULL DEFAULT 0,
    losses     INTEGER NOT NULL DEFAULT 0,
    fence      INTEGER NOT NULL DEFAULT 0,
    lane       INTEGER NOT NULL DEFAULT 0,
    error      TEXT
) STRICT;

-- lane 0 is everybody's, lane 1 holds suspects, which only a quarantine worker claims.
CREATE TABLE windlass_ready (
    lane  INTEGER NOT NULL,
    queue TEXT    NOT NULL,
    rank  INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (lane, queue, rank, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE windlass_waiting (
    seq    INTEGER PRIMARY KEY,
    due    INTEGER NOT NULL,
    state  TEXT    NOT NULL,
    reason TEXT
) STRICT;
CREATE INDEX windlass_waiting_due ON windlass_waiting (due);

-- Keyed by id because a settle comes by id; a few hundred rows, so it needs no other index.
CREATE TABLE windlass_held (
    id         TEXT    PRIMARY KEY,
    seq        INTEGER NOT NULL,
    worker     TEXT    NOT NULL,
    grant_seq  INTEGER NOT NULL,
    fence      INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    started    INTEGER NOT NULL,
    cancelling INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- The last attempt rides in this row: a job that succeeds at once writes no row of history.
CREATE TABLE windlass_ended (
    seq      INTEGER PRIMARY KEY,
    state    TEXT    NOT NULL,
    reason   TEXT,
    finished INTEGER NOT NULL,
    fence    INTEGER NOT NULL,
    number   INTEGER,
    charged  INTEGER NOT NULL DEFAULT 0,
    worker   TEXT,
    started  INTEGER,
    outcome  TEXT,
    result   TEXT,
    error    TEXT,
    result_until INTEGER
) STRICT;
CREATE INDEX windlass_ended_unhappy ON windlass_ended (state, seq) WHERE state <> 'completed';

CREATE TABLE windlass_attempts (
    seq     INTEGER NOT NULL,
    fence   INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    worker  TEXT,
    started INTEGER,
    ended   INTEGER NOT NULL,
    outcome TEXT    NOT NULL,
    reason  TEXT,
    error   TEXT,
    PRIMARY KEY (seq, fence)
) STRICT, WITHOUT ROWID;

CREATE TABLE windlass_expiring (
    expires INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    PRIMARY KEY (expires, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE windlass_keys (
    tenant  TEXT    NOT NULL,
    task    TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    seq     INTEGER NOT NULL,
    digest  TEXT    NOT NULL,
    free_at INTEGER,
    PRIMARY KEY (tenant, task, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX windlass_keys_seq ON windlass_keys (seq);
CREATE INDEX windlass_keys_free ON windlass_keys (free_at) WHERE free_at IS NOT NULL;

CREATE TABLE windlass_once (
    seq   INTEGER NOT NULL,
    name  TEXT    NOT NULL,
    value TEXT    NOT NULL,
    PRIMARY KEY (seq, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE windlass_progress (
    seq  INTEGER PRIMARY KEY,
    body TEXT    NOT NULL
) STRICT;

CREATE TABLE windlass_logs (
    seq     INTEGER NOT NULL,
    line    INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    level   TEXT    NOT NULL,
    message TEXT    NOT NULL,
    PRIMARY KEY (seq, line)
) STRICT, WITHOUT ROWID;

CREATE TABLE windlass_workers (
    id         TEXT    PRIMARY KEY,
    supervisor TEXT    NOT NULL,
    host       TEXT    NOT NULL,
    pid        INTEGER NOT NULL,
    state      TEXT    NOT NULL,
    slots      INTEGER NOT NULL,
    busy       INTEGER NOT NULL,
    queues     TEXT    NOT NULL,
    tasks      TEXT    NOT NULL,
    started    INTEGER NOT NULL,
    since      INTEGER NOT NULL,
    beat       INTEGER NOT NULL,
    lease      INTEGER NOT NULL,
    hold       INTEGER NOT NULL,
    taken      INTEGER NOT NULL DEFAULT 0,
    closed_seq INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE windlass_queues (
    name   TEXT    PRIMARY KEY,
    paused INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE windlass_leads (
    name   TEXT    PRIMARY KEY,
    holder TEXT    NOT NULL,
    term   INTEGER NOT NULL,
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE windlass_marks (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
