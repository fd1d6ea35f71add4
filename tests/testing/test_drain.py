"""A drain runs what is due, in the product's own worker, and the clock moves only where it is told to."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from typing import Any

import pytest

from tests.testing.conftest import NOON, Mailer, Shop
from windlass import Discard, JobFailed, Snooze, WindlassError
from windlass.core.errors import ConfigError, InvalidValue
from windlass.testing import Jobs, ManualClock, engine
from windlass.testing.life import Bounds


def test_nothing_runs_before_the_drain(shop: Shop, jobs: Jobs) -> None:
    job = shop.charge.enqueue("4242")
    assert job.state() == "queued" and shop.did == []
    drained = jobs.drain()
    assert (drained.ran, drained.completed) == (1, 1)
    assert job.result(timeout=0) == "4242:100"
    assert ("charge", 1) in shop.did


def test_what_a_job_enqueues_is_run_too_in_whatever_queue(shop: Shop, jobs: Jobs) -> None:
    shop.order.enqueue(7)
    drained = jobs.drain()
    assert {job.task for job in drained.jobs} == {"order", "charge", "mail"}
    assert drained.completed == drained.ran == 3
    assert shop.mailer.sent == ["ada"]


def test_start_hooks_belong_to_the_drain(shop: Shop, jobs: Jobs) -> None:
    shop.mail.enqueue("ada")
    jobs.drain()
    assert shop.did == ["start", "stop"]


def test_an_empty_drain_starts_no_worker(shop: Shop, jobs: Jobs) -> None:
    drained = jobs.drain()
    assert (drained.ran, drained.jobs, str(drained)) == (0, (), "ran 0: nothing")
    assert shop.did == []


def test_a_queue_that_nobody_has_is_a_mistake(shop: Shop, jobs: Jobs) -> None:
    shop.charge.using(queue="special").enqueue("4242")
    with pytest.raises(ValueError, match="queue: no task and no job has queue 'spezial'. Did you mean 'special'?"):
        jobs.drain(queue="spezial")
    with pytest.raises(ValueError, match="queue: 5 must be the name of a queue"):
        jobs.drain(queue=5)  # type: ignore[arg-type]
    assert jobs.drain(queue="special").ran == 1
    assert jobs.drain(queue="special").ran == 0


def test_retries_wait_for_the_clock(shop: Shop, jobs: Jobs) -> None:
    """I12: exactly at the backoff, not before."""
    shop.charge.enqueue("4242")
    with jobs.fake(shop.charge, raises=ConnectionError("down"), times=2):
        assert jobs.drain().retrying == 1
        assert jobs.drain().ran == 0
        jobs.advance("59.999s")
        assert jobs.drain().ran == 0
        jobs.advance("1ms")
        assert jobs.drain().retrying == 1
        assert jobs.only("charge").due_in == 120
        assert jobs.drain(until="2m").completed == 1
    assert jobs.now == NOON + dt.timedelta(minutes=3)
    outcomes = [attempt.outcome for attempt in jobs.attempts(jobs.only("charge"))]
    assert outcomes == ["failed", "failed", "succeeded"]


def test_until_moves_to_each_due_time_and_stops_there(shop: Shop, jobs: Jobs) -> None:
    seen: list[dt.datetime] = []

    def look(card: str, cents: int) -> str:
        seen.append(jobs.now)
        return card

    for minutes in (10, 5, 90):
        shop.charge.using(delay=f"{minutes}m").enqueue("x", minutes)
    with jobs.fake(shop.charge, calls=lambda ctx, card, cents=0: look(card, cents)):
        assert jobs.drain(until=NOON + dt.timedelta(hours=1)).completed == 2
    assert seen == [NOON + dt.timedelta(minutes=5), NOON + dt.timedelta(minutes=10)]
    assert jobs.now == NOON + dt.timedelta(hours=1)
    assert jobs.only(state="scheduled").arguments["cents"] == 90


def test_with_scheduled_leaves_nothing_waiting(shop: Shop, jobs: Jobs) -> None:
    shop.charge.using(delay="30d").enqueue("4242")
    with jobs.fake(shop.charge, raises=ConnectionError):
        drained = jobs.drain(with_scheduled=True)
    assert (drained.ran, drained.dead) == (3, 1)
    assert jobs.now == NOON + dt.timedelta(days=30, minutes=3)
    assert jobs.only(state="dead").reason == "attempts_exhausted"


def test_jobs_for_code_that_is_elsewhere_are_left(shop: Shop, jobs: Jobs) -> None:
    """They come due again and again, and would keep a drain busy for ever."""
    shop.app.enqueue("elsewhere", [1])
    drained = jobs.drain(with_scheduled=True)
    assert (drained.ran, drained.scheduled) == (0, 1)
    assert jobs.only("elsewhere").reason == "unknown_task"
    shop.charge.using(delay="1h").enqueue("4242")
    assert jobs.drain(with_scheduled=True).completed == 1


def test_one_queue(shop: Shop, jobs: Jobs) -> None:
    shop.charge.enqueue("4242")
    shop.mail.enqueue("ada")
    assert [job.task for job in jobs.drain(queue="mail").jobs] == ["mail"]
    assert jobs.only(state="queued").task == "charge"


def test_a_paused_queue_waits(shop: Shop, jobs: Jobs) -> None:
    shop.charge.enqueue("4242")
    shop.app.client.pause("default")
    assert jobs.drain(with_scheduled=True).ran == 0
    shop.app.client.resume("default")
    assert jobs.drain().ran == 1


def test_outcomes_are_told_apart(shop: Shop, jobs: Jobs) -> None:
    for raised in (Snooze("1h"), Discard("gone"), ValueError("bad")):
        shop.charge.enqueue("4242")
        with jobs.fake(shop.charge, raises=raised, times=1):
            drained = jobs.drain()
        kind = {"Snooze": "scheduled", "Discard": "dead", "ValueError": "retrying"}[type(raised).__name__]
        assert getattr(drained, kind) == 1, str(drained)


def test_assert_completed_shows_the_trace(shop: Shop, jobs: Jobs) -> None:
    shop.charge.enqueue("4242")
    with jobs.fake(shop.charge, raises=ConnectionError("down")), pytest.raises(AssertionError) as failure:
        jobs.drain().assert_completed()
    assert "1 of 1 job did not complete" in str(failure.value)
    assert "ConnectionError: down" in str(failure.value) and "Traceback" in str(failure.value)


def test_a_process_task_runs_here(shop: Shop, jobs: Jobs) -> None:
    job = shop.resize.enqueue("a.png")
    jobs.drain().assert_completed()
    assert job.result(timeout=0) == "A.PNG" and ("resize", "a.png") in shop.did


def test_resources_of_the_test(shop: Shop, url: str) -> None:
    mine = Mailer()
    with engine(shop.app, url=url, resources={Mailer: mine}) as jobs:
        shop.mail.enqueue("ada")
        jobs.drain().assert_completed()
    assert mine.sent == ["ada"] and shop.mailer.sent == []
    assert "start" not in shop.did


def test_threads_or_the_tests_own(shop: Shop, url: str) -> None:
    ran_in: list[threading.Thread] = []
    for threads in (True, False):
        with engine(shop.app, url=url, threads=threads) as jobs:
            shop.charge.enqueue("4242")
            with jobs.fake(shop.charge, calls=lambda ctx, card: ran_in.append(threading.current_thread())):
                jobs.drain().assert_completed()
    assert [each is threading.current_thread() for each in ran_in] == [False, True]


def test_inline_runs_at_once(shop: Shop, url: str) -> None:
    with engine(shop.app, url=url, inline=True) as jobs:
        assert shop.charge.enqueue("4242").result(timeout=0) == "4242:100"
        shop.order.enqueue(7)
        assert shop.mailer.sent == ["ada"]
        assert {job.state for job in jobs.all()} == {"completed"}
        with jobs.fake(shop.charge, raises=ValueError("bad")):
            failed = shop.charge.enqueue("4242")
        assert failed.state() == "retrying"


def test_inline_on_a_loop(shop: Shop, url: str) -> None:
    async def main() -> None:
        assert await (await shop.charge.aenqueue("4242")).aresult(timeout=0) == "4242:100"
        before = len(jobs.all())
        with pytest.raises(WindlassError, match="await `aenqueue`"):
            shop.charge.enqueue("4242")
        assert len(jobs.all()) == before

    with engine(shop.app, url=url, inline=True) as jobs:
        asyncio.run(main())


def test_on_the_tests_loop(shop: Shop, jobs: Jobs) -> None:
    """An async handler may use what belongs to the loop of the test."""

    async def main() -> None:
        gate = asyncio.get_running_loop().create_future()
        with pytest.raises(WindlassError, match="adrain"):
            jobs.drain()

        async def wait(to: str, mailer: Mailer) -> None:
            gate.get_loop().call_soon(gate.set_result, to)
            assert await gate == "ada"

        await shop.mail.aenqueue("ada")
        with jobs.fake(shop.mail, calls=wait):
            (await jobs.adrain()).assert_completed()

    asyncio.run(main())


def test_a_running_job_can_be_cancelled(shop: Shop, jobs: Jobs) -> None:
    async def main() -> None:
        began = asyncio.Event()

        async def hang(to: str, mailer: Mailer) -> None:
            began.set()
            await asyncio.Event().wait()

        job = await shop.mail.aenqueue("ada")
        with jobs.fake(shop.mail, calls=hang):
            draining = asyncio.create_task(jobs.adrain())
            await began.wait()
            await job.acancel()
            assert (await draining).cancelled == 1

    asyncio.run(main())


def test_a_job_may_wait_for_another_where_there_is_room(shop: Shop, url: str) -> None:
    def wait_for_it(ctx: Any, number: int) -> str:
        return shop.charge.enqueue("4242").result(timeout="20s")

    with engine(shop.app, url=url, concurrency=2) as jobs:
        shop.order.enqueue(1)
        with jobs.fake(shop.order, calls=wait_for_it):
            jobs.drain().assert_completed()
        assert jobs.only("order").result == "4242:100"


def test_a_job_that_keeps_coming_is_an_error(shop: Shop, jobs: Jobs) -> None:
    shop.charge.enqueue("4242")
    with jobs.fake(shop.charge, calls=lambda ctx, card: shop.charge.enqueue(card)):
        with pytest.raises(AssertionError, match="more than 20 runs; jobs that keep coming.*charge"):
            jobs.drain(limit=20)


def test_a_handler_that_hangs_is_an_error(shop: Shop, jobs: Jobs) -> None:
    async def hang(to: str, mailer: Mailer) -> None:
        await asyncio.Event().wait()

    shop.mail.enqueue("ada")
    with (
        jobs.fake(shop.mail, calls=hang),
        pytest.raises(AssertionError, match=r"0\.1 s of real time; running now: mail"),
    ):
        jobs.drain(timeout="100ms")


def test_the_limit_holds_from_one_moment_to_the_next(shop: Shop, jobs: Jobs) -> None:
    """Each due moment is a worker of its own; one that must not begin was waited for in vain."""
    for minutes in range(1, 7):
        shop.charge.using(delay=f"{minutes}m").enqueue("4242")
    with pytest.raises(AssertionError, match=r"drain: more than 3 runs; .* The last were of charge$"):
        jobs.drain(until="10m", limit=3)
    assert jobs.app.client.workers() == []
    assert jobs.drain(until="10m").completed == 2


def test_the_timeout_holds_from_one_moment_to_the_next(shop: Shop, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is up at the second moment, before its worker has had a turn."""
    shop.charge.enqueue("4242")
    shop.charge.using(delay="1m").enqueue("4242")
    move = jobs._bench.move

    def late(instant: int) -> None:
        move(instant)
        monkeypatch.setattr(Bounds, "left", property(lambda bounds: -1.0))

    monkeypatch.setattr(jobs._bench, "move", late)
    with pytest.raises(AssertionError, match=r"drain: not done after 60 s of real time"):
        jobs.drain(until="10m")
    monkeypatch.undo()
    assert jobs.app.client.workers() == []
    assert jobs.drain(until="10m").completed == 1


