-- What is set aside on its way to another store: whole, as JSON, and in no other table any more.
CREATE TABLE windlass_departing (
    n      INTEGER PRIMARY KEY,
    id     TEXT NOT NULL UNIQUE,
    target TEXT NOT NULL,
    kind   TEXT NOT NULL,
    body   TEXT NOT NULL
) STRICT;

-- Jobs that went, for a day: one that is sent again, as its answer was lost, must not be stored a second time.
CREATE TABLE windlass_departed (
    id TEXT    PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX windlass_departed_at ON windlass_departed (at);
