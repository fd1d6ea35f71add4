"""The scheduler, alone and several at once, under clocks that are turned by hand: each tick becomes one job (I11)."""

from __future__ import annotations

import ast
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from windlass import stores
from windlass.core import schedule as core
from windlass.core.errors import OutcomeUnknown, StoreError, StoreUnavailable
from windlass.core.job import Meta
from windlass.core.schedule import CatchUp, Definition, Overlap, Rule, digest
from windlass.ports.plan import Plan
from windlass.ports.store import CODE_SEEN, Filter, ScheduleChange, Selection
from windlass.runtime import scheduler as module
from windlass.runtime.scheduler import POLL, STAND_IN, TTL, Scheduler
from windlass.stores.memory import MemoryStore, OpenedMemory
from windlass.testing import ManualClock
from windlass.testing.conformance.sizes import seeds, size

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NOON = 1_780_056_000 * SECOND


class Monotonic:
    """A scheduler's own idea of how time passes."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now


class Shell:
    """A scheduler's way to the store, on which things happen: before a plan of some name, or instead of it."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self.before: Callable[[str], None] = lambda name: None
        self.after: Callable[[str], None] = lambda name: None
        self.names: list[str] = []

    def run(self, plan: Plan[Any], timeout: float | None = None) -> Any:
        self.names.append(plan.name)
        self.before(plan.name)
        answer = self._shell.run(plan, timeout)
        self.after(plan.name)
        return answer


class Opening:
    """A store as one scheduler sees it."""

    def __init__(self, opened: Any) -> None:
        self.store = opened.store
        self.shell = Shell(opened.shell)


class One(NamedTuple):
    scheduler: Scheduler
    shell: Shell
    clock: Monotonic


class Stage:
    """A store, its clock, and schedulers."""

    def __init__(self, opened: Any, clock: ManualClock) -> None:
        self.opened = opened
        self.clock = clock
        self.run = opened.shell.run
        self.store = opened.store
        self.run(self.store.migrate())

    def scheduler(self, name: str = "s", defined: tuple[ScheduleChange, ...] = (), start: float = 0.0) -> One:
        opening, clock = Opening(self.opened), Monotonic(start)
        return One(Scheduler(opening, name, defined, clock), opening.shell, clock)  # type: ignore[arg-type]

    def put(self, name: str = "s", origin: str = "operator", **of_rule: Any) -> None:
        self.run(self.store.change_schedules([change(name, origin, **of_rule)]))

    def pass_time(self, span: int, *ones: One) -> None:
        self.clock.set(self.clock() + span)
        for one in ones:
            one.clock.now += max(span, 0) / SECOND

    def made(self, name: str = "s") -> list[int]:
        """The ticks that became jobs, in the order in which they did."""
        jobs = self.run(self.store.search(Filter(), 100_000)).jobs
        metas = [msgspec.json.decode(job.meta, type=Meta) for job in reversed(jobs)]
        return [meta.tick for meta in metas if meta.schedule == name and meta.tick is not None]

    def schedule(self, name: str = "s") -> Any:
        return self.run(self.store.schedules((name,)))[0]


def change(name: str = "s", origin: str = "operator", **of_rule: Any) -> ScheduleChange:
    rule = Rule(**{"cron": "* * * * *", "overlap": Overlap.QUEUE} | of_rule)
    text = Definition(rule=rule, task="t", payload="[[],{}]").text
    return ScheduleChange(
        name=name, action="put", definition=text, digest=digest(text), timing=rule.timing, origin=origin
    )