def test_a_worker_that_never_had_a_turn_is_not_waited_for(
    shop: Shop, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is up between the start of the worker's task and its first turn."""
    looks = iter([False])
    shop.charge.enqueue("4242")
    monkeypatch.setattr(Bounds, "over", property(lambda bounds: next(looks, True)))
    with pytest.raises(AssertionError, match="drain: "):
        jobs.drain()
    monkeypatch.undo()
    assert shop.did == [] and jobs.app.client.workers() == []
    assert jobs.drain().completed == 1


def test_a_start_hook_that_hangs_is_an_error(shop: Shop, jobs: Jobs) -> None:
    unwound: list[bool] = []

    @shop.app.on_worker_start
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            unwound.append(True)

    shop.charge.enqueue("4242")
    with pytest.raises(AssertionError, match=r"drain: not done after 0\.1 s of real time; running now: none"):
        jobs.drain(timeout="100ms")
    assert unwound == [True] and jobs.app.client.workers() == []


@pytest.mark.parametrize("limit", [0, -1, "x", 1.5, True, None])
def test_a_limit_is_a_whole_number_from_one(shop: Shop, jobs: Jobs, limit: Any) -> None:
    shop.charge.enqueue("4242")
    with pytest.raises(InvalidValue, match=r"^limit: .* must be a whole number from 1$"):
        jobs.drain(limit=limit)
    assert jobs.drain(limit=1).completed == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "2"}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"now": 5}, "now"),
        ({"now": dt.date(2026, 5, 1)}, "now"),
        ({"url": 5}, "url"),
        ({"url": None}, "url"),
    ],
)
def test_an_engine_says_what_it_cannot_be(shop: Shop, given: Any, field: str) -> None:
    before = shop.app.engine
    with pytest.raises(WindlassError, match=f"^{field}: "), engine(shop.app, **given):
        pass
    assert shop.app.engine is before


