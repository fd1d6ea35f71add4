"""What the memory store remembers: dicts of frozen values, whose changes can be taken back."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

import msgspec

from windlass.core.job import Attempt, Held, Job, KeyLimit, LogLine, NewJob, State
from windlass.core.lead import Lead
from windlass.ports.parcel import Parcel, Tally
from windlass.ports.store import QueueRules, Scheduled, WorkerReport

K = TypeVar("K")
V = TypeVar("V")

replace = msgspec.structs.replace


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A job: what was asked, and where it stands."""

    seq: int
    """The order of enqueue."""
    new: NewJob
    payload: str
    state: State
    created_at: int
    due_at: int
    rank: int
    expires_at: int | None
    limits: tuple[KeyLimit, ...] = ()
    blocked_by: KeyLimit | None = None
    parked_until: int | None = None
    reason: str | None = None
    attempt: int = 0
    crashes: int = 0
    losses: int = 0
    suspect: bool = False
    fence: int = 0
    worker: str | None = None
    grant: int = 0
    """The seq of the claim that granted it."""
    started_at: int | None = None
    finished_at: int | None = None
    cancelling: bool = False
    stops_children: bool = False
    """It was cancelled with its children: what it still enqueues is cancelled as it comes."""
    result: str | None = None
    result_until: int | None = None
    result_expired: bool = False
    error: str | None = None
    progress: str | None = None

    @property
    def waits(self) -> bool:
        """Neither running nor ended."""
        return self.state is not State.RUNNING and not self.state.terminal

    @property
    def comes_due(self) -> int:
        """When it is looked at next; a parked job keeps the due time that it was enqueued with beside that."""
        return self.due_at if self.parked_until is None else self.parked_until

    def as_job(self) -> Job:
        return Job(**self._named(Job) | {"due_at": self.comes_due})

    def as_held(self) -> Held:
        return Held(**self._named(Held))

    def _named(self, record: type[Job | Held]) -> dict[str, Any]:
        known = msgspec.structs.asdict(self.new) | msgspec.structs.asdict(self)
        return {name: known[name] for name in record.__struct_fields__}


class Key(msgspec.Struct, frozen=True):
    """Who owns an idempotency key; `ended_at` is set once the owner itself is gone."""

    owner: str
    digest: str
    ended_at: int | None = None


class Owner(msgspec.Struct, frozen=True):
    """Who has a unique key, and who comes after; `live` is False where only a throttle's window is left of it."""

    id: str
    successor: str | None = None
    until: int | None = None
    live: bool = True
    away: bool = False
    """It went to another store; as far as this one knows, it lives."""


class SetAside(msgspec.Struct, frozen=True):
    """A job or a schedule on its way to another store."""

    number: int
    """Of the departure."""
    n: int
    target: str
    what: Parcel | Scheduled


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's lease on itself."""

    report: WorkerReport
    started_at: int
    since: int
    """When its unbroken series of beats began."""
    beat_at: int
    lease_until: int
    taken: bool = False
    closed: int = 0
    """Claims up to this seq grant nothing any more."""


class Table(dict[K, V], Generic[K, V]):
    """A dict that writes down what it replaces, so that a failed transaction can be undone."""

    def __init__(self, journal: list[tuple[Table[Any, Any], Any, Any]]) -> None:
        super().__init__()
        self._journal = journal

    def __setitem__(self, key: K, value: V) -> None:
        self._journal.append((self, key, self.get(key)))
        self.place(key, value)

    def __delitem__(self, key: K) -> None:
        self._journal.append((self, key, self[key]))
        self.place(key, None)

    def pop_if_there(self, key: K) -> None:
        """Remove what may not be there."""
        if key in self:
            del self[key]

    def place(self, key: K, value: V | None) -> None:
        """Put or remove, unrecorded."""
        if value is None:
            self.pop(key, None)
        else:
            super().__setitem__(key, value)


Place = tuple[Hashable, int]
"""A line of jobs, and the place in it."""


def _behind(row: Row, limit: KeyLimit) -> Place:
    return (limit.key, row.suspect, row.new.queue, limit.most), row.rank


LINES: dict[str, Callable[[Row], Place | None]] = {
    "all": lambda r: (None, r.seq),
    "ready": lambda r: ((r.suspect, r.new.queue), r.rank) if r.state is State.QUEUED else None,
    "blocked": lambda r: _behind(r, r.blocked_by) if r.blocked_by else None,
    "due": lambda r: (None, r.comes_due) if r.state in {State.SCHEDULED, State.RETRYING} else None,
    "expiring": lambda r: (None, r.expires_at) if r.waits and r.expires_at is not None else None,
    "held": lambda r: (r.worker, r.started_at or 0) if r.state is State.RUNNING else None,
    "ended": lambda r: (r.state, r.finished_at or 0) if r.state.terminal else None,
    "result": lambda r: (None, r.result_until) if r.result_until is not None else None,
}
"""Which lines a job stands in follows from its row alone, so no line can disagree with the row (I3)."""


