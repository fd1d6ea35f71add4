"""The judge of schedules (I11): each tick is dealt with once, whoever and however many fire it, and none is forgotten.

Which instants are ticks, which may be passed over and what a store must refuse is worked out here a second time, from
the definition alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from windlass.core.job import NewJob, State
from windlass.core.schedule import CatchUp, Rule, read
from windlass.ports.store import Fired, Schedule, ScheduleChange, ScheduleChanged, Tick
from windlass.testing.simulation.judge import Judge
from windlass.testing.simulation.scheduler import SECOND

if TYPE_CHECKING:
    from windlass.testing.simulation.checker import Checker
    from windlass.testing.simulation.ledger import Commit
    from windlass.testing.simulation.world import Dump

MINUTE = 60 * SECOND
MISSED = MINUTE
"""How late a tick must be to count as missed."""
IN_TIME = 4 * SECOND
"""How late a tick may be fired: the patience of those that do not lead, and two looks."""
EVERY_MINUTE = "* * * * *"
"""The one expression that is simulated; the others have oracles of their own."""
SHOWN = 180 * SECOND
REMEMBERED = 20
REFUSALS = (Fired.ALREADY, Fired.STALE, Fired.EARLY)


class Timetable:
    """A schedule as the ledger tells it."""

    def __init__(self, change: ScheduleChange, line: Commit) -> None:
        self.change = change
        self.rule: Rule = read(change.definition).rule
        self.revision = 0
        self.cursor = line.at
        self.paused = False
        self.origin = change.origin
        self.shown_at = line.at if change.origin == "code" else None
        self.past: tuple[str, ...] = ()
        self.dealt: set[int] = set()
        """Ticks of this revision that became something."""
        self.jobs: list[str] = []
        self.fired = self.skipped = 0

    def copy(self) -> Timetable:
        """One that can change by itself."""
        made = Timetable.__new__(Timetable)
        made.__dict__.update(self.__dict__)
        made.dealt, made.jobs = set(self.dealt), list(self.jobs)
        return made

    def define(self, change: ScheduleChange, at: int) -> None:
        """It has another definition."""
        past = [digest for digest in (*self.past, self.change.digest) if digest != change.digest]
        self.past = tuple(past[-REMEMBERED:])
        if change.timing != self.change.timing:
            self.cursor = max(self.cursor, at)
        by_code = change.origin == "code"
        if by_code or self.origin != "operator":
            self.origin = "code" if by_code else "edited"
        self.change, self.rule, self.dealt = change, read(change.definition).rule, set()


class Ticks(Judge):
    """See the head of this file."""

    def __init__(self, checker: Checker) -> None:
        super().__init__(checker)
        self.known: dict[str, Timetable] = {}
        self._revisions: dict[str, int] = {}
        """The greatest that a name ever had."""
        self._of: dict[str, tuple[str, int, int]] = {}
        """The tick from which a job came."""

    # --- changes -----------------------------------------------------------------------------------------------------

    def _on_change_schedules(
        self, line: Commit, changes: Sequence[ScheduleChange], answers: Sequence[ScheduleChanged]
    ) -> None:
        for change, answer in zip(changes, answers, strict=True):
            known = self.known.get(change.name)
            word = _word(known, change, line.at)
            if answer.word != word:
                self.checker.broken("I11", line, f"{change.action} of {change.name} is {answer.word}, and not {word}")
            self._change(line, known, change, answer)

    def _change(self, line: Commit, known: Timetable | None, change: ScheduleChange, answer: ScheduleChanged) -> None:
        if answer.word == "deleted":
            self.known.pop(change.name, None)
            return
        if answer.word == "created":
            known = self.known[change.name] = Timetable(change, line)
        if known is None or answer.schedule is None:
            return
        if answer.word == "replaced":
            known.define(change, line.at)
        if answer.word in ("paused", "resumed"):
            known.paused = answer.word == "paused"
        if answer.word == "resumed":
            known.cursor = max(known.cursor, line.at)
        if answer.word in ("created", "replaced", "unchanged") and change.origin == "code" and change.action == "put":
            known.origin, known.shown_at = "code", line.at
        self._revise(line, known, answer)
        self._compare(line, known, answer.schedule)

    def _revise(self, line: Commit, known: Timetable, answer: ScheduleChanged) -> None:
        schedule = answer.schedule
        assert schedule is not None
        last = self._revisions.get(schedule.name, 0)
        if answer.word in ("created", "replaced"):
            if schedule.revision <= last:
                text = f"{schedule.name} is {answer.word} as revision {schedule.revision} after {last}"
                self.checker.broken("I11", line, text)
            known.revision = schedule.revision
            self._revisions[schedule.name] = max(last, schedule.revision)

    def _compare(self, where: Commit | None, known: Timetable, said: Schedule) -> None:
        told = (known.revision, known.cursor, known.paused, known.origin, known.fired, known.skipped)
        found = (said.revision, said.cursor, said.paused, said.origin, said.fired, said.skipped)
        if found != told:
            self.checker.broken("I11", where, f"{said.name} stands at {found}, the ledger says {told}")

    # --- ticks -------------------------------------------------------------------------------------------------------

    def _on_fire(self, line: Commit, ticks: Sequence[Tick], answers: Sequence[Fired]) -> None:
        for tick, answer in zip(ticks, answers, strict=True):
            known = self.known.get(tick.schedule)
            expected = _refusal(known, tick, line.at)
            if expected is not (answer if answer in REFUSALS else None):
                text = f"tick {tick.to} of {tick.schedule} is {answer}, and the ledger says {expected or 'it is free'}"
                self.checker.broken("I11", line, text)
            if known is not None and answer not in REFUSALS:
                self._dealt(line, known, tick, answer)

    def _dealt(self, line: Commit, known: Timetable, tick: Tick, answer: Fired) -> None:
        if tick.manual and tick.job is not None and tick.job.id in self.checker.jobs:
            return  # sent again
        if not tick.manual:
            self._moved(line, known, tick)
        if tick.job is None:
            return
        if not tick.manual:
            self._once(line, known, tick, tick.job)
        known.fired += answer is Fired.FIRED
        known.skipped += answer is Fired.SKIPPED
        self._overlapped(line, known, tick, answer)
        if answer is Fired.FIRED:
            self.checker.store(line, tick.job)
            known.jobs.append(tick.job.id)

    def _moved(self, line: Commit, known: Timetable, tick: Tick) -> None:
        """Whether what the cursor passes over may be passed over."""
        rule, broken = known.rule, self.checker.broken
        passed = _between(rule, known.cursor, tick.to - (tick.job is not None))
        known.cursor = tick.to
        if not passed:
            return
        shown = self.checker.shown(line, 0.0)
        if passed[-1] > shown - MISSED:
            broken("I11", line, f"{tick.schedule} passes over {passed}, and the last is merely late")
        elif rule.catch_up is CatchUp.ALL:
            made_up = len(_between(rule, tick.to - 1, shown))
            if tick.job is None or made_up < rule.catch_up_limit:
                broken("I11", line, f"{tick.schedule} passes over {passed}, {rule.catch_up_limit} may be late")
        elif tick.job is None and rule.catch_up is CatchUp.LATEST:
            broken("I11", line, f"{tick.schedule} passes over {passed} and fires none of them")

    def _once(self, line: Commit, known: Timetable, tick: Tick, job: NewJob) -> None:
        this, broken = (tick.schedule, tick.revision, tick.to), self.checker.broken
        if not _between(known.rule, tick.to - 1, tick.to):
            broken("I11", line, f"{tick.to} is no tick of {tick.schedule}")
        if tick.to in known.dealt or self._of.setdefault(job.id, this) != this:
            broken("I11", line, f"tick {this} was dealt with before, its job is {job.id}")
        known.dealt.add(tick.to)

    def _overlapped(self, line: Commit, known: Timetable, tick: Tick, answer: Fired) -> None:
        """What became of the jobs that came before."""
        checker = self.checker
        lives = [checker.lives(line, id) for id in known.jobs]
        if answer is Fired.SKIPPED and not (tick.overlap == "skip" and (True in lives or None in lives)):
            checker.broken("I11", line, f"tick {tick.to} of {tick.schedule} is skipped, and nobody is in its way")
        if answer is Fired.FIRED and tick.overlap == "skip" and True in lives:
            checker.broken("I11", line, f"tick {tick.to} of {tick.schedule} is fired beside the one before it")
        if answer is Fired.FIRED and tick.overlap == "cancel-previous":
            for id in known.jobs:
                job = checker.jobs.get(id)
                if job is not None and job.holder is not None:
                    job.ask(line)
                elif job is not None and job.ended is None:
                    checker.end(line, job, State.CANCELLED)

    # --- the end -----------------------------------------------------------------------------------------------------

    def final(self, dump: Dump) -> None:
        """See Judge."""
        there = {schedule.name: schedule for schedule in dump.schedules}
        for name in there.keys() ^ self.known.keys():
            self.checker.broken("I11", None, f"schedule {name} is in one of store and ledger only")
        for name in there.keys() & self.known.keys():
            known = self.known[name]
            self._compare(None, known, there[name])
            left = [] if known.paused else _between(known.rule, known.cursor, dump.now - IN_TIME)
            if left:
                self.checker.broken("I11", None, f"ticks of {name} that nobody has dealt with: {left[:3]}")


def _word(known: Timetable | None, change: ScheduleChange, at: int) -> str:
    """How a change must go."""
    if change.action != "put":
        if known is None:
            return "missing"
        if change.action == "delete":
            return "deleted"
        pause = change.action == "pause"
        return "unchanged" if known.paused is pause else "paused" if pause else "resumed"
    if known is None:
        return "created"
    if change.digest == known.change.digest:
        return "unchanged"
    forgotten = known.origin == "code" and known.shown_at is not None and at - known.shown_at > SHOWN
    old = change.origin == "code" and change.digest in known.past
    return "superseded" if old and not forgotten else "replaced"


def _refusal(known: Timetable | None, tick: Tick, at: int) -> Fired | None:
    """Why a tick must not be taken."""
    if known is None:
        return Fired.STALE
    if tick.manual:
        return None
    if known.paused or known.revision != tick.revision:
        return Fired.STALE
    if known.cursor > tick.to or (known.cursor == tick.to and (known.cursor != tick.cursor or tick.job is not None)):
        return Fired.ALREADY
    if known.cursor != tick.cursor:
        return Fired.STALE
    return Fired.EARLY if at < tick.to and tick.to != known.cursor else None


def _between(rule: Rule, after: int, until: int) -> list[int]:
    """Its ticks after `after`, up to and including `until`."""
    assert rule.every is not None or rule.cron == EVERY_MINUTE
    step, anchor = (rule.every, rule.start or 0) if rule.every is not None else (MINUTE, 0)
    after = after if rule.start is None else max(after, rule.start - 1)
    until = until if rule.end is None else min(until, rule.end)
    first = after + 1 + (anchor - after - 1) % step
    return list(range(first, until + 1, step))
