"""The relay: hands on what lies in the application's outbox to the store that runs it, by one supervisor at a time.

As a copy (copier.py), in three steps, each of which may be sent again: set aside in the outbox, under a number that
grows; delivered once under that number; forgotten in the outbox.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import uuid4

from windlass.core.errors import StoreError
from windlass.core.job import NewJob
from windlass.ports import envelope
from windlass.ports.store import Departure, Opened, PruneRules
from windlass.runtime.logs import Log
from windlass.runtime.service import Clock, SystemClock

NAME = "relay"
TTL = 15.0
"""Seconds that a leader may be silent before another takes its place."""
BATCH = 200
IDLE = 0.1
"""Seconds from one look into an empty outbox to the next: what is committed there starts about so much later."""
LOOK_AT_LEAST_EVERY = 5.0
TIDY = 60.0
"""Seconds between two walks over the ids that it remembers, which it does for a day."""

log = Log("relay")


class Relay:
    """A Service, in a thread of its own: an outbox that does not answer is to keep nobody waiting."""

    name = NAME

    def __init__(
        self, opened: Opened, open_outbox: Callable[[], Opened], holder: str, clock: Clock | None = None
    ) -> None:
        """`open_outbox` opens the store in the application's database."""
        self._target = opened
        self._open = open_outbox
        self._holder = holder
        self._clock = clock or SystemClock()
        self._outbox: Opened | None = None
        self._from = self._to = ""
        self._stay: list[str] = []
        self._leading_until = 0.0
        self._tidy_at = 0.0
        self._changed: int | None = None
        self._looked_at = 0.0

    def start(self) -> None:
        """See Service."""

    def stop(self) -> None:
        """Let another supervisor lead at once."""
        try:
            if self._leading_until > 0:
                self._target.shell.run(self._target.store.resign(NAME, self._holder))
        finally:
            if self._outbox is not None:
                self._outbox.close()

    def tick(self) -> float:
        """See Service."""
        if not self._lead():
            return TTL / 3
        outbox = self._have_outbox()
        if not self._may_have_more(outbox):
            return IDLE
        departure = outbox.shell.run(outbox.store.depart(self._to, BATCH, self._stay))
        if not (departure.jobs or departure.schedules):
            self._tidy(outbox)
            return IDLE
        jobs = self._jobs(departure)
        self._target.shell.run(self._target.store.deliver(self._from, departure.number, jobs))
        names = [each.job.id for each in departure.jobs] + [each.said.name for each in departure.schedules]
        back = [name for name in names if name in set(self._stay)]
        outbox.shell.run(outbox.store.dismiss([name for name in names if name not in back], back))
        self._changed = None  # there may be more of it
        return 0.0

    def _may_have_more(self, outbox: Opened) -> bool:
        """Whether anything was committed in that database since: to look into the outbox takes its locks."""
        changed, now = outbox.shell.changed(), self._clock.monotonic()
        if changed == self._changed and now - self._looked_at < LOOK_AT_LEAST_EVERY:
            return False
        self._changed, self._looked_at = changed, now
        return True

    def _have_outbox(self) -> Opened:
        if self._outbox is None:
            outbox = self._open()
            try:
                outbox.shell.run(outbox.store.migrate())
                self._from = outbox.shell.run(outbox.store.identity(uuid4().hex))
                self._to = self._target.shell.run(self._target.store.identity(uuid4().hex))
            except BaseException:
                outbox.close()
                raise
            self._outbox = outbox
        return self._outbox

    def _jobs(self, departure: Departure) -> Sequence[NewJob]:
        """What is in the envelopes. What is none, as somebody enqueued to the outbox itself, stays there."""
        found = []
        for each in departure.jobs:
            job = envelope.opened(each.job.payload) if each.job.task == envelope.TASK else None
            if job is not None and not each.job.state.terminal:
                found.append(job)
            elif each.job.id not in self._stay:
                self._stay.append(each.job.id)
                log.error("this is no envelope, and stays in the outbox", job=each.job.id, task=each.job.task)
        self._stay += [each.said.name for each in departure.schedules]
        return found

    def _lead(self) -> bool:
        now = self._clock.monotonic()
        if now < self._leading_until - TTL * 2 / 3:
            return True
        lead = self._target.shell.run(self._target.store.lead(NAME, self._holder, round(TTL * 1e6)))
        self._leading_until = now + TTL if lead.leading else 0.0
        return lead.leading

    def _tidy(self, outbox: Opened) -> None:
        if self._clock.monotonic() < self._tidy_at:
            return
        self._tidy_at = self._clock.monotonic() + TIDY
        try:
            outbox.shell.run(outbox.store.prune(PruneRules(), BATCH))
        except StoreError as problem:
            log.debug("could not tidy up the outbox", problem=problem)
