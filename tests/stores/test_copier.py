"""The copier, from every kind of store to every other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stores.postgres_server import PLACES
from windlass import stores
from windlass.copier import Copier
from windlass.core.errors import ConfigError, OutcomeUnknown, StoreError, StoreUnavailable
from windlass.core.job import LogLine, State, Succeeded
from windlass.ports.parcel import Word
from windlass.ports.plan import Plan
from windlass.ports.store import Opened, QueueChange, QueueRules, ScheduleChange
from windlass.stores.sqlite.store import SqliteStore
from windlass.testing import ManualClock
from windlass.testing.conformance.departure import Departures, look
from windlass.testing.conformance.world import World, open_world

pytestmark = pytest.mark.once

KINDS: dict[str, Callable[[Path, ManualClock], Opened]] = {
    "memory": lambda path, clock: stores.open("memory://", clock=clock),
    "sqlite": lambda path, clock: stores.open(f"sqlite:///{path}/jobs.db", clock=clock),
    "stdlib": lambda path, clock: stores.open(f"sqlite+stdlib:///{path}/jobs.db", clock=clock),
    "postgres": lambda path, clock: stores.open(PLACES.url(path), clock=clock),
}


class Ways:
    """A source as the chapters see it, and where it is copied to."""

    def __init__(self, world: World, target: Opened) -> None:
        self.world = world
        self.source, self.target = world.opened, target

    def copier(self, batch: int = 3) -> Copier:
        return Copier(self.source, self.target, batch)

    def there(self, plan: Plan[Any]) -> Any:
        return self.target.shell.run(plan)


@pytest.fixture
def ways(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ways]:
    source, target = request.param
    (tmp_path / "target").mkdir()
    with open_world(KINDS[source], tmp_path, "sync") as world:
        opened = KINDS[target](tmp_path / "target", world.clock)
        yield Ways(world, opened)
        opened.close()
    PLACES.recycle()


def between(*pairs: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("ways", pairs, indirect=True, ids="-".join)


EVERY = [(source, target) for source in KINDS for target in KINDS if "memory" not in (source, target)]
GROWING = ("sqlite", "postgres")


@between(*EVERY, ("memory", "sqlite"), ("postgres", "memory"))
def test_every_kind_of_job_moves_to_every_kind_of_store(ways: Ways) -> None:
    """I1, I4: everything that can be read of it is the same there; and nothing is left."""
    world = ways.world
    ids = Departures().zoo(world)
    world.run(world.store.queues([QueueChange("q", paused=True)]))
    world.run(world.store.change_schedules([ScheduleChange(name="s", action="put", definition="d")]))
    before = {id: look(world, world.opened, id) for id in ids}
    report = ways.copier().run()
    assert (report.moved, report.schedules, report.refused, report.done) == (len(ids), 1, [], True)
    assert report.departed.jobs == len(ids)
    assert {id: look(world, ways.target, id) for id in ids} == before
    assert sum(world.run(world.store.stats(exact=True)).states.values()) == 0
    assert ways.there(ways.target.store.queues()) == {"q": QueueRules(paused=True)}
    assert [each.name for each in ways.there(ways.target.store.schedules())] == ["s"]
    world.healthy()
    assert ways.there(ways.target.store.audit()) == []


class Cut(Exception):
    """The copier dies here."""


@between(GROWING, ("postgres", "sqlite"), ("sqlite", "sqlite"), ("memory", "memory"))
def test_a_copier_may_die_at_any_step(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """I1, I2: before and after each transaction of either store, or with its answer lost; the next one goes on."""
    world = ways.world
    ids = Departures().zoo(world)
    before = {id: look(world, world.opened, id) for id in ids}
    deaths = 0
    for step in range(1_000):
        left = [step]

        def mortal(shell: Any, left: list[int] = left) -> Callable[..., Any]:
            run = type(shell).run

            def dying(plan: Plan[Any], timeout: float | None = None) -> Any:
                left[0] -= 1
                if left[0] < 0 and step % 2:
                    raise Cut
                answer = run(shell, plan, timeout)
                if left[0] < 0:
                    raise Cut
                return answer

            return dying

        with monkeypatch.context() as patch:
            for opened in (ways.source, ways.target):
                patch.setattr(opened.shell, "run", mortal(opened.shell), raising=False)
            try:
                report = ways.copier(2).run()
                break
            except Cut:
                deaths += 1
    assert deaths > 10
    assert report.done, report
    assert {id: look(world, ways.target, id) for id in ids} == before
    world.healthy()
    assert ways.there(ways.target.store.audit()) == []


@between(GROWING, ("sqlite", "sqlite"))
def test_answers_may_be_lost(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is sent again; one that was applied is answered as such."""
    ids = Departures().zoo(ways.world)
    monkeypatch.setattr("windlass.copier.BETWEEN", 0.0)
    for opened in (ways.source, ways.target):
        run, calls = opened.shell.run, [0]

        def losing(plan: Plan[Any], timeout: float | None = None, run: Any = run, calls: list[int] = calls) -> Any:
            calls[0] += 1
            if calls[0] % 3 == 1:
                raise StoreUnavailable("not now")
            answer = run(plan, timeout)
            if calls[0] % 3 == 2:
                raise OutcomeUnknown("lost")
            return answer

        monkeypatch.setattr(opened.shell, "run", losing)
    report = ways.copier().run()
    monkeypatch.undo()
    assert (report.verified, report.departed.jobs) == (True, len(ids))
    ways.world.healthy()