class Jobs(Table[str, Row]):
    """The rows by id, and the lines they stand in, each sorted, equal places in the order of enqueue."""

    def __init__(self, journal: list[tuple[Table[Any, Any], Any, Any]]) -> None:
        super().__init__(journal)
        self.lines: dict[tuple[str, Hashable], list[tuple[int, int, str]]] = {}

    def place(self, key: str, value: Row | None) -> None:
        """Put or remove, unrecorded, in the lines as well."""
        old = self.get(key)
        super().place(key, value)
        for name, place_of in LINES.items():
            before = place_of(old) if old else None
            after = place_of(value) if value else None
            if before != after:
                if old and before:
                    self._leave(name, before, old)
                if value and after:
                    insort(self.lines.setdefault((name, after[0]), []), (after[1], value.seq, key))

    def _leave(self, name: str, place: Place, row: Row) -> None:
        line = self.lines[name, place[0]]
        del line[bisect_left(line, (place[1], row.seq))]
        if not line:
            del self.lines[name, place[0]]

    def line(self, name: str, which: Hashable = None, most: int | None = None) -> list[Row]:
        """The first `most` jobs of a line; a copy, so that they may be moved while it is walked."""
        return [self[entry[2]] for entry in self.lines.get((name, which), [])[:most]]

    def until(self, name: str, now: int, most: int | None = None, which: Hashable = None) -> list[Row]:
        """The jobs of a line whose place is `now` or before."""
        line = self.lines.get((name, which), [])
        return self.line(name, which, min(bisect_left(line, (now + 1,)), len(line) if most is None else most))

    def first(self, name: str, which: Hashable = None) -> int | None:
        """The first place of a line, if anybody stands in it."""
        line = self.lines.get((name, which))
        return line[0][0] if line else None

    def before(self, row: Row) -> int:
        """How many claimable jobs of its queue and kind would be granted before this one."""
        return bisect_left(self.lines.get(("ready", (row.suspect, row.new.queue)), []), (row.rank, row.seq))

    def backwards(self, before: int | None) -> Iterator[Row]:
        """Every job, the last enqueued first, from below the order number `before`."""
        line = self.lines.get(("all", None), [])
        end = len(line) if before is None else bisect_left(line, (before,))
        return (self[entry[2]] for entry in reversed(line[:end]))


class Tables:
    """All of it, with one journal."""

    def __init__(self) -> None:
        self._journal: list[tuple[Table[Any, Any], Any, Any]] = []
        self.jobs = Jobs(self._journal)
        self.attempts: Table[str, tuple[Attempt, ...]] = Table(self._journal)
        self.logs: Table[str, tuple[LogLine, ...]] = Table(self._journal)
        self.first_results: Table[str, dict[str, str]] = Table(self._journal)
        self.keys: Table[tuple[str, str, str], Key] = Table(self._journal)
        self.owners: Table[tuple[str, str, str], Owner] = Table(self._journal)
        self.merged: Table[str, str] = Table(self._journal)
        """Jobs that took the place of another, and whose place that was."""
        self.workers: Table[str, Worker] = Table(self._journal)
        self.rules: Table[str, QueueRules] = Table(self._journal)
        self.leads: Table[str, tuple[Lead, ...]] = Table(self._journal)
        """By name, one for each slot that was ever taken."""
        self.terms: Table[str, int] = Table(self._journal)
        """The greatest one that was forgotten, under one name."""
        self.schedules: Table[str, Scheduled] = Table(self._journal)
        self.revisions: Table[str, int] = Table(self._journal)
        """The greatest one that was forgotten, under one name."""
        self.identity: Table[str, str] = Table(self._journal)
        """The name of this store, under one name."""
        self.departing: Table[str, SetAside] = Table(self._journal)
        self.departed: Table[str, int] = Table(self._journal)
        """Jobs that went to another store, and when."""
        self.departures: Table[str, int] = Table(self._journal)
        """How many left from here, under no name; the last one that came from each other store, under its."""
        self.tallies: Table[str, Tally] = Table(self._journal)
        self.enqueued = 0

    def commit(self) -> bool:
        """What was changed stays; answers whether anything was."""
        changed = bool(self._journal)
        self._journal.clear()
        return changed

    def roll_back(self) -> None:
        """Undo every change since the last commit, the latest first."""
        while self._journal:
            table, key, value = self._journal.pop()
            table.place(key, value)
