"""Flow control, decided: which of the jobs in line may run now, and whose turn an ended run makes it.

A limit is a key and a number that ride with the job, so that any process can decide about it, also one that never
imported its task. How many run is counted from the live rows, by the store, in the transaction that grants: there is
no counter that a crash could leave wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec

from windlass.core.job import KeyLimit, NewJob, read_meta

Limits = tuple[KeyLimit, ...]


def limits_of(meta: str) -> Limits:
    """The limits in the JSON text of a Meta; none where it cannot be read, as one bad row must not stop a queue."""
    # Most jobs have none, and are asked on every claim: a search of a short text, not a parse.
    return _limits(meta) if '"limits"' in meta else ()


@lru_cache(maxsize=4_096)
def _limits(meta: str) -> Limits:
    try:
        return read_meta(meta).limits
    except msgspec.DecodeError:
        return ()


def concerns_flow(metas: Iterable[str]) -> bool:
    """Whether any of these may say something about limits or unique keys."""
    return any('"limits"' in meta or '"unique"' in meta for meta in metas)


def keys_of(limits: Iterable[Limits]) -> list[str]:
    """Every key in them, once, in order."""
    return list(dict.fromkeys(limit.key for each in limits for limit in each))


def admit(line: Sequence[Limits], running: Mapping[str, int], room: int) -> list[KeyLimit | None]:
    """Go through jobs in the order in which they stand until `room` of them are let in. For each that was looked at:
    None if it may run, else the first of its limits that is full.

    `running` counts, by key, the jobs that run now; those let in here count for the ones behind them.
    """
    count = Counter(running)
    verdicts: list[KeyLimit | None] = []
    for limits in line:
        if room <= 0:
            break
        full = next((limit for limit in limits if count[limit.key] >= limit.most), None)
        if full is None:
            room -= 1
            count.update(keys_of((limits,)))
        verdicts.append(full)
    return verdicts


def passed_on(blocked: Iterable[tuple[Limits, KeyLimit]]) -> dict[str, int]:
    """How many turns, by key, jobs that were just blocked leave to others: under each of their keys that is not the
    one which blocks them, another may have its turn."""
    turns: Counter[str] = Counter()
    for limits, full in blocked:
        turns.update(key for key in keys_of((limits,)) if key != full.key)
    return dict(turns)


def turns(freed: int | None, most: int, running: int) -> int:
    """How many of those that wait for a key are let back into line: as many as runs have ended (None: whatever there
    is room for), and never more than there is room for."""
    room = max(0, most - running)
    return room if freed is None else min(freed, room)


class Bounds(msgspec.Struct, frozen=True, omit_defaults=True):
    """How full a queue may be for what is enqueued; what is None has no bound."""

    depth: int | None = None
    """Jobs that are due and wait."""
    age: int | None = None
    """Microseconds that the first in line has been due."""
    shed: bool = False
    """What comes to a full queue is stored as cancelled, instead of being an error."""


class Full(msgspec.Struct, frozen=True):
    """How full a queue was that took nothing more."""

    queue: str
    depth: int
    age: int
    retry_after: int
    """Microseconds after which there may be room."""
    late: int | None = None
    """The bound of age, in microseconds, where it is that and not the depth by which the queue is full."""


RETRY_LEAST, RETRY_MOST = 1_000_000, 60_000_000


def fullness(queue: str, bounds: Bounds, depth: int, age: int) -> Full | None:
    """Whether a queue takes another job, with `depth` in line (counted up to its bound) of which the first has been due
    for `age`; if not, when it may.

    By Little's law, a line of L jobs whose first has waited W moves at L/W jobs a second: one place is free after W/L.
    A line that is too old needs as long as it is over its bound.
    """
    deep = bounds.depth is not None and depth >= bounds.depth
    old = bounds.age is not None and age > bounds.age
    if not (deep or old):
        return None
    wait = max(age // max(depth, 1) if deep else 0, age - bounds.age if old and bounds.age is not None else 0)
    return Full(queue, depth, age, min(max(wait, RETRY_LEAST), RETRY_MOST), None if deep else bounds.age)


def due_at(job: NewJob, now: int) -> int:
    """When a job is due that is enqueued now."""
    return job.at if job.at is not None else now + job.after


class Line:
    """How full the bounded queues are while a batch goes in: as they were before it, and what of it went in so far."""

    def __init__(self, bounds: dict[str, Bounds]) -> None:
        self.bounds = bounds
        self._seen: dict[str, tuple[int, int]] = {}

    def looks(self, queue: str, depth: int, age: int) -> None:
        """Say how full a queue is; `depth` need not be counted past its bound, and is 0 where there is none."""
        self._seen[queue] = (depth, age)

    def take(self, job: NewJob, now: int) -> Full | None:
        """A place for one more job, if it needs one; or how full its queue is."""
        bounds = self.bounds.get(job.queue)
        if bounds is None or due_at(job, now) > now:
            return None
        depth, age = self._seen[job.queue]
        full = fullness(job.queue, bounds, depth, age)
        if full is None:
            self._seen[job.queue] = (depth + 1, age)
        return full

    def has_room_for(self, jobs: Sequence[NewJob], now: int) -> bool:
        """Whether every one of these may go in, one after the other; takes nothing."""
        trial = Line(self.bounds)
        trial._seen = dict(self._seen)
        return all(trial.take(job, now) is None for job in jobs)
