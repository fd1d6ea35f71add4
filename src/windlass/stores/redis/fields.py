"""The fields of a job, in the order in which it is kept. Its id is not, as it is the name of the field in `jobs`."""

from __future__ import annotations

FIELDS = (
    *("ID", "STATE", "SEQ", "SUSPECT", "QUEUE", "RANK", "DUE_AT"),
    *("PARKED", "CREATED", "EXPIRES", "FENCE", "ATTEMPT", "CRASHES", "LOSSES"),
    *("REASON", "WORKER", "GRANT", "STARTED", "FINISHED", "CANCELLING", "STOPS"),
    *("BLOCKER", "MOST", "LIMITS", "UNIQUE", "TASK", "VERSION", "TENANT"),
    *("PRIORITY", "HEAD_START", "KEY", "DIGEST", "ERROR", "RESULT", "RESULT_UNTIL"),
    *("RESULT_GONE", "OUTCOME", "NUMBER", "PARENT", "SCHEDULE", "TAGS", "FINGERPRINT"),
)
