"""The keys of one store. Every script is given all of them, in this order, so none is touched that was not declared."""

from __future__ import annotations

NAMES = (
    *("jobs", "bodies", "ready", "due", "expiring", "held", "permits", "blocked", "results"),
    *("completed", "dead", "cancelled", "expired"),
    *("attempts", "logs", "once", "progress", "unique", "keys", "left", "outliving", "merged", "into"),
    *("workers", "queues", "leads", "marks", "counts", "index", "labels", "changes", "seq"),
    *("departed", "departing", "tallies", "schedules", "children", "following"),
)


def keys_of(prefix: str, tag: int) -> tuple[bytes, ...]:
    """Of one tag: on a cluster all keys with one tag in braces lie on one node."""
    return tuple(f"{prefix}:{{{tag}}}:{name}".encode() for name in NAMES)
