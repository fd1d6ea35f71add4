"""The scheduler: turns the ticks of schedules into jobs, at their instants, by the store's clock and no other.

Any number of them may run. The store lets only one deal with a tick, so that the lead is nothing but a way not to ask
for everything several times: who does not have it, or cannot ask for it, stands in for a leader that is late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from windlass.core.errors import OutcomeUnknown, StoreError, StoreUnavailable, WindlassError
from windlass.core.schedule import Definition, Due, Overlap, due, read, tick_job
from windlass.core.words import instant
from windlass.ports.plan import batches
from windlass.ports.store import Fired, Opened, Schedule, ScheduleChange, Tick
from windlass.runtime import zones
from windlass.runtime.logs import Log
from windlass.runtime.service import Clock, SystemClock

NAME = "scheduler"
TTL = 15.0
"""Seconds that a leader may be silent before another takes its place."""
POLL = 1.0
"""Schedules may change at any time, so they are looked at this often."""
STAND_IN = 2.0
"""Seconds by which a tick is late before those that do not lead fire it."""
MARGIN = 0.0005
"""Seconds past its instant when a tick is looked for: a wait may end a little early."""
LIMIT = 100
BATCH = 100
"""Ticks of one transaction: a schedule that catches up ten thousand must not keep writers waiting."""
SHOW_EVERY = 60.0
"""Seconds between two times that the code's schedules are shown to the store."""
COMPLAIN_EVERY = 60.0
PUT_OFF = 60_000_000
"""Microseconds until a schedule that this version cannot deal with is looked at again."""

log = Log("scheduler")


