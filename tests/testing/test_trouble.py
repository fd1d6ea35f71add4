"""Workers that die and stores that fail, planted by a test, and the product's own recovery."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Any

import pytest

from tests.testing.conftest import NOON, Mailer, Shop
from windlass import StoreUnavailable, WindlassError
from windlass.testing import Jobs, engine


def outcomes(jobs: Jobs, task: str) -> list[str]:
    return [attempt.outcome for attempt in jobs.attempts(jobs.only(task))]


@pytest.mark.parametrize("task", ["charge", "mail"])
def test_before_the_handler_costs_nothing(shop: Shop, jobs: Jobs, task: str) -> None:
    shop.app.enqueue(task, ["ada"])
    jobs.crash(task, at="before")
    drained = jobs.drain().assert_completed()
    assert drained.ran == 1
    assert outcomes(jobs, task) == ["released", "succeeded"]
    assert (jobs.only(task).attempt, jobs.only(task).record.crashes) == (1, 0)


@pytest.mark.parametrize("task", ["charge", "mail"])
def test_during_the_handler_is_a_crash_of_its_own(shop: Shop, jobs: Jobs, task: str) -> None:
    """I6: it costs the crash budget and no attempt."""
    shop.app.enqueue(task, ["ada"])
    jobs.crash(task)
    drained = jobs.drain().assert_completed()
    assert drained.ran == 2
    assert outcomes(jobs, task) == ["crashed", "succeeded"]
    assert (jobs.only(task).attempt, jobs.only(task).record.crashes) == (1, 1)


@pytest.mark.parametrize("task", ["charge", "mail"])
def test_after_the_handler_runs_it_again(shop: Shop, jobs: Jobs, task: str) -> None:
    """At least once: what it did is done twice, unless the task takes care."""
    shop.app.enqueue(task, ["ada"])
    jobs.crash(task, at="after")
    drained = jobs.drain().assert_completed()
    assert drained.ran == 2
    assert outcomes(jobs, task) == ["released", "succeeded"]
    assert shop.mailer.sent == (["ada", "ada"] if task == "mail" else [])


def test_a_poisonous_job_ends(shop: Shop, jobs: Jobs) -> None:
    shop.charge.enqueue("4242")
    shop.mail.enqueue("ada")
    jobs.crash("charge", times=3)
    drained = jobs.drain()
    assert (drained.dead, drained.completed) == (1, 1)
    assert jobs.only("charge").reason == "crashed"


@pytest.mark.parametrize("task", ["charge", "mail"])
def test_a_handler_that_would_have_failed_dies_too(shop: Shop, jobs: Jobs, task: str) -> None:
    shop.app.enqueue(task, ["ada"])
    jobs.crash(task)
    with jobs.fake(task, raises=LookupError, times=1):
        jobs.drain().assert_completed()
    assert outcomes(jobs, task) == ["crashed", "succeeded"]


def test_an_async_handler_dies_at_its_first_wait(shop: Shop, jobs: Jobs) -> None:
    import asyncio

    did: list[str] = []

    async def slow(to: str, mailer: Mailer) -> None:
        did.append("before")
        await asyncio.sleep(0)
        did.append("after")

    shop.mail.enqueue("ada")
    jobs.crash("mail")
    with jobs.fake("mail", calls=slow):
        jobs.drain().assert_completed()
    # A fake's coroutine counts like the handler's own: cut at its first wait, then run whole.
    assert did == ["before", "before", "after"]


def test_kill_at_an_exact_place(shop: Shop, jobs: Jobs) -> None:
    """Once the first result is kept, the second run does not repeat it; and a dead worker keeps nothing more."""
    calls: list[str] = []
    ghosts: list[str] = []

    def pay(ctx: Any, card: str) -> str:
        ctx.once("pay", calls.append, "paid")
        try:
            if not jobs.only("charge").record.crashes:
                jobs.kill()
        finally:
            ghosts.append(jobs.only("charge").state)
        return "done"

    shop.charge.enqueue("4242")
    with jobs.fake("charge", calls=pay):
        drained = jobs.drain().assert_completed()
    assert drained.ran == 2 and calls == ["paid"]
    assert ghosts == ["running", "running"]
    assert outcomes(jobs, "charge") == ["crashed", "succeeded"]


def test_kill_outside_a_job_is_an_error(shop: Shop, jobs: Jobs) -> None:
    with pytest.raises(WindlassError, match="no job runs here"):
        jobs.kill()


@pytest.mark.parametrize("at", ["during", "after"])
def test_a_killed_transaction_leaves_nothing(shop: Shop, jobs: Jobs, url: str, at: Any) -> None:
    """I7: the writes of a handler that died are gone, and those of its second run are there once."""
    if url.startswith("memory"):
        pytest.skip("a memory store has no transactions for handlers")

    def write(ctx: Any, card: str) -> int:
        with ctx.transaction() as tx:
            tx.execute("CREATE TABLE IF NOT EXISTS mine (x)")
            tx.execute("INSERT INTO mine VALUES (1)")
            return int(tx.execute("SELECT count(*) FROM mine").fetchall()[0][0])

    shop.charge.enqueue("4242")
    jobs.crash("charge", at=at)
    with jobs.fake("charge", calls=write):
        jobs.drain().assert_completed()
    assert jobs.only("charge").result == 1
    assert len(jobs.attempts(jobs.only("charge"))) == 2


def test_neighbours_are_not_charged(shop: Shop, url: str) -> None:
    gate = threading.Barrier(2)

    def victim(ctx: Any, number: int) -> None:
        if not jobs.only("order").record.losses:
            gate.wait(10)
            while not ctx.cancelled:  # its worker is being killed under it
                time.sleep(0.001)

    def killer(ctx: Any, card: str) -> None:
        if not jobs.only("charge").record.losses:
            gate.wait(10)
            jobs.kill()

    with engine(shop.app, url=url, concurrency=2) as jobs:
        shop.charge.enqueue("a")
        shop.order.enqueue(1)
        with jobs.fake("charge", calls=killer), jobs.fake("order", calls=victim):
            drained = jobs.drain().assert_completed()
        assert drained.completed == 2
        assert [job.record.crashes for job in jobs.all()] == [0, 0]
        assert [job.record.losses for job in jobs.all()] == [1, 1]


def test_a_machine_that_is_gone_is_found_out_by_its_lease(shop: Shop, jobs: Jobs) -> None:
    """I8: not before the lease has lapsed, and soon after."""
    shop.mail.enqueue("ada")
    jobs.crash("mail", seen=False)
    assert jobs.drain().completed == 0
    assert jobs.only("mail").state == "running"
    hold = shop.app.settings.hold
    jobs.advance(hold - 1)
    assert jobs.drain().ran == 0 and jobs.only("mail").state == "running"
    jobs.advance(hold)
    assert jobs.only("mail").state == "queued"
    assert jobs.drain().completed == 1
    assert outcomes(jobs, "mail") == ["lost", "succeeded"]


def test_a_drain_in_time_waits_for_leases_too(shop: Shop, jobs: Jobs) -> None:
    shop.mail.enqueue("ada")
    jobs.crash("mail", seen=False)
    assert jobs.drain(with_scheduled=True).completed == 1
    assert NOON + dt.timedelta(seconds=15) < jobs.now <= NOON + dt.timedelta(seconds=25)


def test_a_store_that_is_away_refuses(shop: Shop, jobs: Jobs) -> None:
    jobs.fail_store("enqueue")
    with pytest.raises(StoreUnavailable, match="enqueue: planted by the test"):
        shop.charge.enqueue("4242")
    assert jobs.all() == []
    shop.charge.enqueue("4242")
    assert len(jobs.all()) == 1


def test_a_lost_answer_to_an_enqueue_stores_once(shop: Shop, jobs: Jobs) -> None:
    """I1: the answer is lost, the job is not, and sending it again makes no second one."""
    jobs.fail_store("enqueue", applied=True)
    shop.charge.enqueue("4242")
    jobs.assert_enqueued("charge", times=1)


@pytest.mark.parametrize("operation", ["claim", "settle"])
@pytest.mark.parametrize("applied", [False, True])
def test_a_worker_outlives_its_store(shop: Shop, jobs: Jobs, operation: str, applied: bool) -> None:
    shop.charge.enqueue("4242")
    jobs.fail_store(operation, applied=applied, times=2)
    drained = jobs.drain().assert_completed()
    assert drained.ran == 1
    assert outcomes(jobs, "charge") == ["succeeded"]
