"""The exhaustive small-scope model of schedules: every state that one schedule, two schedulers and an operator can get
into, and every step between (I11).

A scheduler reads what is due and works out ticks (the runtime's own code), and at any later moment it sends them: all
at once, or one by one as it does with a batch that was refused; each answer may be lost, and what it has in its hands
it may send again or forget. Meanwhile time passes, the clock is set back, others fire, jobs end, and an operator
pauses, resumes, changes, deletes and runs by hand. Of instants only their order counts and the gaps between them, of
which long ones are as good as longer ones: so the space is closed, though time has no end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import msgspec

from windlass.core.job import NewJob
from windlass.core.schedule import CatchUp, Definition, Overlap, Rule
from windlass.ports.plan import drive
from windlass.ports.store import Schedule, ScheduleChange, Selection, Tick
from windlass.runtime.scheduler import Scheduler
from windlass.stores.memory import MemoryStore
from windlass.testing.simulation.checker import Checker
from windlass.testing.simulation.ledger import Ledger
from windlass.testing.simulation.model import Node, Search, Step
from windlass.testing.simulation.ticks import Ticks
from windlass.testing.simulation.timetable import shown
from windlass.testing.simulation.world import Dump

UNIT = 30_000_000
"""What time passes by: a tick that is two of them late was missed."""
PERIOD = 2 * UNIT
FAR = 3 * PERIOD
"""Gaps beyond differ by nothing but where in a period they end."""
NAME = "s"
LIVING = 2
"""More jobs of the schedule than this do not live at once."""


class TickScope(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of schedule it is."""

    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.LATEST
    schedulers: int = 2
    lost_answers: bool = True
    operator: tuple[str, ...] = ()
    """What somebody does to it meanwhile: pause, put, delete, run."""
    set_back: bool = True


class Hands(msgspec.Struct, frozen=True):
    """What a scheduler is about to send, or an operator."""

    ticks: tuple[Tick, ...] = ()


