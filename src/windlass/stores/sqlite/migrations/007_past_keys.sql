-- The idempotency key that a job had, where it was freed (it had ended long enough ago) while the job is still there: a
-- revived job takes it again, or if another job has it by now, is not revived. Written where a key is freed or goes to
-- another, which is rare, so that a job pays nothing for it.
CREATE TABLE windlass_past_keys (
    seq    INTEGER PRIMARY KEY,
    id     TEXT NOT NULL,
    tenant TEXT NOT NULL,
    task   TEXT NOT NULL,
    key    TEXT NOT NULL,
    digest TEXT NOT NULL
) STRICT;