@between(GROWING)
def test_what_postgres_cannot_hold_stays_and_is_named(ways: Ways) -> None:
    """I23: a key with a NUL; in a line of a log it is replaced."""
    world, store = ways.world, ways.world.store
    unfit = world.put(idempotency_key="a\0b")
    fine = world.put(payload='[["\\u0000"],{}]')
    logged = world.running()
    world.run(store.report([], [(logged.token, LogLine(1, "info", "a\0b"))]))
    world.end(logged, Succeeded("1"))
    before = look(world, world.opened, unfit)
    report = ways.copier().run()
    assert [(each.id, each.word) for each in report.refused] == [(unfit, Word.UNFIT)]
    assert (report.moved, report.waiting, report.verified, report.done) == (2, 1, True, False)
    assert look(world, world.opened, unfit) == before
    assert ways.there(ways.target.store.logs(logged.id)) == [LogLine(1, "info", "a\N{REPLACEMENT CHARACTER}b")]
    assert ways.there(ways.target.store.fetch([fine]))[0].payload == '[["\\u0000"],{}]'


@between(GROWING, ("postgres", "sqlite"))
def test_large_jobs_leave_a_few_at_a_time(ways: Ways) -> None:
    """So that the source never waits for long."""
    for n in range(20):
        ways.world.put(payload=f'[["{str(n % 10) * 1_000_000}"],{{}}]')
    steps: list[int] = []
    report = Copier(ways.source, ways.target, 1_000, lambda report: steps.append(report.moved)).run()
    assert (report.done, report.moved) == (True, 20)
    if isinstance(ways.source.store, SqliteStore):  # what PostgreSQL keeps compressed weighs less
        assert steps == [8, 16, 20]


@between(GROWING)
def test_two_copiers_at_once_move_each_job_once(ways: Ways) -> None:
    """They share what is set aside; who comes second finds it there."""
    ids = [ways.world.put() for _ in range(20)]
    one, other = ways.copier(), ways.copier()
    stay: list[str] = []
    while one._step(stay) and other._step(stay):
        pass
    assert one.run().done
    states = ways.there(ways.target.store.stats(exact=True)).states
    assert states["queued"] == len(ids)


@between(GROWING)
def test_what_is_set_aside_for_one_store_goes_to_no_other(ways: Ways, tmp_path: Path) -> None:
    job = ways.world.put()
    ways.world.run(ways.world.store.depart("another", 10))
    with pytest.raises(StoreError, match="finish that copy first"):
        ways.copier().run()
    (departure,) = ways.world.run(ways.world.store.depart("another", 10)).jobs
    assert departure.job.id == job


@between(("sqlite", "sqlite"))
def test_a_store_is_not_copied_to_itself(ways: Ways) -> None:
    with pytest.raises(ConfigError, match="the same store"):
        Copier(ways.source, ways.source)


@between(GROWING)
def test_jobs_that_come_meanwhile_move_too(ways: Ways) -> None:
    """Until nothing can leave any more; what runs is left, and moves the next time."""
    world = ways.world
    held, first = world.running(), world.put()
    late: list[str] = []

    def tell(report: object) -> None:
        if len(late) < 3:
            late.append(world.put())

    report = Copier(ways.source, ways.target, 1, tell).run()
    assert (report.moved, report.running, report.waiting, report.done) == (4, 1, 0, False)
    world.end(held, Succeeded("1"))
    assert ways.copier().run().done
    found = ways.there(ways.target.store.fetch([held.id, first, *late]))
    assert [job.state for job in found] == [State.COMPLETED, *[State.QUEUED] * 4]
