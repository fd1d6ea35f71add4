"""The copier behind `windlass store copy`: moves what one store holds to another, while both are at work.

No transaction spans two stores. What leaves is set aside at the source, arrives at the target, is forgotten at the
source. Killed anywhere in between, the next copier begins with what is set aside; the target knows what has arrived.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar
from uuid import uuid4

import msgspec

from windlass.core.errors import ConfigError, OutcomeUnknown, StoreError, StoreUnavailable
from windlass.ports.parcel import Arrival, Tally, Word
from windlass.ports.plan import Plan
from windlass.ports.store import LeftKey, Opened

T = TypeVar("T")

BATCH = 200
"""Jobs in one step: while it sets them aside the source does nothing else, SQLite for 7 ms, PostgreSQL for 16 ms; for
1,000 jobs 28 ms and 69 ms, and all of it takes two thirds of the time."""
KEYS = 5_000
PATIENCE = 30.0
"""Seconds for one step; workers of both sides are in its way now and then."""
BETWEEN = 0.2
"""Seconds until a step that a store could not take is sent again."""
MOVED = frozenset({Word.MOVED, Word.KEYLESS})


class Report(msgspec.Struct, kw_only=True):
    """How a copy went, and what is left of the source."""

    moved: int = 0
    present: int = 0
    """Jobs that an earlier copier had brought already."""
    schedules: int = 0
    refused: list[Arrival] = []
    """What stays at the source, or left something behind, and whose key was in the way."""
    running: int = 0
    waiting: int = 0
    """Jobs that have not left, though they do not run."""
    ticking: int = 0
    """Schedules that have not left, and are not paused."""
    departed: Tally = Tally()
    arrived: Tally = Tally()

    @property
    def verified(self) -> bool:
        """Whether all that ever left for this target has arrived there: by count, and by checksum."""
        return self.departed == self.arrived

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.verified and not (self.running or self.waiting or self.ticking or self.refused)


class Copier:
    """Moves everything from one store to another, in steps that can be killed."""

    def __init__(
        self, source: Opened, target: Opened, batch: int = BATCH, tell: Callable[[Report], None] = lambda _: None
    ) -> None:
        """`batch` is how many jobs one step moves, about; `tell` is called after every step. Raises ConfigError where
        the two are one store."""
        self._source = source
        self._target = target
        self._batch = batch
        self._tell = tell
        self.report = Report()
        _run(source, source.store.migrate())
        _run(target, target.store.migrate())
        self._from = _run(source, source.store.identity(uuid4().hex))
        self._to = _run(target, target.store.identity(uuid4().hex))
        if self._from == self._to:
            raise ConfigError("TO is the same store as FROM, by another URL or as a copy of its file; name another one")

    def run(self) -> Report:
        """Move until nothing can leave any more; raises what a store raises when it stays away."""
        self._copy_standing()
        stay: list[str] = []
        while self._step(stay):
            self._tell(self.report)
        self._copy_standing()  # once more: what was pruned meanwhile has left its keys behind
        self._look()
        return self.report

    def _step(self, stay: list[str]) -> bool:
        """One batch, there and forgotten here; answers whether there was one."""
        source, target = self._source, self._target
        departure = _run(source, source.store.depart(self._to, self._batch, stay))
        if not (departure.jobs or departure.schedules):
            return False
        arrivals = _run(target, target.store.arrive(self._from, departure))
        back = [each.id for each in arrivals if each.word in {Word.CONFLICT, Word.UNFIT}]
        gone = [each.id for each in arrivals if each.id not in set(back)]
        left = _run(source, source.store.dismiss(gone, back))
        if left:
            raise StoreError(f"job {left[0]} is set aside and fits neither store any more: another job has its key")
        stay += back
        self._count(arrivals, {each.said.name for each in departure.schedules})
        return True

    def _count(self, arrivals: list[Arrival], schedules: set[str]) -> None:
        report = self.report
        jobs = [each for each in arrivals if each.id not in schedules]
        report.moved += sum(each.word in MOVED for each in jobs)
        report.present += sum(each.word is Word.PRESENT for each in jobs)
        report.schedules += sum(each.word is Word.MOVED for each in arrivals if each.id in schedules)
        odd = {Word.CONFLICT, Word.UNFIT, Word.KEYLESS}
        report.refused += [each for each in jobs if each.word in odd]
        report.refused += [each for each in arrivals if each.id in schedules and each.word is not Word.MOVED]

    def _copy_standing(self) -> None:
        source, target = self._source, self._target
        after: LeftKey | None = None
        while True:
            standing = _run(source, source.store.standing(after, KEYS))
            _run(target, target.store.adopt(standing))
            if len(standing.keys) < KEYS:
                return
            after = standing.keys[-1]

    def _look(self) -> None:
        source, target, report = self._source, self._target, self.report
        states = _run(source, source.store.stats(exact=True)).states
        report.running = states["running"]
        report.waiting = sum(states.values()) - report.running
        report.ticking = sum(not each.paused for each in _run(source, source.store.schedules()))
        report.departed, _ = _run(source, source.store.tallies(self._to))
        _, report.arrived = _run(target, target.store.tallies(self._from))


def _run(opened: Opened, plan: Plan[T]) -> T:
    """Each step may be sent again: what was set aside, has arrived or is forgotten is answered as such."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return opened.shell.run(plan, PATIENCE)
        except (OutcomeUnknown, StoreUnavailable):
            if time.monotonic() + BETWEEN > deadline:
                raise
            time.sleep(BETWEEN)