@pytest.mark.parametrize("instant", ["x", 1.5, True, None])
def test_a_clock_shows_whole_microseconds(instant: Any) -> None:
    with pytest.raises(InvalidValue, match="^start: .* must be a whole number of microseconds since 1970"):
        ManualClock(instant)
    clock = ManualClock(7)
    with pytest.raises(InvalidValue, match="^now: .* must be a whole number of microseconds since 1970"):
        clock.set(instant)
    assert clock() == 7


def test_a_start_hook_that_fails_is_told(shop: Shop, jobs: Jobs) -> None:
    @shop.app.on_worker_start
    def broken() -> None:
        raise LookupError("no settings")

    shop.charge.enqueue("4242")
    with pytest.raises(LookupError, match="no settings"):
        jobs.drain()
    assert shop.app.client.workers() == []


def test_transactions_need_a_database(shop: Shop, jobs: Jobs, url: str) -> None:
    def write(ctx: Any, card: str, cents: int = 0) -> str:
        with ctx.transaction() as tx:
            tx.execute("CREATE TABLE mine (x)")
        return "written"

    job = shop.charge.enqueue("4242")
    with jobs.fake(shop.charge, calls=write):
        drained = jobs.drain()
    if url.startswith("memory"):
        assert jobs.only("charge").error is not None and drained.retrying == 1
    else:
        assert drained.completed == 1 and job.result(timeout=0) == "written"


