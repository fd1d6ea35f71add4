"""I7: a job's completion, what it wrote through `ctx.transaction()` and its children are committed together, or none."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disk import faulty
from tests.faults.kit import broken, count, forks, raw, typed
from tests.faults.shop import MODES, Shop, work_and_die
from tests.worker.harness import FakeLink, World
from windlass import Context
from windlass.core.backoff import Backoff
from windlass.core.errors import StoreTimeout
from windlass.ports.store import Death, Selection
from windlass.testing.conformance.sizes import size

KINDS = ("apsw", "stdlib")
QUICK = {"backoff": Backoff(base=0.001, jitter=0.0)}


def points_of(kind: str, path: Path) -> list[str]:
    """The failpoints of one run that nothing interrupts."""
    names = forks().SimpleQueue()
    process = forks().Process(target=work_and_die, args=(kind, path, "first", 0, names))
    process.start()
    found: list[str] = names.get()
    process.join()
    process.close()
    names.close()
    return found


def kill_at(shop: Shop, worker: str, at: int) -> bool:
    """Whether a worker process was really killed there; what it held is then taken over, as its supervisor would."""
    process = forks().Process(target=work_and_die, args=(shop.kind, shop.path, worker, at))
    process.start()
    process.join()
    killed = process.exitcode == -signal.SIGKILL
    process.close()
    shop.app.opened.shell.run(shop.app.opened.store.reap([Death(worker=worker, observed=True, alone=True)]))
    return killed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_is_killed_around_the_commit(kind: str, mode: str, place: Path, record_property: Any) -> None:
    """I7: at every statement, write and flush from the handler's first line on; afterwards each job ends once."""
    trials = size(50, 250, 2_500)
    path = place / "shop.db"
    jobs: dict[str, int] = {}
    ends: Counter[str] = Counter()
    with Shop(kind, path) as shop:
        shop.pay(mode, -1)
        points = points_of(kind, path)
        assert points[-1] == "after COMMIT"
        assert len(points) > 20
        while ends["kills"] < trials:
            n = len(jobs)
            job = shop.pay(mode, n)
            jobs[job] = n
            # Every other one among the last, which are the commit's.
            at = len(points) - (n // 2) % (20 if n % 2 else len(points))
            killed = kill_at(shop, f"w{n}", at)
            assert shop.torn(job, n) == [], f"trial {n}, killed at {at}: {points[at - 1]}"
            ends["kills"] += killed
            ends["missed"] += not killed  # a page more or less makes the way longer or shorter than the first was
            ends[shop.state(job)] += killed
        assert min(ends["completed"], ends["queued"]) > 0, ends
        assert ends["missed"] < trials / 4, ends
        finish(shop, jobs)
    assert broken(kind, path) == []
    count(record_property, kind=kind, mode=mode, points=len(points), **ends)


def finish(shop: Shop, jobs: dict[str, int]) -> None:
    """Those that were killed before their commit are suspects now: a quarantine worker runs them, each to its end."""

    async def until_completed(world: World, _: FakeLink) -> None:
        await world.until(lambda: all(shop.state(job) == "completed" for job in jobs))

    shop.work(until_completed, worker="quarantine", suspects=True)
    shop.work(worker="notes", queues=[("notes", None)]).sound()
    assert [words for job, n in jobs.items() for words in shop.torn(job, n)] == []
    assert {len(shop.app.client.attempts(job)) for job in jobs} == {1, 2}
    assert shop.app.client.stats(exact=True).states["completed"] == 3 * (len(jobs) + 1)


def test_a_torn_transaction_would_be_seen(place: Path) -> None:
    """The checker, against a job whose row, children or completion was taken away behind the store's back."""
    for sql in (
        "DELETE FROM booked WHERE part = 2",
        "DELETE FROM windlass_jobs WHERE task = 'note' AND seq = (SELECT max(seq) FROM windlass_jobs)",
        "UPDATE windlass_ended SET state = 'dead'",
    ):
        path = place / f"{len(sql)}.db"
        with Shop("apsw", path) as shop:
            job = shop.pay("thread", 1)
            shop.work(lambda world, link: world.until(lambda: world.states()["completed"] == 1), worker="w")
            assert shop.torn(job, 1) == []
            with raw("apsw", path) as connection:
                connection.execute(sql)
            assert len(shop.torn(job, 1)) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_disk_fails_around_the_commit(kind: str, mode: str, place: Path, record_property: Any) -> None:
    """I7, I31: the attempt fails, or what seemed to fail was kept; after the retry each job has ended once."""
    ends: Counter[str] = Counter()
    with faulty(kind) as disk, Shop(kind, place / "shop.db") as shop:
        disk.arm("eio", 0)
        for at in range(1, size(14, 40, 40)):
            for n, act in enumerate(("eio", "torn", "full"), at * 3):
                shop.opened = once(lambda act=act, at=at: disk.arm(act, at))  # type: ignore[misc]
                job = shop.pay(mode, n, max_attempts=3, **QUICK)
                shop.work(lambda world, link, job=job: ended(world, shop, job), worker=f"w{n}").sound()  # type: ignore[misc]
                disk.rest()
                assert shop.torn(job, n) == [], f"{act} at {at}"
                assert shop.state(job) == "completed", f"{act} at {at}"
                ends["jobs"] += 1
                ends["attempts"] += len(shop.app.client.attempts(job))
                ends["struck"] += disk.struck
    assert ends["struck"] >= ends["attempts"] - ends["jobs"] > 0
    assert broken(kind, place / "shop.db") == []
    count(record_property, kind=kind, mode=mode, **ends)


def once(act: Callable[[], object]) -> Callable[[], object]:
    """In the first attempt only."""
    left = [act]
    return lambda: left.pop()() if left else None


async def ended(world: World, shop: Shop, job: str) -> None:
    await world.until(lambda: shop.state(job) in ("completed", "dead"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_takeover_comes_before_the_commit(kind: str, mode: str, place: Path) -> None:
    """I4, I7: the ghost's rows and children are gone; the job is whole in the hands of the next worker. While a
    transaction is open nobody can take its job over: the takeover waits for the same lock."""
    path = place / "shop.db"
    with Shop(kind, path) as shop:
        job = shop.pay(mode, 1)
        store, run = shop.app.opened.store, shop.app.opened.shell.run
        death = store.reap([Death(worker="ghost", observed=True, explained=True)])
        refused: list[BaseException] = []

        def too_late(*_: Any) -> None:
            with pytest.raises(StoreTimeout) as caught:
                run(death, 0.05)
            refused.append(caught.value)

        shop.began = lambda: run(death)
        shop.between = too_late
        shop.work(lambda world, link: world.until(lambda: len(refused) == 1 and link.table.busy == 0), worker="ghost")
        typed(refused[0], StoreTimeout)
        assert (shop.state(job), shop.booked(1), shop.children(job)) == ("queued", 0, 0)
        shop.began = lambda: None
        shop.between = lambda transaction, n: None
        shop.work(lambda world, link: ended(world, shop, job), worker="heir").sound()
        assert shop.torn(job, 1) == []
        assert [each.worker for each in shop.app.client.attempts(job)] == ["ghost", "heir"]


def refuse(*_: Any) -> Any:
    raise ValueError("no")


def commit_by_statement(transaction: Any, n: int) -> None:
    transaction.execute("/* mine */ COMMIT")


def roll_back_by_statement(transaction: Any, n: int) -> None:
    transaction.execute("ROLLBACK")


def roll_back_by_clause(transaction: Any, n: int) -> None:
    """What a handler may well write without thinking of the transaction, and go on after."""
    try:
        transaction.execute("INSERT OR ROLLBACK INTO booked VALUES (?, 1)", (n,))
    except Exception as error:
        assert "UNIQUE" in str(error)


def roll_back_behind(transaction: Any, n: int) -> None:
    """By way of the cursor, which has the library's own connection."""
    transaction.execute("SELECT 1").connection.execute("ROLLBACK")


def roll_back_and_begin(transaction: Any, n: int) -> None:
    connection = transaction.execute("SELECT 1").connection
    connection.execute("ROLLBACK")
    while not connection.in_transaction:
        with suppress(Exception):  # the worker may have taken the lock
            connection.execute("BEGIN IMMEDIATE")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("what", "reason", "words"),
    [
        (refuse, "attempts_exhausted", "no"),
        ("result", "result_unserialisable", "result"),
        (commit_by_statement, "attempts_exhausted", "COMMIT is the worker's"),
        (roll_back_by_statement, "attempts_exhausted", "ROLLBACK is the worker's"),
        (roll_back_by_clause, "attempts_exhausted", "the transaction has ended"),
        (roll_back_behind, "attempts_exhausted", "the transaction has ended"),
        (roll_back_and_begin, "attempts_exhausted", "ended by somebody else"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_what_a_handler_does_to_its_transaction(
    kind: str, mode: str, what: Any, reason: str, words: str, place: Path
) -> None:
    """I7: whatever it does, the job is dead with neither rows nor children, and says why; its worker goes on."""
    with Shop(kind, place / "shop.db") as shop:
        if what == "result":
            shop.result = lambda n: object() if n == 1 else n
        else:
            shop.between = lambda transaction, n: what(transaction, n) if n == 1 else None
        bad, good = (shop.pay(mode, n, max_attempts=1) for n in (1, 2))
        shop.work(lambda world, link: ended_all(world, shop, bad, good), worker="w1", concurrency=1).sound()
        assert (shop.state(bad), shop.booked(1), shop.children(bad)) == ("dead", 0, 0)
        record = shop.app.job(bad).refresh()
        assert record.reason == reason
        assert words in (record.error or "")
        assert shop.torn(good, 2) == []


async def ended_all(world: World, shop: Shop, *jobs: str) -> None:
    for job in jobs:
        await ended(world, shop, job)


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_that_runs_out_of_time_inside(kind: str, place: Path) -> None:
    """I7: cancelled between its writes, an async handler leaves nothing, and the lock is free at once."""
    with Shop(kind, place / "shop.db") as shop:

        @shop.app.task(name="slow", max_attempts=1, timeout="0.05s")
        async def slow(ctx: Context, n: int) -> None:
            with await ctx.atransaction() as transaction:
                transaction.execute("INSERT INTO booked VALUES (?, 1)", (n,))
                await asyncio.sleep(5)

        job = shop.pay("slow", 1)
        shop.work(lambda world, link: ended(world, shop, job), worker="w1").sound()
        assert (shop.state(job), shop.booked(1)) == ("dead", 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cancellation_meets_a_transaction(kind: str, mode: str, place: Path) -> None:
    """I7, I13: asked for before the transaction, it comes too late for the work, or stops it; never the half."""
    with Shop(kind, place / "shop.db") as shop:
        job = shop.pay(mode, 1)
        shop.began = lambda: shop.app.opened.shell.run(shop.app.opened.store.cancel(Selection((job,))))

        async def until_over(world: World, _: FakeLink) -> None:
            await world.until(lambda: shop.state(job) in ("completed", "cancelled"))

        shop.work(until_over, worker="w1").sound()
        assert shop.torn(job, 1) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_transactions_of_many_jobs_at_once(kind: str, mode: str, place: Path) -> None:
    """I7: eight handlers whose transactions take turns, in threads or on one event loop, where the one that holds the
    lock has to get its turn; each job's five parts come together, at the first attempt."""
    with Shop(kind, place / "shop.db") as shop:
        jobs = {shop.pay(mode, n): n for n in range(60)}

        async def until_completed(world: World, _: FakeLink) -> None:
            await world.until(lambda: world.states()["completed"] == len(jobs))

        shop.work(until_completed, worker="w1", concurrency=8).sound()
        assert [words for job, n in jobs.items() for words in shop.torn(job, n)] == []
        assert {len(shop.app.client.attempts(job)) for job in jobs} == {1}


def test_a_blocking_transaction_on_the_loop_is_refused(place: Path) -> None:
    """It would wait for a lock that another job of the same loop holds and cannot give up."""
    with Shop("apsw", place / "shop.db") as shop:

        @shop.app.task(name="blocking", max_attempts=1)
        async def blocking(ctx: Context, n: int) -> None:
            if n:
                with await asyncio.to_thread(ctx.transaction) as transaction:
                    transaction.execute("INSERT INTO booked VALUES (?, 1)", (n,))
            else:
                ctx.transaction()

        bad, good = shop.pay("blocking", 0), shop.pay("blocking", 1)
        shop.work(lambda world, link: ended_all(world, shop, bad, good), worker="w1").sound()
        assert (shop.state(bad), shop.state(good), shop.booked(1)) == ("dead", "completed", 1)
        assert "await ctx.atransaction()" in (shop.app.job(bad).refresh().error or "")


def test_a_transaction_that_nobody_waits_for_any_more(place: Path) -> None:
    """Cancelled while it waits for the lock, a job does not keep the lock that then comes."""
    sessions: list[Any] = []
    with Shop("apsw", place / "shop.db") as shop:

        @shop.app.task(name="late", max_attempts=1, timeout="0.05s")
        async def late(ctx: Context, n: int) -> None:
            sessions.append(shop.app.opened.shell.session())
            await ctx.atransaction()

        async def until_dead(world: World, link: FakeLink) -> None:
            await world.until(lambda: bool(sessions))
            await world.until(lambda: link.table.busy == 0)
            sessions[0].rollback()
            await ended(world, shop, job)

        job = shop.pay("late", 1)
        shop.work(until_dead, worker="w1").sound()
        assert shop.state(job) == "dead"
        shop.pay("note", 2)  # the lock is free
