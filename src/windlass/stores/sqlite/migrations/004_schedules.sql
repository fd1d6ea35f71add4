-- Schedules. `timing` and `digest` are what the definition comes to where only that matters; `past` is a JSON array of
-- the digests that it had before, `previous` one of its jobs that may not have ended.
CREATE TABLE windlass_schedules (
    name         TEXT    NOT NULL UNIQUE,
    revision     INTEGER NOT NULL,
    definition   TEXT    NOT NULL,
    digest       TEXT    NOT NULL,
    timing       TEXT    NOT NULL,
    origin       TEXT    NOT NULL,
    paused       INTEGER NOT NULL DEFAULT 0,
    cursor       INTEGER NOT NULL,
    next_at      INTEGER,
    created      INTEGER NOT NULL,
    changed      INTEGER NOT NULL,
    seen         INTEGER,
    shown        INTEGER,
    past         TEXT    NOT NULL DEFAULT '[]',
    previous     TEXT    NOT NULL DEFAULT '[]',
    last_tick    INTEGER,
    last_outcome TEXT,
    last_job     TEXT,
    fired        INTEGER NOT NULL DEFAULT 0,
    skipped      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX windlass_schedules_next ON windlass_schedules (next_at) WHERE NOT paused AND next_at IS NOT NULL;
