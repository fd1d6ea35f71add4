-- Jobs of one limit that were enqueued with different numbers, as by two releases of the code, wait in a line for each:
-- behind one that needs the key to be empty, those that do not would wait for as long as it is busy. An older worker
-- finds its way: it names every column. (They stand in the order of the key, or the integrity check of SQLite 3.40 sees
-- NULLs that are not there.)
CREATE TABLE windlass_blocked_lines (
    key   TEXT    NOT NULL,
    lane  INTEGER NOT NULL,
    queue TEXT    NOT NULL,
    most  INTEGER NOT NULL,
    rank  INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (key, lane, queue, most, rank, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO windlass_blocked_lines SELECT key, lane, queue, most, rank, seq FROM windlass_blocked;
DROP TABLE windlass_blocked;
ALTER TABLE windlass_blocked_lines RENAME TO windlass_blocked;
CREATE UNIQUE INDEX windlass_blocked_seq ON windlass_blocked (seq);