@contextmanager
def opened_store(kind: str, path: Path, clock: ManualClock) -> Iterator[Any]:
    url = "memory://" if kind == "memory" else f"sqlite:///{path}/{time.monotonic_ns()}.db"
    opened = stores.open(url, clock=clock, **({} if kind == "memory" else {"durability": "normal"}))
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(params=["memory", "sqlite"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    clock = ManualClock(NOON + 30 * SECOND)
    with opened_store(request.param, tmp_path, clock) as opened:
        yield Stage(opened, clock)


# --- one -------------------------------------------------------------------------------------------------------------


def test_a_tick_is_fired_at_its_instant_and_the_wait_is_exact(stage: Stage) -> None:
    stage.put()
    one = stage.scheduler()
    assert one.scheduler.tick() == POLL  # the next one is half a minute away
    stage.pass_time(29 * SECOND + SECOND // 2, one)
    assert one.scheduler.tick() == pytest.approx(0.5, abs=0.001)
    assert stage.made() == []
    stage.pass_time(SECOND // 2, one)
    assert one.scheduler.tick() == POLL
    assert stage.made() == [NOON + MINUTE]
    assert one.scheduler.tick() == POLL
    assert stage.made() == [NOON + MINUTE]


def test_nothing_to_do_costs_one_read(stage: Stage) -> None:
    one = stage.scheduler()
    one.scheduler.tick()
    one.shell.names.clear()
    for _ in range(3):
        stage.pass_time(SECOND, one)
        assert one.scheduler.tick() == POLL
    assert one.shell.names == ["due"] * 3


def test_a_new_schedule_is_noticed_within_a_poll(stage: Stage) -> None:
    one = stage.scheduler()
    assert one.scheduler.tick() == POLL
    stage.clock.set(NOON + 59 * SECOND)
    stage.put()
    stage.pass_time(SECOND, one)
    one.scheduler.tick()
    assert stage.made() == [NOON + MINUTE]


def test_what_cannot_be_dealt_with_stops_no_other(stage: Stage) -> None:
    """I23: unreadable, of a zone that this machine does not have, and several hundred of them."""
    bad = [ScheduleChange(name=f"a{n}", action="put", definition="{", digest=f"{n}") for n in range(250)]
    lost = change("a", timezone="Mars/Olympus")
    stage.run(stage.store.change_schedules([*bad, lost, change("z")]))
    one = stage.scheduler()
    for _ in range(6):
        one.scheduler.tick()
    stage.clock.set(NOON + MINUTE)
    for _ in range(6):
        one.scheduler.tick()
    assert stage.made("z") == [NOON + MINUTE]


def test_schedules_that_tick_together_share_a_transaction(stage: Stage) -> None:
    stage.run(stage.store.change_schedules([change(f"n{n}") for n in range(150)]))
    one = stage.scheduler()
    for _ in range(3):
        one.scheduler.tick()
    stage.clock.set(NOON + MINUTE)
    one.shell.names.clear()
    for _ in range(3):
        one.scheduler.tick()
    assert all(stage.made(f"n{n}") == [NOON + MINUTE] for n in range(150))
    assert one.shell.names.count("fire") == 2


def test_a_tick_that_the_store_refuses_fails_alone(stage: Stage) -> None:
    """I23"""
    stage.run(stage.store.change_schedules([change(name) for name in ("a", "bad", "c")]))
    one = stage.scheduler()
    one.scheduler.tick()
    stage.clock.set(NOON + MINUTE)
    opening = one.scheduler._opened
    opening.store = Refusing(stage.store, "bad")  # type: ignore[assignment]
    for _ in range(3):
        one.scheduler.tick()
    assert (stage.made("a"), stage.made("bad"), stage.made("c")) == ([NOON + MINUTE], [], [NOON + MINUTE])
    opening.store = stage.store
    stage.clock.set(NOON + 2 * MINUTE)
    one.scheduler.tick()
    assert stage.made("bad") == [NOON + 2 * MINUTE]


class Refusing:
    """A store whose database refuses the jobs of one schedule."""

    def __init__(self, store: Any, name: str) -> None:
        self._store = store
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def fire(self, ticks: Any) -> Plan[Any]:
        def steps() -> Any:
            if any(tick.job and tick.schedule == self._name for tick in ticks):
                raise StoreError("a constraint")
            return (yield from self._store.fire(ticks))

        return Plan(steps, "fire", write=True)


def test_a_store_that_is_away_is_the_keepers_affair(stage: Stage) -> None:
    stage.put()
    one = stage.scheduler()

    def away(name: str) -> None:
        raise StoreUnavailable("gone fishing")

    one.scheduler.tick()
    stage.pass_time(MINUTE, one)
    for plan in ("due", "fire"):
        one.shell.before = lambda name, plan=plan: away(name) if name == plan else None  # type: ignore[misc]
        with pytest.raises(StoreUnavailable):
            one.scheduler.tick()
    one.shell.before = lambda name: None
    one.scheduler.tick()
    assert stage.made() == [NOON + MINUTE]


def test_its_own_wall_clock_is_asked_for_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """I11: an hour ahead, and an hour behind, it fires what the store's clock says."""
    for file in (module.__file__, core.__file__):
        tree = ast.parse(Path(file).read_text())
        names = {each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names}
        assert "time" not in names
    stage.put()
    for off in (3_600, -3_600):
        real = time.time_ns
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda off=off: real() / 1e9 + off)
            patched.setattr(time, "time_ns", lambda off=off: real() + off * 10**9)
            one = stage.scheduler(f"off{off}")
            one.scheduler.tick()
            stage.pass_time(MINUTE, one)
            one.scheduler.tick()
            one.scheduler.stop()
    assert stage.made() == [NOON + MINUTE, NOON + 2 * MINUTE]


# --- code ------------------------------------------------------------------------------------------------------------


def test_the_codes_schedules_are_shown(stage: Stage) -> None:
    one = stage.scheduler(defined=(change("mine", "code"),))
    one.scheduler.tick()
    assert (stage.schedule("mine").origin, stage.schedule("mine").seen_at) == ("code", stage.clock())
    first = stage.clock()
    stage.pass_time(59 * SECOND, one)
    one.scheduler.tick()
    assert stage.schedule("mine").seen_at == first
    stage.pass_time(SECOND, one)
    one.scheduler.tick()
    assert stage.schedule("mine").seen_at == first + MINUTE


def test_two_versions_of_the_code_do_not_take_turns(stage: Stage) -> None:
    """I25: supervisors of both run side by side through a deploy, and restart; then it is rolled back."""
    old, new = change("x", "code", cron="0 1 * * *"), change("x", "code", cron="0 2 * * *")
    ones = [stage.scheduler("old", (old,)), stage.scheduler("new", (new,))]
    for one in ones:
        one.scheduler.tick()
    for minute in range(30):
        stage.pass_time(MINUTE, *ones)
        if minute % 5 == 0:
            ones[0] = stage.scheduler(f"old{minute}", (old,))
            ones[1] = stage.scheduler(f"new{minute}", (new,))
        for one in ones:
            one.scheduler.tick()
        assert stage.schedule("x").definition == new.definition
    assert stage.schedule("x").revision == 2
    for _ in range(CODE_SEEN // MINUTE + 2):  # the new code is gone
        stage.pass_time(MINUTE, ones[0])
        ones[0].scheduler.tick()
    assert (stage.schedule("x").definition, stage.schedule("x").revision) == (old.definition, 3)


def test_the_log_speaks_of_instants_and_of_what_is_in_the_store(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = change(origin="code"), change(origin="code", overlap=Overlap.SKIP)
    one = stage.scheduler(defined=(old,))
    with caplog.at_level(logging.INFO, "windlass"):
        one.scheduler.tick()
        stage.run(stage.store.change_schedules([new]))
        for _ in range(3):
            stage.pass_time(60 * SECOND, one)
            one.scheduler.tick()
    said = {record.getMessage(): getattr(record, "facts", {}) for record in caplog.records}
    assert said["a newer definition of schedule 's' is in the store, by newer code or a person"] == {}
    skipped = said["a tick is skipped: the one before it has not ended"]
    assert (skipped["schedule"], skipped["tick"][-5:]) == ("s", ".000Z")


def test_a_worker_of_new_code_under_the_same_supervisor(stage: Stage) -> None:
    one = stage.scheduler(defined=(change("a", "code"),))
    one.scheduler.tick()
    one.scheduler.define((change("a", "code", cron="5 * * * *"), change("b", "code")))
    one.scheduler.tick()
    assert stage.schedule("a").revision == 2
    assert stage.schedule("b").revision == 1
    one.scheduler.define((change("b", "code"),))
    one.scheduler.tick()
    assert stage.schedule("a").definition  # what the code no longer has stays until somebody deletes it


def test_what_the_store_refuses_of_the_code_stops_no_tick(stage: Stage) -> None:
    stage.put()
    one = stage.scheduler(defined=(change("mine", "code"),))

    def refuse(name: str) -> None:
        if name == "change_schedules":
            raise StoreError("no")

    one.shell.before = refuse
    one.scheduler.tick()
    stage.pass_time(MINUTE, one)
    one.scheduler.tick()
    assert stage.made() == [NOON + MINUTE]


# --- several ---------------------------------------------------------------------------------------------------------


def test_one_leads_and_the_others_only_look(stage: Stage) -> None:
    stage.put()
    a, b = stage.scheduler("a"), stage.scheduler("b")
    for one in (a, b):
        one.scheduler.tick()
    for _ in range(6):
        stage.pass_time(5 * SECOND, a, b)
        b.scheduler.tick()
        assert stage.made() == []
        if stage.clock() < NOON + MINUTE:
            a.scheduler.tick()
    assert "fire" not in b.shell.names
    a.scheduler.tick()
    assert stage.made() == [NOON + MINUTE]


def test_who_does_not_lead_stands_in_for_a_leader_that_is_late(stage: Stage) -> None:
    stage.put()
    a, b = stage.scheduler("a"), stage.scheduler("b")
    for one in (a, b):
        one.scheduler.tick()
    stage.clock.set(NOON + MINUTE)
    b.clock.now += 1
    assert b.scheduler.tick() == POLL
    stage.pass_time(round(STAND_IN * SECOND) - 1, b)
    wait = b.scheduler.tick()
    assert wait < 0.01
    assert stage.made() == []
    stage.pass_time(1, b)
    b.scheduler.tick()
    assert stage.made() == [NOON + MINUTE]


def test_a_leader_that_stops_lets_another_lead_at_once(stage: Stage) -> None:
    stage.put()
    a, b = stage.scheduler("a"), stage.scheduler("b")
    for one in (a, b):
        one.scheduler.tick()
    a.scheduler.stop()
    b.clock.now += TTL / 3
    b.scheduler.tick()
    stage.pass_time(30 * SECOND, b)
    b.scheduler.tick()
    assert stage.made() == [NOON + MINUTE]


@pytest.mark.parametrize("error", [StoreUnavailable("locked"), StoreError("broken"), OutcomeUnknown("lost")])
def test_a_lock_call_that_raises_stops_no_tick(stage: Stage, error: StoreError) -> None:
    """I11"""
    stage.put()
    ones = [stage.scheduler(name) for name in "abc"]

    def refuse(name: str) -> None:
        if name == "lead":
            raise error

    for one in ones:
        one.shell.before = refuse
    for _ in range(10 * 60):
        stage.pass_time(SECOND, *ones)
        for one in ones:
            one.scheduler.tick()
    assert stage.made() == [NOON + n * MINUTE for n in range(1, 11)]


def test_a_leader_that_was_stopped_between_reading_and_firing(stage: Stage) -> None:
    """I11: it wakes up with a tick in its hands that others dealt with long ago."""
    stage.put()
    a, b = stage.scheduler("a"), stage.scheduler("b")
    for one in (a, b):
        one.scheduler.tick()
    stage.clock.set(NOON + MINUTE)

    def stopped(name: str) -> None:
        if name == "fire":
            a.shell.before = lambda name: None
            for _ in range(30):
                stage.pass_time(10 * SECOND, b)
                b.scheduler.tick()

    a.shell.before = stopped
    a.scheduler.tick()
    assert stage.made() == [NOON + n * MINUTE for n in range(1, 7)]


@pytest.mark.parametrize("catch_up", list(CatchUp))
def test_down_for_a_day(stage: Stage, catch_up: CatchUp, record_property: Any) -> None:
    stage.put(cron="0 * * * *", catch_up=catch_up)
    stage.scheduler("before").scheduler.tick()
    stage.pass_time(DAY + HOUR // 2)
    ones = [stage.scheduler(name) for name in "abcde"]
    for one in ones * 3:
        one.scheduler.tick()
    expected = {CatchUp.LATEST: [24], CatchUp.NONE: [], CatchUp.ALL: range(1, 25)}[catch_up]
    assert stage.made() == [NOON + n * HOUR for n in expected]
    stage.clock.set(NOON + 25 * HOUR)
    for one in ones:
        one.scheduler.tick()
    assert stage.made() == [NOON + n * HOUR for n in [*expected, 25]]
    record_property("proof", {"ticks missed": 24, "caught up": len(expected)})


@pytest.mark.parametrize("catch_up", list(CatchUp))
def test_a_leader_that_is_gone_costs_no_tick(stage: Stage, catch_up: CatchUp) -> None:
    """I11: killed or stopped, until its lead has lapsed; and once somebody stands in, no tick is late any more."""
    stage.put(every=SECOND, catch_up=catch_up, overlap=Overlap.QUEUE)
    gone, other = stage.scheduler("gone"), stage.scheduler("other")
    gone.scheduler.tick()
    other.scheduler.tick()
    begin = stage.clock()
    late = []
    for _ in range(60):
        stage.pass_time(SECOND // 2, other)
        before = len(stage.made())
        other.scheduler.tick()
        late += [stage.clock() - tick for tick in stage.made()[before:]]
    assert stage.made() == [*range((begin // SECOND + 1) * SECOND, stage.clock() + 1, SECOND)]
    assert max(late) <= (STAND_IN + 1) * SECOND and set(late[5:]) == {0}


def test_what_is_caught_up_is_not_skipped_for_itself(stage: Stage) -> None:
    stage.put(cron="0 * * * *", catch_up=CatchUp.ALL, overlap=Overlap.SKIP)
    one = stage.scheduler()
    one.scheduler.tick()
    stage.pass_time(5 * HOUR, one)
    one.scheduler.tick()
    assert stage.made() == [NOON + n * HOUR for n in range(1, 6)]
    stage.clock.set(NOON + 6 * HOUR)
    one.scheduler.tick()  # on time, while the others have not ended
    assert stage.made() == [NOON + n * HOUR for n in range(1, 6)]
    assert stage.schedule().skipped == 1


def test_ten_thousand_missed_ticks_come_in_batches(stage: Stage) -> None:
    stage.put(cron="* * * * * *", catch_up=CatchUp.ALL, catch_up_limit=1_000)
    one = stage.scheduler()
    one.scheduler.tick()
    stage.pass_time(DAY, one)
    one.scheduler.tick()
    now = stage.clock()
    assert stage.made() == [now - n * SECOND for n in reversed(range(1_000))]
    assert one.shell.names.count("fire") == 11


def test_the_stores_clock_back_and_forth(stage: Stage) -> None:
    """I11: what was fired while it was ahead stays fired, and what it goes over again is not fired again."""
    stage.put()
    one = stage.scheduler()
    one.scheduler.tick()
    for step in (MINUTE, HOUR, -HOUR, 10 * MINUTE, -DAY, DAY, HOUR):
        stage.pass_time(step, one)
        one.scheduler.tick()
    made = stage.made()
    assert Counter(made).most_common(1)[0][1] == 1
    assert made == sorted(made)
    assert made[-1] == (stage.clock() // MINUTE) * MINUTE


def test_a_process_that_starts_in_the_very_moment_of_a_tick(stage: Stage, record_property: Any) -> None:
    """I11"""
    code = (change("x", "code"),)
    stage.scheduler("first", code).scheduler.tick()
    starts = size(50, 500, 5_000)
    for n in range(1, starts + 1):
        stage.clock.set(NOON + n * MINUTE)
        for name in ("a", "b"):
            stage.scheduler(f"{name}{n}", code).scheduler.tick()
        stage.pass_time(3 * SECOND)
        stage.scheduler(f"c{n}", code).scheduler.tick()
    assert stage.made("x") == [NOON + n * MINUTE for n in range(1, starts + 1)]
    record_property("proof", {"starts": 3 * starts, "ticks": starts, "jobs": starts})


# --- many, at random -------------------------------------------------------------------------------------------------


class Storm:
    """Five schedulers on one store, and everything that may go wrong, by one seed."""

    def __init__(self, stage: Stage, seed: int, rule: dict[str, Any]) -> None:
        self.stage = stage
        self.dice = random.Random(seed)
        self.begin = stage.clock()
        self.faults: Counter[str] = Counter()
        stage.put(**rule)
        self.ones = [self.fresh() for _ in range(5)]
        self.depth = 0

    def fresh(self) -> One:
        # Their own clocks have begun whenever they like.
        one = self.stage.scheduler(f"s{self.dice.random()}", start=self.dice.uniform(0, 10_000))
        one.shell.before = self.before
        one.shell.after = self.after
        return one

    def before(self, name: str) -> None:
        chance = self.dice.random()
        if name == "lead" and chance < 0.3:
            self.faults["lock calls that raised"] += 1
            raise self.dice.choice((StoreUnavailable("locked"), StoreError("broken")))
        if name in ("fire", "due") and chance < 0.1 and self.depth < 2:
            self.faults["stopped in the middle"] += 1
            self.depth += 1
            for _ in range(self.dice.randint(1, 20)):
                self.step()
            self.depth -= 1
        elif chance < 0.15:
            self.faults["calls that failed"] += 1
            raise StoreUnavailable("away")

    def after(self, name: str) -> None:
        if name in ("fire", "lead") and self.dice.random() < 0.1:
            self.faults["answers lost"] += 1
            raise OutcomeUnknown("the answer was lost")

    def step(self) -> None:
        dice = self.dice
        span = dice.choice((0, 1, SECOND, SECOND, 10 * SECOND, MINUTE))
        if dice.random() < 0.005:
            self.faults["outages"] += 1
            span = dice.choice((HOUR, 5 * HOUR))
        self.stage.pass_time(span, *self.ones)
        place = dice.randrange(5)
        if dice.random() < 0.05:
            self.faults["restarts"] += 1
            self.ones[place] = self.fresh()
        if dice.random() < 0.05:
            self.faults["clocks an hour off"] += 1
            self.ones[place].clock.now += dice.choice((3_600, 0))
        with suppress(StoreError):
            self.ones[place].scheduler.tick()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("catch_up", list(CatchUp))
def test_each_tick_once_whatever_happens(kind: str, catch_up: CatchUp, tmp_path: Path, record_property: Any) -> None:
    """I11: jobs per due tick = 1, within the policy; and none for what is no tick."""
    faults: Counter[str] = Counter()
    fired = due = 0
    tried = seeds(*((4, 60, 2_000) if kind == "memory" else (1, 20, 200)))
    for seed in tried:
        clock = ManualClock(NOON + 30 * SECOND)
        with opened_store(kind, tmp_path, clock) as opened:
            stage = Stage(opened, clock)
            storm = Storm(stage, seed, {"catch_up": catch_up, "catch_up_limit": 10_000})
            for _ in range(size(300, 1_000, 2_000)):
                storm.step()
            last = stage.scheduler("last")
            last.clock.now = 10**9
            for _ in range(3):
                stage.pass_time(round(STAND_IN * SECOND), last)
                last.scheduler.tick()
            made = stage.made()
            everything = range((NOON // MINUTE + 1) * MINUTE, clock() + 1, MINUTE)
            check(made, everything, catch_up, seed)
            faults += storm.faults
            fired, due = fired + len(made), due + len(everything)
    record_property("proof", {"seeds": len(tried), "due": due, "jobs": fired, **faults})


def check(made: list[int], everything: range, catch_up: CatchUp, seed: int) -> None:
    twice = [tick for tick, count in Counter(made).items() if count > 1]
    assert not twice, f"seed {seed}: fired twice: {twice[:5]}"
    strange = [tick for tick in made if tick not in everything]
    assert not strange, f"seed {seed}: fired, but no tick: {strange[:5]}"
    assert made == sorted(made), f"seed {seed}: out of order"
    if catch_up is CatchUp.ALL:
        assert made == list(everything), f"seed {seed}: not fired: {sorted(set(everything) - set(made))[:5]}"
    elif catch_up is CatchUp.LATEST:
        assert made[-1] == everything[-1], f"seed {seed}: the latest is missing"


class ForgetsTheCursor(MemoryStore):
    """What the seed test must notice: a store that fires whatever it is told to."""

    def _refused(self, said: Any, tick: Any, now: int) -> Any:
        return None

    def _enqueue(self, job: Any, now: int) -> Any:
        # Under ids of their own, as in a queue whose ticks have none.
        self.data.enqueued += 1
        number = f"{self.data.enqueued:012x}"
        return super()._enqueue(msgspec.structs.replace(job, id=job.id[:24] + number), now)


def test_the_storm_notices_a_store_that_forgets_the_cursor() -> None:
    caught = 0
    for seed in range(5):
        clock = ManualClock(NOON + 30 * SECOND)
        stage = Stage(OpenedMemory(ForgetsTheCursor(), clock), clock)
        storm = Storm(stage, seed, {"catch_up": CatchUp.ALL, "catch_up_limit": 10_000})
        for _ in range(300):
            storm.step()
        made = stage.made()
        caught += Counter(made).most_common(1)[0][1] > 1
    assert caught == 5


def test_deleting_a_schedule_leaves_its_jobs(stage: Stage) -> None:
    stage.put()
    one = stage.scheduler()
    one.scheduler.tick()
    stage.pass_time(MINUTE, one)
    one.scheduler.tick()
    stage.run(stage.store.change_schedules([ScheduleChange(name="s", action="delete")]))
    stage.pass_time(DAY, one)
    one.scheduler.tick()
    assert stage.made() == [NOON + MINUTE]
    assert stage.run(stage.store.cancel(Selection(filter=Filter()))).changed
