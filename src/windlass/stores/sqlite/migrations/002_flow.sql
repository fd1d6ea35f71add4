-- Flow control. What has no limit touches none of this: a job without one has a NULL in `held` and no row here.

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

-- The JSON array of those keys, so that a settle knows them without a look at the job.
ALTER TABLE windlass_held ADD COLUMN keys TEXT;

-- How many of a queue may run at once.
ALTER TABLE windlass_queues ADD COLUMN most INTEGER;

-- Where the sweep over `blocked` stopped.
ALTER TABLE windlass_marks ADD COLUMN text TEXT;
