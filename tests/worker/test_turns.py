"""What goes wrong between one turn and the next: tokens granted anew, rows that nobody understands, slots that stay full."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from functools import reduce
from operator import xor
from typing import Any

import pytest

from tests.worker.harness import FakeLink, World, task
from windlass import JobFailed, Windlass
from windlass.core.backoff import Backoff
from windlass.core.errors import Retry, StoreCorrupt, StoreError
from windlass.core.job import Failed, Held, NewJob, Policy, State, Succeeded
from windlass.core.placement import job_id
from windlass.ports.plan import Plan, Statement, Steps
from windlass.ports.store import Selection, token_hash
from windlass.runtime import process_slot, worker
from windlass.runtime.context import Context, current_run
from windlass.runtime.letters import LINES
from windlass.runtime.registry import Mode, Registry
from windlass.runtime.timers import FEW, Timers
from windlass.runtime.worker import Worker
from windlass.stores.sqlite.store import RAW

ONCE = Policy(max_attempts=1)


async def echo(value: object = None) -> object:
    return value


def agreed(world: World, link: FakeLink) -> bool:
    """Whether worker and store count the same tokens, as the next beat will ask."""
    tokens = world.run(world.store.held(link.worker_id))
    return link.table.held() == (len(tokens), reduce(xor, map(token_hash, tokens), 0))


def test_a_job_that_its_own_turn_grants_again_is_held_by_the_new_token(tmp_path: Any) -> None:
    """I5: settled and claimed in one transaction, it must not be taken for lost, and run a second time beside itself."""
    runs: list[int] = []

    async def at_once() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise Retry(0)
        await asyncio.sleep(60)

    with World(tmp_path, task("r", at_once), task("a", echo)) as world:
        world.enqueue("r", head_start=1_000_000)  # first again, as soon as it is due
        world.enqueue_many("a", [()] * 1_000)  # enough to claim in the turn that settles it

        async def script(link: FakeLink) -> None:
            await world.until(lambda: world.states()["completed"] == 1_000)
            await world.until(lambda: agreed(world, link))  # once its last turn is answered; never, if not
            link.worker.reconcile()
            await world.until(lambda: not link.worker._reconcile)
            link.worker.stop(0.0, "end of test")

        world.work(script)
        assert len(runs) == 2
        world.sound()


def test_a_row_of_another_version_is_parked(tmp_path: Any) -> None:
    """I23, I25: what this version cannot read waits for one that can, and stops nobody."""
    with World(tmp_path, task("a", echo)) as world:
        strange = NewJob(
            id=job_id(1, b"\1" * 10), task="a", payload="[[],{}]", meta='{"policy":{"backoff":{"curve":"fibonacci"}}}'
        )
        world.run(world.store.enqueue([strange]))
        world.enqueue("a")

        async def settled(_: FakeLink) -> None:
            await world.until(lambda: world.states()["completed"] == 1 and world.states()["scheduled"] == 1)

        world.work(settled)
        job = world.job(strange.id)
        assert (job.state, job.reason, job.attempt) == (State.SCHEDULED, "unknown_version", 0)


@pytest.mark.parametrize("error", [StoreCorrupt("pages"), StoreError("locking protocol")], ids=["corrupt", "refused"])
def test_a_store_in_trouble_buries_nobody(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, error: StoreError) -> None:
    """A failure that is not a row's own passes: the outcome waits for the store, and is kept."""
    troubles = [error] * 2

    with World(tmp_path, task("a", echo)) as world:
        real = type(world.store)._apply

        def trouble(self: Any, *move: Any) -> Any:
            if troubles:
                raise troubles.pop()
            return real(self, *move)

        monkeypatch.setattr(type(world.store), "_apply", trouble)
        job = world.enqueue("a", "paid")
        world.work()
        assert (world.job(job).state, world.job(job).result) == (State.COMPLETED, '"paid"')