class TickModel(Search):
    """The search; see the head of this file."""

    stuck = "I11: from here nothing will ever be fired"
    mercy = frozenset({"pause", "put", "delete", "set back"})

    def __init__(self, make: Callable[[], MemoryStore] = MemoryStore, scope: TickScope | None = None) -> None:
        """See Search."""
        super().__init__(make)
        self._scope = scope or TickScope()
        self._scheduler = Scheduler(None, "model")  # type: ignore[arg-type]  # it is asked only what it would fire
        rule = Rule(every=PERIOD, overlap=self._scope.overlap, catch_up=self._scope.catch_up, catch_up_limit=2)
        later = msgspec.structs.replace(rule, start=UNIT)  # ticks halfway between those of the other
        self._definitions = [Definition(rule=each, task="t", payload="[[],{}]") for each in (rule, later)]

    def _first(self) -> Node:
        checker = Checker(Ledger(), Dump({}, {}, [], 0, []), (Ticks,))
        node = Node(self._make(), (Hands(),) * (self._scope.schedulers + 1), checker, 0, 0)
        node.now = 1_000 * PERIOD
        node.do("change_schedules", [self._put(0)])
        node.store.data.commit()
        return node

    def _put(self, which: int) -> ScheduleChange:
        return shown(NAME, self._definitions[which], "operator")

    # --- what can happen ---------------------------------------------------------------------------------------------

    def _steps(self, node: Node) -> Iterator[Step]:
        yield Step("time")
        if self._scope.set_back:
            yield Step("set back")
        living = _living(node)
        for number in range(len(living)):
            yield Step("end", -1, number)
        *schedulers, operator = range(len(node.seats))
        for at in schedulers:
            yield from self._of_a_scheduler(node, at, len(living))
        yield from self._of_the_operator(node, operator, len(living))

    def _of_a_scheduler(self, node: Node, at: int, living: int) -> Iterator[Step]:
        schedule = _schedule(node)
        if schedule is not None and not schedule.paused and (schedule.next_at or 0) <= node.now:
            yield Step("look", at)
        ticks = node.seats[at].ticks
        if not ticks or living + len(ticks) > LIVING + 1:
            return
        for lost in (False, True) if self._scope.lost_answers else (False,):
            yield Step("send", at, "all", lost)
            if len(ticks) > 1:
                yield Step("send", at, "the first", lost)

    def _of_the_operator(self, node: Node, at: int, living: int) -> Iterator[Step]:
        schedule, words = _schedule(node), self._scope.operator
        if "put" in words:
            yield Step("put", at, 0)
            yield Step("put", at, 1)
        if "delete" in words and schedule is not None:
            yield Step("delete", at)
        if "pause" in words and schedule is not None:
            yield Step("resume" if schedule.paused else "pause", at)
        if "run" in words and (node.seats[at].ticks or (schedule is not None and living < LIVING)):
            for lost in (False, True) if self._scope.lost_answers else (False,):
                yield Step("run", at, None, lost)

    # --- what it does ------------------------------------------------------------------------------------------------

    def _take(self, node: Node, step: Step) -> None:
        if step.name in ("time", "set back"):
            node.now += UNIT if step.name == "time" else -UNIT
        elif step.name == "end":
            node.do("cancel", Selection((_living(node)[step.other],)))
        elif step.name == "put":
            node.do("change_schedules", [self._put(step.other)])
        elif step.name in ("pause", "resume", "delete"):
            node.do("change_schedules", [ScheduleChange(name=NAME, action=step.name)])
        else:
            getattr(self, f"_{step.name}")(node, step)

    def _look(self, node: Node, step: Step) -> None:
        found = drive(iter(node.store.due(10)), lambda _: [(node.now,)])
        ticks = [tick for each in found.schedules for tick in self._scheduler._look(each, found.now)]  # noqa: SLF001
        node.sit(step.seat, Hands(tuple(ticks)))

    def _send(self, node: Node, step: Step) -> None:
        ticks = node.seats[step.seat].ticks
        sent = ticks if step.other == "all" else ticks[:1]
        node.do("fire", list(sent))
        if not step.lost:
            node.sit(step.seat, Hands(ticks[len(sent) :]))

    def _run(self, node: Node, step: Step) -> None:
        """By hand; one whose answer was lost is sent again under its id."""
        ticks = node.seats[step.seat].ticks
        if not ticks:
            node.made += 1
            job = NewJob(id=f"00000000-0000-7000-9000-{node.made:012d}", task="t", payload="[[],{}]")
            overlap = Overlap.QUEUE if self._scope.overlap is Overlap.SKIP else self._scope.overlap
            tick = Tick(schedule=NAME, revision=0, cursor=0, to=0, next_at=None, job=job, overlap=overlap, manual=True)
            ticks = (tick,)
        node.do("fire", list(ticks))
        node.sit(step.seat, Hands(ticks if step.lost else ()))

    # --- states ------------------------------------------------------------------------------------------------------

    def _key(self, node: Node) -> Any:
        schedule, living = _schedule(node), _living(node)
        *hands, operator = node.seats
        [by_hand] = [each.job.id for each in operator.ticks if each.job] or [""]
        sent = living.index(by_hand) if by_hand in living else by_hand in node.store.data.jobs
        if schedule is None:
            return None, len(living), bool(by_hand), sent
        ticks = [[tick for tick in each.ticks if tick.cursor >= schedule.cursor] for each in hands]
        known, now = _judge(node).known.get(NAME), schedule.revision
        # What stands behind the cursor is nobody's any more: it never goes back.
        instants = [node.now, schedule.cursor, *([] if schedule.next_at is None else [schedule.next_at])]
        instants += [at for each in ticks for tick in each for at in _instants(tick)]
        places = _places(instants)
        held = sorted(
            tuple((*(places[at] for at in _instants(tick)), tick.job is None, tick.revision == now) for tick in each)
            for each in ticks
        )  # which scheduler has what in its hands is of no account
        at = (places[node.now], places[schedule.cursor], schedule.next_at and places[schedule.next_at])
        astray = None if known is None else (schedule.fired - known.fired, schedule.skipped - known.skipped)
        return at, schedule.paused, schedule.definition, tuple(held), len(living), bool(by_hand), sent, astray

    def _problems(self, node: Node) -> list[str]:
        schedule, known = _schedule(node), _judge(node).known.get(NAME)
        if (schedule is None) != (known is None):
            return ["I11: the schedule is in one of store and answers only"]
        if schedule is not None and known is not None:
            found = (schedule.revision, schedule.cursor, schedule.paused, schedule.fired, schedule.skipped)
            told = (known.revision, known.cursor, known.paused, known.fired, known.skipped)
            if found != told:
                return [f"I11: the schedule stands at {found}, as its answers say at {told}"]
        alive = [id for id, job in node.checker.jobs.items() if job.ended is None]
        return [] if sorted(alive) == sorted(_living(node)) else [f"I11: {_living(node)} live, and should {alive}"]

    def _over(self, node: Node) -> bool:
        """All that is due was fired, and has ended; or the schedule is gone."""
        schedule = _schedule(node)
        return schedule is None or (not _living(node) and (schedule.next_at or 0) > node.now)


def _schedule(node: Node) -> Schedule | None:
    found = node.store.data.schedules.get(NAME)
    return None if found is None else found.said


def _judge(node: Node) -> Ticks:
    [judge] = (each for each in node.checker.judges if isinstance(each, Ticks))
    return judge


def _living(node: Node) -> list[str]:
    return [id for id, row in node.store.data.jobs.items() if not row.state.terminal]


def _instants(tick: Tick) -> tuple[int, ...]:
    return tick.cursor, tick.to, tick.to if tick.next_at is None else tick.next_at


def _places(instants: list[int]) -> dict[int, int]:
    """Instants with the same order and no gap that is longer than it must be, the first of them within one period."""
    line = sorted(set(instants))
    places = {line[0]: line[0] % PERIOD}
    for before, this in pairwise(line):
        gap = this - before
        places[this] = places[before] + (gap if gap < FAR else FAR + gap % PERIOD)
    return places