def test_the_applications_own_engine_comes_back(shop: Shop) -> None:
    before = shop.app.engine
    with engine(shop.app) as jobs:
        shop.charge.enqueue("4242")
        shop.app.close()
        assert len(jobs.all()) == 1
    assert shop.app.engine is before
    with pytest.raises(ConfigError, match="nowhere"):
        shop.charge.enqueue("4242")


def test_arguments_that_cannot_be(shop: Shop, jobs: Jobs) -> None:
    with (
        pytest.raises(ConfigError, match="url: .* is the application's own store"),
        engine(shop.app, url=shop.app.settings.url),
    ):
        pass
    with pytest.raises(ValueError, match="now: .* has no time zone"), engine(shop.app, now=dt.datetime(2026, 5, 1)):
        pass
    with pytest.raises(ValueError, match="until: .* has no time zone"):
        jobs.drain(until=dt.datetime(2026, 5, 1))
    with pytest.raises(ValueError, match="until: 'soon' is no duration"):
        jobs.drain(until="soon")
    with pytest.raises(ValueError, match="until: cannot be given together"):
        jobs.drain(until="1h", with_scheduled=True)
    with pytest.raises(ValueError, match="by: "):
        jobs.advance(-1)
    with (
        pytest.raises(ValueError, match="one of returns, raises and calls"),
        jobs.fake("charge", returns=1, raises=ValueError),
    ):
        pass
    with pytest.raises(WindlassError, match="task: 'chage' is not one of this application. Did you mean 'charge'"):
        jobs.crash("chage")
    with pytest.raises(ValueError, match="at: 'later' must be before, during or after"):
        jobs.crash("charge", at="later")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="operation: a store has no 'enque'"):
        jobs.fail_store("enque")


def test_a_failed_job_fails_its_waiter(shop: Shop, jobs: Jobs) -> None:
    job = shop.charge.using(max_attempts=1).enqueue("4242")
    with jobs.fake(shop.charge, raises=LookupError("no card")):
        jobs.drain()
    with pytest.raises(JobFailed, match="no card"):
        job.result(timeout=0)