def test_a_table_that_is_gone_for_a_while_costs_no_result(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is tried meanwhile is tried after longer and longer pauses."""
    pauses: list[float] = []
    back = asyncio.Event()

    def rename(old: str, new: str) -> None:
        def steps() -> Steps[None]:
            yield Statement(RAW, (f"ALTER TABLE {old} RENAME TO {new}",))

        world.run(Plan(steps, "by hand", write=True))

    def lose() -> str:
        rename("windlass_ended", "elsewhere")
        return "paid"

    real = Worker._failed

    async def failed(self: Worker, error: StoreError, failures: int) -> None:
        before = asyncio.get_running_loop().time()
        await real(self, error, failures)
        pauses.append(asyncio.get_running_loop().time() - before)
        if len(pauses) == 4:
            rename("elsewhere", "windlass_ended")
            back.set()

    async def script(_: FakeLink) -> None:
        await back.wait()
        await world.until(lambda: world.states()["completed"] == 1)

    monkeypatch.setattr(Worker, "_failed", failed)
    with World(tmp_path, task("lose", lose)) as world:
        job = world.enqueue("lose")
        world.work(script)
        assert (world.job(job).state, world.job(job).result) == (State.COMPLETED, '"paid"')
        assert len(pauses) == 4
        assert sum(pauses) > 0.5


def test_what_a_job_with_a_transaction_says_is_kept(tmp_path: Any) -> None:
    """Its log lines wait for the lock that it holds, and come when it has ended."""
    with Windlass(f"sqlite:///{tmp_path}/jobs.db") as app:

        @app.task(name="charge")
        def charge(ctx: Context) -> None:
            ctx.log("before")
            ctx.transaction()
            ctx.log("inside")
            ctx.progress(5, 10)
            ctx.log("last words")

        job = charge.enqueue()
        embedded = app.run_embedded()
        try:
            job.result(timeout=10)
        finally:
            assert embedded.stop(5)
        assert [line.message for line in app.client.logs(job.id)] == ["before", "inside", "last words"]
        assert app.client.fetch(job.id).progress is not None


def test_a_report_outlives_a_turn_that_failed(tmp_path: Any) -> None:
    from windlass.core.job import LogLine, Token

    with World(tmp_path, task("a", echo)) as world:

        async def script(link: FakeLink) -> None:
            this, token = link.worker, Token("x", 1)
            this._lines = [(token, LogLine(2, "info", "later"))]
            this._keep_reports([], [(token, LogLine(1, "info", "sooner"))])
            assert [line.message for _, line in this._lines] == ["sooner", "later"]
            this._lines = []

        world.work(script)


async def claimed_ahead(world: World, link: FakeLink, asked: float | None = None) -> None:
    """Have the worker claim what it has no slot for."""
    this = link.worker
    this._seq += 1
    claimed = await this._shell.run(world.store.claim("w1", this._seq, this._request(3)))
    this._granted(claimed, this._hints, this._loop.time() if asked is None else asked)
    this._fill()


def test_what_was_claimed_ahead_does_not_wait_for_long(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a job that lasts, they are another worker's to run: uncharged, at their old place."""
    monkeypatch.setattr(worker, "AHEAD_MOST", 0.02)
    begun, release = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        release.wait(10)

    with World(tmp_path, task("w", wait), task("a", echo), concurrency=1) as world:
        world.enqueue("w")
        others: list[str] = []

        async def script(link: FakeLink) -> None:
            await world.until(begun.is_set)
            others.extend(world.enqueue_many("a", [()] * 3))
            await claimed_ahead(world, link)
            assert world.states()["running"] == 4
            await world.until(lambda: world.states()["queued"] == 3)
            assert {world.job(job).attempt for job in others} == {0}
            release.set()
            await world.until_done(link)

        world.work(script)


def test_what_was_claimed_ahead_still_expires(tmp_path: Any) -> None:
    """If it has not started by then, it never will."""
    begun, release = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        release.wait(10)

    with World(tmp_path, task("w", wait), task("a", echo), concurrency=1) as world:
        world.enqueue("w")

        async def script(link: FakeLink) -> None:
            await world.until(begun.is_set)
            late, fine = world.enqueue("a", expires_after=3_600_000_000), world.enqueue("a", expires_after=3_700_000_000)
            await claimed_ahead(world, link, asked=link.worker._loop.time() - 3_650)
            release.set()
            await world.until_done(link)
            assert (world.job(late).state, world.job(late).attempt) == (State.EXPIRED, 0)
            assert world.job(fine).state is State.COMPLETED

        world.work(script)


def test_a_job_is_timed_from_its_start_not_from_its_place_in_the_line(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight jobs and one process slot: the last must not die of the others' time."""

    class Slot:
        pid = 1
        healthy = True

        async def run(self, run: Any) -> Any:
            return Succeeded("1")

    async def process_slot(self: Any) -> Any:
        await asyncio.sleep(0.1)
        return Slot()

    monkeypatch.setattr(FakeLink, "process_slot", process_slot, raising=False)
    monkeypatch.setattr(FakeLink, "release_slot", lambda *_: None, raising=False)
    with World(tmp_path, task("p", echo, Mode.PROCESS)) as world:
        job = world.enqueue("p", policy=Policy(timeout=0.05, max_attempts=1))
        world.work()
        assert world.job(job).state is State.COMPLETED


def test_a_cancel_that_is_said_again_interrupts_once(tmp_path: Any) -> None:
    """Every beat repeats it; the handler that cleans up is left to do so."""
    steps: list[str] = []
    cleaning = asyncio.Event()

    async def tidy() -> None:
        try:
            steps.append("run")
            await asyncio.sleep(60)
        finally:
            cleaning.set()
            for n in range(3):
                await asyncio.sleep(0.01)
                steps.append(f"clean {n}")

    with World(tmp_path, task("t", tidy)) as world:
        job = world.enqueue("t")

        async def script(link: FakeLink) -> None:
            await world.until(lambda: steps == ["run"])
            world.run(world.store.cancel(Selection((job,))))
            link.worker.cancel([job])
            await cleaning.wait()
            for _ in range(3):
                link.worker.cancel([job])
                await asyncio.sleep(0)
            await world.until(lambda: world.job(job).state is State.CANCELLED)

        world.work(script)
        assert steps == ["run", "clean 0", "clean 1", "clean 2"]


@pytest.mark.parametrize("mode", [Mode.ASYNC, Mode.THREAD])
def test_a_stop_charges_nobody_whatever_the_handler_makes_of_it(tmp_path: Any, mode: Mode) -> None:
    """I26: a cancellation that comes out as another exception is a stop all the same."""

    async def on_the_loop() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise RuntimeError("interrupted") from None

    def in_a_thread(ctx: Context) -> None:
        while not ctx.cancelled:
            time.sleep(0.001)
        raise RuntimeError("interrupted")

    handler: Any = on_the_loop if mode is Mode.ASYNC else in_a_thread
    context = {} if mode is Mode.ASYNC else {"context": 0}
    with World(tmp_path, task("h", handler, mode, **context)) as world:
        job = world.enqueue("h", policy=ONCE)

        async def script(link: FakeLink) -> None:
            await world.until(lambda: world.states()["running"] == 1 and bool(link.table.executing()))
            link.worker.stop(0.0, "deploy")

        world.work(script)
        assert (world.job(job).state, world.job(job).attempt) == (State.QUEUED, 0)


def test_ended_runs_leave_the_timers(tmp_path: Any) -> None:
    """I29: one job with a limit of an hour does not keep all that end in that hour."""

    class Brief:
        deadline: float | None = None

    async def main() -> None:
        timers = Timers(asyncio.get_running_loop(), lambda _: None)
        timers.add(Brief(), 3_600.0)  # type: ignore[arg-type]
        for _ in range(10 * FEW):
            brief: Any = Brief()
            timers.add(brief, 7_200.0)
            timers.clear(brief)
        assert len(timers._heap) <= 2 * FEW
        timers.close()

    asyncio.run(main())


def test_a_worker_keeps_one_alarm(tmp_path: Any) -> None:
    """I29: however often it finds nothing to do while a job is due in an hour."""
    with World(tmp_path, task("a", echo)) as world:
        world.enqueue("a", after=3_600_000_000)

        async def script(link: FakeLink) -> None:
            for _ in range(100):
                before = link.worker._seq
                link.worker.wake()
                await world.until(lambda before=before: link.worker._seq > before and link.worker._dry)  # type: ignore[misc]
            alarms = [t for t in link.worker._loop._scheduled if not t.cancelled()]  # type: ignore[attr-defined]
            assert len(alarms) < 10

        world.work(script)


def test_an_async_handler_in_a_process_knows_its_run() -> None:
    """What it enqueues is its child, and belongs to its transaction."""
    seen: list[Any] = []

    async def who() -> None:
        seen.append(current_run.get())

    held = Held("id", 1, "w", 1, "default", "", "[[],{}]", "{}", 1, 0, 0, False, 50, 0, 0, 0)
    registry = Registry(tasks={"w": task("w", who, Mode.PROCESS)})
    nothing: Any = None
    with asyncio.Runner() as runner:
        for _ in range(2):
            outcome = process_slot._run(runner, registry, nothing, nothing, held, {}, "w1")
            assert isinstance(outcome, Succeeded)
    assert [run.held for run in seen] == [held, held]
    current_run.set(None)


def test_a_generator_from_a_process_is_no_coroutine() -> None:
    """Python 3.11's asyncio takes one for the other; as a result it cannot be stored, and its code is never run."""
    ran: list[int] = []

    def numbers() -> Any:
        return (ran.append(n) for n in range(3))

    held = Held("id", 1, "w", 1, "default", "", "[[],{}]", "{}", 1, 0, 0, False, 50, 0, 0, 0)
    registry = Registry(tasks={"w": task("w", numbers, Mode.PROCESS)})
    nothing: Any = None
    with asyncio.Runner() as runner:
        outcome = process_slot._run(runner, registry, nothing, nothing, held, {}, "w1")
    current_run.set(None)
    assert isinstance(outcome, Failed)
    assert (outcome.reason, ran) == ("result_unserialisable", [])


def test_backoff_of_nothing_is_a_turn_apart(tmp_path: Any) -> None:
    """I6: attempts that follow each other at once are counted like others."""
    runs: list[int] = []

    async def broken() -> None:
        runs.append(1)
        raise ValueError("no")

    with World(tmp_path, task("b", broken)) as world:
        job = world.enqueue("b", policy=Policy(max_attempts=20, backoff=Backoff(base=0, jitter=0)))
        world.work()
        assert (len(runs), world.job(job).state, world.job(job).attempt) == (20, State.DEAD, 20)
        world.sound()


def test_a_child_with_a_key_of_anothers_ends_its_parent_alone(tmp_path: Any) -> None:
    """The rest of the batch is not held up, and the parent says why."""
    with Windlass(f"sqlite:///{tmp_path}/jobs.db") as app:

        @app.task(name="other")
        async def other(n: int) -> int:
            return n

        @app.task(name="parent")
        async def parent(ctx: Context, n: int) -> None:
            ctx.enqueue(other.using(idempotency_key="k" if n == 7 else f"k{n}"), n)

        first = other.using(idempotency_key="k").enqueue(99)
        jobs = parent.enqueue_many([(n,) for n in range(20)])
        embedded = app.run_embedded()
        try:
            with pytest.raises(JobFailed, match="belongs to job " + first.id):
                jobs[7].result(timeout=10)
            assert [job.result(timeout=10) for job in jobs if job is not jobs[7]] == [None] * 19
        finally:
            assert embedded.stop(5)
        assert app.client.fetch(jobs[7].id).reason == "unsettleable"


def test_dead_letters_are_in_the_log(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    """One line each, as many in a second as anybody would read; what is tried again is none."""

    def fail(n: int) -> None:
        raise LookupError(f"no {n}\nsecond line")

    with World(tmp_path, task("fail", fail)) as world:
        jobs = world.enqueue_many("fail", [(n,) for n in range(LINES + 3)], policy=ONCE)
        world.enqueue("fail", 99, policy=Policy(max_attempts=2, backoff=Backoff(base=60)))
        with caplog.at_level(logging.WARNING, "windlass.worker"):
            world.work(lambda link: world.until(lambda: world.states()["dead"] == len(jobs)))
        said = [record for record in caplog.records if "died" in record.getMessage()]
        facts: list[Any] = [getattr(record, "facts", None) for record in said]
        assert {each["job"] for each in facts[:LINES]} <= set(jobs)
        assert (facts[0]["task"], facts[0]["reason"]) == ("fail", "attempts_exhausted")
        assert facts[0]["error"].startswith("LookupError: no ")
        assert len(facts[0]["group"]) == 12
        assert [record.getMessage() for record in said[LINES:]] == [
            "more jobs have died within a second than are told here; see `windlass dead groups`"
        ]
