"""The threads and duties behind the supervisor, each alone, against the memory store and a clock turned by hand."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.harness import Away, eventually, new_job
from windlass import stores
from windlass.core.errors import StoreUnavailable, WindlassError
from windlass.core.job import State
from windlass.ports.store import ClaimRequest, Death, PruneRules, Quota, WorkerReport
from windlass.runtime import lockfile
from windlass.runtime.beat import Beat, Round
from windlass.runtime.judge import Judge
from windlass.runtime.keeper import Keeper
from windlass.runtime.maintainer import PRUNE_EVERY, TTL, Maintainer
from windlass.runtime.poller import Poller

SECOND = 1_000_000


class Clock:
    """The store's clock and everybody's, turned by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000 * SECOND

    def __call__(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / SECOND

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.opened: Any = stores.open("memory://", clock=self.clock)
        self.store = self.opened.store
        self.run = self.opened.shell.run

    def beat(self, *workers: str, hold: float = 15.0) -> Any:
        return self.run(self.store.beat([report(worker, hold) for worker in workers]))

    def running(self, worker: str) -> str:
        job = new_job()
        self.run(self.store.enqueue([job]))
        assert self.run(self.store.claim(worker, self.clock.now, ClaimRequest(1, (Quota("default", 1),)))).jobs
        return job.id

    def job(self, job: str) -> Any:
        return self.run(self.store.fetch([job]))[0]


def report(worker: str, hold: float = 15.0) -> WorkerReport:
    return WorkerReport(id=worker, supervisor="s", host="h", pid=1, hold=round(hold * SECOND))


def now(call: Callable[[], object]) -> None:
    call()


# --- beat ------------------------------------------------------------------------------------------------------------


def test_the_first_beat_is_at_once_and_then_every_third_of_the_hold() -> None:
    world, rounds = World(), []
    beat = Beat(world.opened, 0.3, now, rounds.append)
    beat.start()
    began = time.monotonic()
    beat.add("w-1", lambda: report("w-1"))
    eventually(lambda: len(rounds) >= 4)
    took = time.monotonic() - began
    beat.remove("w-1")
    beat.stop()
    assert took >= 0.25
    assert {answer.id for each in rounds for answer in each.answers} == {"w-1"}


def test_a_beat_that_gets_no_answer_is_tried_again_soon_and_kills_nobody() -> None:
    """A8: on the store's return everybody beats before anybody is judged, so the delay is at most a sixth of a hold."""
    world, rounds = World(), []
    shell = world.opened.shell = Away(world.opened.shell)
    shell.away = True
    beat = Beat(world.opened, 0.6, now, rounds.append)
    beat.start()
    beat.add("w-1", lambda: report("w-1"))
    eventually(lambda: len(rounds) >= 5)
    assert all(isinstance(each.error, StoreUnavailable) for each in rounds)
    shell.away = False
    back = time.monotonic()
    eventually(lambda: rounds[-1].answers)
    assert time.monotonic() - back < 0.6 / 6 + 0.2
    beat.stop()


def test_the_beat_says_what_the_table_says_at_that_moment() -> None:
    world, rounds = World(), []
    busy = iter(range(100))
    beat = Beat(world.opened, 0.03, now, rounds.append)
    beat.start()
    beat.add("w-1", lambda: WorkerReport(id="w-1", supervisor="s", host="h", pid=1, hold=SECOND, busy=next(busy)))
    eventually(lambda: len(rounds) > 3)
    beat.stop()
    assert world.run(world.store.workers())[0].busy >= 3


def test_the_beat_thread_never_logs(caplog: pytest.LogCaptureFixture) -> None:
    """B15: a full pipe behind standard error would stop it."""
    world = World()
    world.opened.shell = Away(world.opened.shell)
    world.opened.shell.away = True
    rounds: list[Round] = []
    beat = Beat(world.opened, 0.03, rounds.append, lambda _: None)  # type: ignore[arg-type]
    with caplog.at_level(logging.DEBUG):
        beat.start()
        beat.add("w-1", lambda: report("w-1"))
        eventually(lambda: len(rounds) > 3)
        beat.stop()
    assert not [record for record in caplog.records if record.threadName == "windlass-beat"]


# --- keeper ----------------------------------------------------------------------------------------------------------


def test_an_errand_is_repeated_until_the_store_is_back() -> None:
    answers: list[Any] = []
    tries = iter([StoreUnavailable("no"), StoreUnavailable("no"), 42])

    def work() -> Any:
        each = next(tries)
        if isinstance(each, Exception):
            raise each
        return each

    keeper = Keeper(now, 0.1)
    keeper.start()
    keeper.submit(work, answers.append)
    eventually(lambda: answers)
    assert keeper.stop(5.0)
    assert answers == [42]


def test_what_no_repetition_can_cure_is_said_and_the_others_go_on() -> None:
    said: list[Any] = []

    def broken() -> None:
        raise WindlassError("never")

    keeper = Keeper(now, 0.1)
    keeper.start()
    keeper.submit(broken, said.append, said.append)
    keeper.submit(broken, said.append)
    keeper.submit(lambda: "well", said.append)
    eventually(lambda: "well" in said)
    assert keeper.stop(5.0)
    assert [str(each) for each in said] == ["never", "well"]


class Duty:
    name = "duty"

    def __init__(self, *delays: float | Exception) -> None:
        self.delays = list(delays)
        self.calls: list[str] = []
        self.done = threading.Event()

    def start(self) -> None:
        self.calls.append("start")

    def tick(self) -> float:
        self.calls.append("tick")
        if not self.delays:
            self.done.set()
            return 60.0
        delay = self.delays.pop(0)
        if isinstance(delay, Exception):
            raise delay
        return delay

    def stop(self) -> None:
        self.calls.append("stop")


def test_a_service_is_started_ticked_when_it_says_and_stopped() -> None:
    duty = Duty(0.0, StoreUnavailable("no"), RuntimeError("a bug"), 0.01)
    keeper = Keeper(now, 0.01)
    keeper.start()
    keeper.add(duty)
    assert duty.done.wait(5)
    assert keeper.stop(5.0)
    assert duty.calls == ["start", *["tick"] * 5, "stop"]


# --- judge -----------------------------------------------------------------------------------------------------------


def judge(world: World, directory: str | None, own: list[str], told: list[str], hold: float = 15.0) -> Judge:
    return Judge(world.opened, directory, hold, lambda: own, lambda: told.append("suspected"))


def test_where_the_kernel_judges_a_lapsed_lease_is_no_death(tmp_path: Path) -> None:
    """I8: slow is not dead."""
    world, told = World(), []
    lock = lockfile.create(str(tmp_path), "w-slow")
    world.beat("w-slow", "w-own")
    job = world.running("w-slow")
    for _ in range(10):
        world.clock.advance(5)
        world.beat("w-own")
        judge(world, str(tmp_path), ["w-own"], told).tick()
    assert world.job(job).state is State.RUNNING
    lock.close()
    judge(world, str(tmp_path), ["w-own"], told).tick()
    assert (world.job(job).state, world.job(job).suspect) == (State.QUEUED, True)
    assert told == ["suspected"]
    assert list(tmp_path.iterdir()) == []


def test_one_without_a_lock_file_is_judged_by_its_lease(tmp_path: Path) -> None:
    world, told = World(), []
    world.beat("w-old", "w-own")
    job = world.running("w-old")
    for expected in (State.RUNNING, State.RUNNING, State.QUEUED):
        world.clock.advance(7)
        world.beat("w-own")
        judge(world, str(tmp_path), ["w-own"], told).tick()
        assert world.job(job).state is expected


def test_after_an_outage_nobody_is_reaped_before_the_judge_itself_beat_for_a_whole_hold() -> None:
    """A8."""
    world, told = World(), []
    world.beat("w-other", "w-own")
    job = world.running("w-other")
    world.clock.advance(100)  # nobody could beat
    world.beat("w-own")
    judge(world, None, ["w-own"], told).tick()
    assert world.job(job).state is State.RUNNING
    world.clock.advance(2)
    world.beat("w-own", "w-other")  # and now it is back too
    for _ in range(10):
        world.clock.advance(5)
        world.beat("w-own", "w-other")
        judge(world, None, ["w-own"], told).tick()
    assert world.job(job).state is State.RUNNING
    assert told == []


def test_a_judge_never_judges_its_own(tmp_path: Path) -> None:
    world, told = World(), []
    world.beat("w-1", "w-2")
    job = world.running("w-2")
    lockfile.create(str(tmp_path), "w-2").close()
    judge(world, str(tmp_path), ["w-1", "w-2"], told).tick()
    assert world.job(job).state is State.RUNNING
    assert lockfile.exists(str(tmp_path), "w-2")


# --- maintainer and poller -------------------------------------------------------------------------------------------


def maintainer(
    world: World, holder: str, told: list[Any] | None = None, rules: PruneRules = PruneRules(completed=0, cancelled=0)
) -> Maintainer:
    return Maintainer(world.opened, holder, rules, (told if told is not None else []).append, world.clock)


def test_one_leads_until_it_stops() -> None:
    world = World()
    a, b = maintainer(world, "a"), maintainer(world, "b")
    assert a.tick() == 1.0
    assert b.tick() == TTL / 3
    a.stop()
    assert b.tick() == 1.0
    b.stop()
    maintainer(world, "c").stop()  # never led: nothing to resign


def test_a_leader_that_falls_silent_is_replaced() -> None:
    world = World()
    a, b = maintainer(world, "a"), maintainer(world, "b")
    a.tick()
    world.clock.advance(TTL / 2)
    a.tick()
    world.clock.advance(TTL - 0.1)
    assert b.tick() == TTL / 3
    world.clock.advance(0.2)
    assert b.tick() == 1.0
    assert a.tick() == TTL / 3  # its own clock tells it that it no longer leads


def test_it_promotes_what_nobody_claims_and_prunes_in_slices() -> None:
    world = World()
    delayed = new_job(queue="unserved", after=10 * SECOND)
    world.run(world.store.enqueue([delayed]))
    leader = maintainer(world, "a")
    leader.tick()
    world.clock.advance(11)
    leader.tick()
    assert world.job(delayed.id).state is State.QUEUED

    many = [new_job() for _ in range(1_200)]
    world.run(world.store.enqueue(many))
    from windlass.ports.store import Selection

    world.run(world.store.cancel(Selection(ids=tuple(job.id for job in many), limit=2_000)))
    world.clock.advance(2 * PRUNE_EVERY + 1)  # the first walk found nothing
    ticks = 0
    while leader.tick() < 1.0:
        ticks += 1
    assert 2 <= ticks <= 4
    assert world.run(world.store.fetch([job.id for job in many])) == [None] * 1_200


@pytest.mark.parametrize(("kept", "most"), [(7 * 86_400, 3_600), (3_600, 225), (60, 60)])
def test_it_looks_for_old_jobs_ever_more_rarely_while_there_are_none(kept: int, most: int) -> None:
    """A million finished jobs that are kept must not keep an idle supervisor busy; nor may any stay for much longer."""
    world = World()
    leader = maintainer(world, "a", rules=PruneRules(completed=kept * SECOND))
    walks: list[float] = []
    walk = world.store.prune
    world.store.prune = lambda *how: (walks.append(world.clock.monotonic()), walk(*how))[1]  # type: ignore[method-assign]
    for _ in range(4 * 3_600):
        leader.tick()
        world.clock.advance(1)
    apart = [round(later - before) for before, later in zip(walks, walks[1:], strict=False)]
    assert apart[:4] == [min(each, most) for each in (120, 240, 480, 960)]
    assert set(apart[6:]) == {most}


def test_it_says_where_suspects_wait() -> None:
    world, told = World(), []
    world.beat("w-1")
    job = world.running("w-1")
    world.run(world.store.reap([Death(worker="w-1", observed=True, executing=(job,))]))
    maintainer(world, "a", told).tick()
    assert told == [("default",)]


def test_the_poll_tells_once_of_every_change() -> None:
    world, told = World(), []
    poller = Poller(world.opened, lambda: told.append(1), told.append)
    poller.tick()
    told.clear()
    for _ in range(3):
        assert poller.tick() == 0.05
    assert told == []
    world.run(world.store.enqueue([new_job()]))
    poller.tick()
    poller.tick()
    assert told == [1]