class Scheduler:
    """A Service: fires what is due, and shows the store what schedules the code defines."""

    name = NAME

    def __init__(
        self, opened: Opened, holder: str, defined: Sequence[ScheduleChange] = (), clock: Clock | None = None
    ) -> None:
        """`holder` names it when it leads; `defined` are the schedules of the application's code."""
        self._opened = opened
        self._holder = holder
        self._defined = tuple(defined)
        self._clock = clock or SystemClock()
        self._leading = False
        self._standing_in_until = 0.0
        """The leader was late with a tick: until then nobody waits for it."""
        self._ask_again = 0.0
        self._show_again = 0.0
        self._complained: dict[str, float] = {}

    def start(self) -> None:
        """See Service."""

    def stop(self) -> None:
        """Let another lead at once."""
        if self._leading:
            self._opened.shell.run(self._opened.store.resign(NAME, self._holder))

    def define(self, defined: Sequence[ScheduleChange]) -> None:
        """What the code defines by now; from any thread."""
        if tuple(defined) != self._defined:
            self._defined = tuple(defined)
            self._show_again = 0.0

    def tick(self) -> float:
        """See Service."""
        self._show()
        self._lead()
        store, run = self._opened.store, self._opened.shell.run
        patience = self._patience()
        found = run(store.due(LIMIT))
        ticks: list[Tick] = []
        for schedule in found.schedules:
            if found.now - (schedule.next_at or 0) >= patience:
                if patience:
                    self._standing_in_until = self._clock.monotonic() + TTL
                ticks += self._look(schedule, found.now)
            if len(ticks) >= BATCH:
                self._fire(ticks, found.now)
                ticks = []
        self._fire(ticks, found.now)
        if found.schedules:  # what was dealt with has another instant now, and time has passed
            found = run(store.due(1))
        following = found.schedules[0].next_at if found.schedules else found.next_at
        if following is None:
            return POLL
        return min(POLL, max(0.0, (following - found.now + self._patience()) / 1e6) + MARGIN)

    def _patience(self) -> int:
        """Microseconds by which a tick is left to the leader."""
        alone = self._leading or self._clock.monotonic() < self._standing_in_until
        return 0 if alone else round(STAND_IN * 1e6)

    # --- leading -----------------------------------------------------------------------------------------------------

    def _lead(self) -> None:
        # Renewed at a third of its time, not every tick: an idle store is written to as rarely as can be.
        now = self._clock.monotonic()
        if now < self._ask_again:
            return
        self._ask_again = now + TTL / 3
        self._leading = False
        try:
            plan = self._opened.store.lead(NAME, self._holder, round(TTL * 1e6))
            self._leading = self._opened.shell.run(plan).leading
        except StoreError as problem:
            self._complain("lead", "could not ask for the lead", problem)

    def _show(self) -> None:
        now = self._clock.monotonic()
        defined = self._defined  # `define` may be called meanwhile
        if now < self._show_again or not defined:
            return
        self._show_again = now + SHOW_EVERY
        try:
            answers = self._opened.shell.run(self._opened.store.change_schedules(defined))
        except StoreError as problem:  # must not keep the ticks of those that are stored from being fired
            self._show_again = now + POLL
            self._complain("show", "could not show the store the code's schedules", problem)
            return
        for change, answer in zip(defined, answers, strict=True):
            if answer.word in ("created", "replaced"):
                log.info("schedule defined by the code", schedule=change.name, how=answer.word)
            elif answer.word == "superseded":
                newer = f"a newer definition of schedule {change.name!r} is in the store, by newer code or a person"
                self._complain(f"superseded {change.name}", newer)

    # --- ticks -------------------------------------------------------------------------------------------------------

    def _look(self, schedule: Schedule, now: int) -> list[Tick]:
        """What is to be done about a schedule that is due; what is wrong with it stops no other (I23)."""
        try:
            definition = read(schedule.definition)
            zone = zones.load(definition.rule.timezone)
            found = due(definition.rule, schedule.cursor, now, zone)
            if found.dropped is not None:
                message = f"schedule {schedule.name} missed ticks, and its catch_up drops them"
                self._complain(f"missed {schedule.name}", message, f"from {instant(found.dropped)} on")
            return _ticks(schedule, definition, found)
        except (WindlassError, msgspec.DecodeError, ValueError, ArithmeticError) as problem:
            self._complain(schedule.name, f"schedule {schedule.name} cannot be dealt with here", problem)
            # Looked at again later, perhaps by a version that can, and not before all others every time.
            return [_tick(schedule, schedule.cursor, schedule.cursor, now + PUT_OFF)]

    def _fire(self, ticks: Sequence[Tick], now: int) -> None:
        for batch in batches(ticks, BATCH):
            try:
                self._send(batch)
            except (StoreUnavailable, OutcomeUnknown):
                raise
            except StoreError:
                for tick in batch:  # the guilty one alone
                    self._fire_alone(tick, now)

    def _fire_alone(self, tick: Tick, now: int) -> None:
        try:
            self._send([tick])
        except (StoreUnavailable, OutcomeUnknown):
            raise
        except StoreError as problem:
            self._complain(tick.schedule, f"the store refuses a tick of schedule {tick.schedule}", problem)
            at = msgspec.structs.replace(tick, to=tick.cursor, next_at=now + PUT_OFF, job=None)
            self._send([at])

    def _send(self, ticks: Sequence[Tick]) -> None:
        answers = self._opened.shell.run(self._opened.store.fire(ticks))
        for tick, answer in zip(ticks, answers, strict=True):
            if answer is Fired.SKIPPED:
                log.info("a tick is skipped: the one before it has not ended", **_told(tick))
            elif answer in (Fired.STALE, Fired.EARLY):
                log.debug("a tick is not fired", **_told(tick), because=answer.value)

    def _complain(self, about: str, message: str, problem: object = None) -> None:
        now = self._clock.monotonic()
        if now >= self._complained.get(about, now):
            log.warning(message, **({} if problem is None else {"problem": problem}))
            self._complained[about] = now + COMPLAIN_EVERY


def _ticks(schedule: Schedule, definition: Definition, found: Due) -> list[Tick]:
    rule = definition.rule
    # Missed ticks that are made up for wait for each other; skipped for one another, they would be missed again.
    overlap = Overlap.QUEUE if found.caught_up and rule.overlap is Overlap.SKIP else rule.overlap
    ticks, cursor = [], schedule.cursor
    for at, following in zip(found.ticks, (*found.ticks[1:], found.next), strict=False):
        job = tick_job(schedule.name, schedule.revision, definition, at)
        tick = _tick(schedule, cursor, at, following)
        ticks.append(msgspec.structs.replace(tick, job=job, overlap=overlap.value))
        cursor = at
    return ticks or [_tick(schedule, schedule.cursor, found.cursor, found.next)]


def _told(tick: Tick) -> dict[str, Any]:
    return {"schedule": tick.schedule, "tick": instant(tick.to)}


def _tick(schedule: Schedule, cursor: int, to: int, following: int | None) -> Tick:
    return Tick(schedule=schedule.name, revision=schedule.revision, cursor=cursor, to=to, next_at=following)
