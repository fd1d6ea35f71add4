-- Flow control. A job without limits and without a unique key touches none of this: it has a NULL in `held`, and no row
-- here.

-- A job that waits for a key: taken out of `ready` by the claim that found the key full, so that no claim walks past it
-- again. `most` is the job's own idea of the limit.
CREATE TABLE windlass_blocked (
    key   TEXT    NOT NULL,
    lane  INTEGER NOT NULL,
    queue TEXT    NOT NULL,
    rank  INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    most  INTEGER NOT NULL,
    PRIMARY KEY (key, lane, queue, rank, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX windlass_blocked_seq ON windlass_blocked (seq);

-- One row for each key of each running job that has any: written with its row in `held`, and gone with it.
CREATE TABLE windlass_permits (
    key TEXT NOT NULL,
    id  TEXT NOT NULL,
    PRIMARY KEY (key, id)
) STRICT, WITHOUT ROWID;

-- What the end of a run has to give up, so that a settle knows it without a look at the job: a JSON object with the
-- keys of its limits, and whether it owns a unique key.
ALTER TABLE windlass_held ADD COLUMN flow TEXT;

-- How many of a queue may run at once.
ALTER TABLE windlass_queues ADD COLUMN most INTEGER;

-- How full one may be: the JSON of Bounds.
ALTER TABLE windlass_queues ADD COLUMN bounds TEXT;

-- Where the sweep over `blocked` stopped.
ALTER TABLE windlass_marks ADD COLUMN text TEXT;

-- Who has a unique key. `seq` is NULL once its owner was pruned; `live` is 0 where only a throttle's window is left.
CREATE TABLE windlass_unique (
    tenant    TEXT    NOT NULL,
    task      TEXT    NOT NULL,
    key       TEXT    NOT NULL,
    id        TEXT    NOT NULL,
    seq       INTEGER,
    live      INTEGER NOT NULL,
    successor INTEGER,
    until     INTEGER,
    PRIMARY KEY (tenant, task, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX windlass_unique_seq ON windlass_unique (seq) WHERE seq IS NOT NULL;
CREATE INDEX windlass_unique_successor ON windlass_unique (successor) WHERE successor IS NOT NULL;
CREATE INDEX windlass_unique_until ON windlass_unique (until) WHERE NOT live;

-- Jobs that took the place of another, so that one that is sent again does not take it twice.
CREATE TABLE windlass_merged (
    id  TEXT    PRIMARY KEY,
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX windlass_merged_seq ON windlass_merged (seq);

-- A lead may have several holders, as a lock may have slots. (The default is for those who know of none: an older
-- supervisor that leads during an upgrade.)
ALTER TABLE windlass_leads RENAME TO windlass_leads_of_one;
CREATE TABLE windlass_leads (
    name   TEXT    NOT NULL,
    slot   INTEGER NOT NULL DEFAULT 0,
    holder TEXT    NOT NULL,
    term   INTEGER NOT NULL,
    until  INTEGER NOT NULL,
    PRIMARY KEY (name, slot)
) STRICT, WITHOUT ROWID;
INSERT INTO windlass_leads (name, slot, holder, term, until)
SELECT name, 0, holder, term, until FROM windlass_leads_of_one;
DROP TABLE windlass_leads_of_one;
