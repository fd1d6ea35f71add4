"""The worker against a real SQLite store, its keeper played by the test."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sqlite3
import sys
import threading
import time
from contextlib import closing, suppress
from typing import Any

import pytest

from tests.worker.harness import FakeLink, World, task
from windlass.core.backoff import Backoff
from windlass.core.errors import Discard, OutcomeUnknown, PayloadInvalid, Retry, Snooze, StoreError, StoreUnavailable
from windlass.core.job import Policy, State
from windlass.ports.store import Death, Selection
from windlass.runtime import worker
from windlass.runtime.context import Context
from windlass.runtime.executor import Executor
from windlass.runtime.registry import Mode
from windlass.runtime.slots import SlotTable

QUICK = Policy(backoff=Backoff(base=0.001, jitter=0.0))


async def echo(value: object = None) -> object:
    return value


def test_jobs_of_every_kind_complete(tmp_path: Any) -> None:
    """I2: async and thread handlers end in one terminal state, results kept, nothing held afterwards."""
    with World(tmp_path, task("a", echo), task("t", lambda x: x + 1)) as world:
        first = world.enqueue_many("a", [(n,) for n in range(300)])
        second = world.enqueue_many("t", [(n,) for n in range(300)])
        link = world.work()
        assert world.states()["completed"] == 600
        assert [world.job(first[7]).result, world.job(second[7]).result] == ["7", "8"]
        assert link.table.held() == (0, 0)
        assert link.table.executing() == []
        assert link.has_stopped
        world.sound()


def test_a_failure_is_tried_again_and_remembered(tmp_path: Any) -> None:
    seen: list[int] = []

    async def twice(x: int) -> str:
        seen.append(x)
        if len(seen) < 3:
            raise ValueError(f"no {len(seen)}")
        return "yes"

    with World(tmp_path, task("twice", twice)) as world:
        job = world.enqueue("twice", 1, policy=QUICK)
        world.work()
        assert world.job(job).state is State.COMPLETED
        assert [(a.number, a.outcome) for a in world.attempts(job)] == [(1, "failed"), (2, "failed"), (3, "succeeded")]
        assert "no 2" in world.attempts(job)[1].error


def test_attempts_run_out(tmp_path: Any) -> None:
    """I6: no more starts than max_attempts."""
    starts: list[int] = []

    def broken() -> None:
        starts.append(1)
        raise RuntimeError("always")

    with World(tmp_path, task("broken", broken)) as world:
        job = world.enqueue("broken", policy=Policy(max_attempts=3, backoff=Backoff(base=0.001, jitter=0)))
        world.work()
        found = world.job(job)
        assert (found.state, found.reason, len(starts)) == (State.DEAD, "attempts_exhausted", 3)
        assert "always" in (found.error or "")


@pytest.mark.parametrize(
    ("raised", "state", "reason"),
    [
        (Discard("not wanted"), State.DEAD, "not wanted"),
        (Retry(0.001, "later"), State.DEAD, "attempts_exhausted"),
        (SystemExit(3), State.DEAD, "attempts_exhausted"),
        (Retry("soon"), State.DEAD, "attempts_exhausted"),  # a delay that is none fails the attempt, not the worker
    ],
)
def test_what_a_handler_may_raise(tmp_path: Any, raised: BaseException, state: State, reason: str) -> None:
    async def handler() -> None:
        raise raised

    with World(tmp_path, task("h", handler), task("a", echo)) as world:
        job = world.enqueue("h", policy=Policy(max_attempts=2, backoff=Backoff(base=0.001, jitter=0)))
        world.enqueue("a")
        world.work()
        assert (world.job(job).state, world.job(job).reason) == (state, reason)
        assert world.states()["completed"] == 1


def test_a_snooze_costs_no_attempt(tmp_path: Any) -> None:
    runs: list[int] = []

    async def sleepy() -> None:
        runs.append(1)
        if len(runs) < 8:
            raise Snooze(0.001)

    with World(tmp_path, task("sleepy", sleepy)) as world:
        job = world.enqueue("sleepy", policy=Policy(max_attempts=1))
        world.work()
        assert (world.job(job).state, world.job(job).attempt, len(runs)) == (State.COMPLETED, 1, 8)


def test_a_result_that_cannot_be_kept_ends_the_job(tmp_path: Any) -> None:
    """I24: dead with the reason, never stuck, never tried again."""

    def refuse(_: object) -> str:
        raise PayloadInvalid("result", "is not JSON")

    with World(tmp_path, task("a", echo, encode=refuse)) as world:
        job = world.enqueue("a", 1)
        world.work()
        assert (world.job(job).state, world.job(job).reason) == (State.DEAD, "result_unserialisable")


def test_unknown_work_is_parked_uncharged(tmp_path: Any) -> None:
    """I22: an unknown task and a newer payload wait, with their reason, for a worker that knows them."""
    with World(tmp_path, task("a", echo)) as world:
        strange = world.enqueue("strange")
        newer = world.enqueue("a", version=2)
        fine = world.enqueue("a")

        async def settled(_: FakeLink) -> None:
            await world.until(lambda: world.states()["scheduled"] == 2 and world.states()["completed"] == 1)

        world.work(settled)
        assert [world.job(j).reason for j in (strange, newer)] == ["unknown_task", "unknown_version"]
        assert [world.job(j).attempt for j in (strange, newer, fine)] == [0, 0, 1]


def test_of_many_unknown_tasks_a_claim_names_the_latest_only(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "EXCLUDED_MOST", 8)
    named: list[int] = []
    with World(tmp_path, task("a", echo)) as world:
        for n in range(40):
            world.enqueue(f"strange{n}")
        fine = world.enqueue("a")

        async def settled(link: FakeLink) -> None:
            await world.until(lambda: world.states()["scheduled"] == 40 and world.states()["completed"] == 1)
            named.append(len(link.worker._request(1).exclude))

        world.work(settled)
        assert named == [8]
        assert world.job(fine).state == State.COMPLETED
        world.sound()


def test_a_timeout_stops_an_async_handler(tmp_path: Any) -> None:
    async def forever() -> None:
        await asyncio.sleep(60)

    with World(tmp_path, task("f", forever)) as world:
        job = world.enqueue("f", policy=Policy(timeout=0.02, max_attempts=1))
        world.work()
        assert world.job(job).state is State.DEAD
        assert "TimeoutError" in (world.job(job).error or "")
        assert world.attempts(job)[0].reason == "attempts_exhausted"


def test_a_cancel_stops_what_runs_and_what_waits_in_the_worker(tmp_path: Any) -> None:
    """I13: no success after a cancel was accepted and the handler was stopped."""
    started = asyncio.Event()

    async def forever() -> None:
        started.set()
        await asyncio.sleep(60)

    with World(tmp_path, task("f", forever), concurrency=1) as world:
        running = world.enqueue("f")

        async def script(link: FakeLink) -> None:
            await started.wait()
            assert world.run(world.store.cancel(Selection((running,)))).asked == (running,)
            answer = world.beat()
            assert answer.cancel == (running,)
            link.worker.cancel(answer.cancel)
            await world.until(lambda: world.states()["cancelled"] == 1)

        world.work(script)
        assert world.job(running).state is State.CANCELLED


def test_a_stop_hands_back_what_has_not_begun(tmp_path: Any) -> None:
    """I26: unstarted jobs go back uncharged at their old rank; running ones finish."""
    release = threading.Event()
    begun = threading.Event()

    def wait() -> str:
        begun.set()
        release.wait(10)
        return "done"

    with World(tmp_path, task("w", wait), concurrency=1) as world:
        first = world.enqueue("w")

        async def script(link: FakeLink) -> None:
            await world.until(begun.is_set)
            link.worker._buffer.extend(  # as a claim ahead of a free slot would
                (await link.worker._shell.run(world.store.claim("w1", 10_000, link.worker._request(3)))).jobs
            )
            link.worker._seq = 10_000
            link.worker._holdings.take(list(link.worker._buffer))
            assert len(link.worker._buffer) == 3
            link.worker.stop(5.0, "deploy")
            await world.until(lambda: world.states()["queued"] == 3)
            release.set()

        others = []

        async def with_others(link: FakeLink) -> None:
            await world.until(begun.is_set)
            others.extend(world.enqueue_many("w", [()] * 3))
            await script(link)

        world.work(with_others)
        assert world.job(first).result == '"done"'
        assert [(world.job(j).state, world.job(j).attempt) for j in others] == [(State.QUEUED, 0)] * 3
        world.sound()


def test_at_the_deadline_async_jobs_are_handed_back_uncharged(tmp_path: Any) -> None:
    async def forever() -> None:
        await asyncio.sleep(60)

    with World(tmp_path, task("f", forever)) as world:
        job = world.enqueue("f")

        async def script(link: FakeLink) -> None:
            await world.until(lambda: world.states()["running"] == 1)
            link.worker.stop(0.01, "deploy")

        world.work(script)
        assert (world.job(job).state, world.job(job).attempt) == (State.QUEUED, 0)
        assert world.attempts(job)[0].outcome == "released"


def test_a_ghost_settles_nothing(tmp_path: Any) -> None:
    """I4: after a takeover the old owner's outcome is refused, and it is not told that it was kept."""
    release = asyncio.Event()

    async def wait() -> str:
        await release.wait()
        return "ghost"

    with World(tmp_path, task("w", wait)) as world:
        job = world.enqueue("w")

        async def script(link: FakeLink) -> None:
            await world.until(lambda: world.states()["running"] == 1)
            world.run(world.store.reap([Death(worker="w1", observed=True, executing=(), detail="test")]))
            release.set()
            await world.until(lambda: len(link.worker._settler) == 0 and not link.worker._executor.running)

        world.work(script)
        assert (world.job(job).state, world.job(job).result) == (State.QUEUED, None)
        world.sound()


class Flaky:
    """An Opened whose async shell loses answers or fails as told."""

    def __init__(self, opened: Any, before: list[Any], after: list[Any]) -> None:
        self._opened = opened
        self.store = opened.store
        self.shell = opened.shell
        self.before = before
        self.after = after

    def async_shell(self) -> Any:
        real = self._opened.async_shell()
        flaky = self

        class Shell:
            async def run(self, plan: Any, timeout: float | None = None) -> Any:
                if flaky.before and "claim" in plan.name:
                    raise flaky.before.pop()
                answer = await real.run(plan, timeout)
                if flaky.after and "claim" in plan.name:
                    raise flaky.after.pop()
                return answer

        return Shell()


@pytest.mark.parametrize("lost", [1, 3])
def test_a_lost_claim_answer_is_recovered(tmp_path: Any, lost: int) -> None:
    """Jobs granted under a claim whose answer was lost still run, once each, by the same worker."""
    runs: list[int] = []

    async def note(n: int) -> None:
        runs.append(n)

    with World(tmp_path, task("n", note)) as world:
        jobs = world.enqueue_many("n", [(n,) for n in range(40)])
        world.work(opened=Flaky(world.opened, [], [OutcomeUnknown("cut") for _ in range(lost)]))
        assert sorted(runs) == list(range(40))
        assert {len(world.attempts(j)) for j in jobs} == {1}
        world.sound()


def test_a_store_that_is_away_is_waited_for(tmp_path: Any) -> None:
    with World(tmp_path, task("a", echo)) as world:
        world.enqueue_many("a", [(n,) for n in range(10)])
        world.work(opened=Flaky(world.opened, [StoreUnavailable("away"), StoreUnavailable("away")], []))
        assert world.states()["completed"] == 10


def test_one_bad_row_does_not_stop_the_others(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """I23: a row that the store refuses fails alone; the batch around it is settled."""
    with World(tmp_path, task("a", echo)) as world:
        jobs = world.enqueue_many("a", [(n,) for n in range(20)])
        real = type(world.store)._apply

        def picky(self: Any, moves: Any, given: Any, now: int) -> Any:
            if any(t.result == "13" for _, t in moves):
                raise StoreError("this row is refused")
            return real(self, moves, given, now)

        monkeypatch.setattr(type(world.store), "_apply", picky)
        world.work()
        assert world.states()["completed"] == 19
        assert (world.job(jobs[13]).state, world.job(jobs[13]).reason) == (State.DEAD, "unsettleable")


def test_reconciling_hands_back_what_only_the_store_knows(tmp_path: Any) -> None:
    with World(tmp_path, task("a", echo), task("f", lambda: None)) as world:

        async def script(link: FakeLink) -> None:
            await world.until(lambda: link.worker._dry)
            job = world.enqueue("a", 5)
            claimed = await link.worker._shell.run(world.store.claim("w1", 10_000, link.worker._request(1)))
            assert [h.id for h in claimed.jobs] == [job]
            link.worker._seq = 10_000
            assert world.beat().mismatch
            link.worker.reconcile()
            link.worker.wake()
            await world.until_done(link)
            assert not world.beat().mismatch

        world.work(script)
        assert world.states()["completed"] == 1


def test_threads_see_the_context_of_their_job(tmp_path: Any) -> None:
    """A context variable set by one job is not seen by the next in the same thread."""
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)
    seen: list[int] = []

    def handler() -> None:
        seen.append(var.get())
        var.set(7)

    with World(tmp_path, task("h", handler), concurrency=1) as world:
        world.enqueue_many("h", [()] * 5)
        world.work()
        assert seen == [0] * 5


def test_resources_are_injected_by_type(tmp_path: Any) -> None:
    class Model:
        closed = False

    model = Model()

    async def load() -> Any:
        yield model
        model.closed = True

    stopped: list[str] = []

    async def use(model: Model) -> bool:
        return model.closed

    with World(tmp_path, task("u", use, resources={"model": Model})) as world:
        world.registry.start_hooks.append(load)
        world.registry.stop_hooks.append(lambda: stopped.append("stopped"))
        job = world.enqueue("u")
        world.work()
        assert (world.job(job).result, model.closed, stopped) == ("false", True, ["stopped"])


def test_a_delayed_job_is_started_on_time_without_a_hint(tmp_path: Any) -> None:
    """I14: never early, and not only when the next slow poll comes round."""
    started: list[int] = []

    async def note() -> None:
        started.append(time.time_ns() // 1_000)

    with World(tmp_path, task("n", note)) as world:
        job = world.enqueue("n", after=80_000)
        world.work()
        late = started[0] - world.job(job).due_at
        assert 0 <= late < 500_000


def test_two_workers_share_without_a_double(tmp_path: Any) -> None:
    """I5: one store, two workers on two loops at once; each job runs once."""
    runs: list[int] = []

    async def note(n: int) -> None:
        runs.append(n)

    with World(tmp_path, task("n", note)) as world:
        world.enqueue_many("n", [(n,) for n in range(2_000)])
        threads = [threading.Thread(target=world.work, kwargs={"worker": f"w{n}"}) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(runs) == list(range(2_000))
        world.sound()


class Abort(BaseException):
    """What no `except Exception` catches."""


class Unspeakable(Exception):
    """Cannot be written down, nor asked what its answer was."""

    @property
    def response(self) -> Any:
        sys.exit(7)

    def __str__(self) -> str:
        raise SystemExit(7)


class Nameless(type):
    """Its classes do not say where they come from."""

    @property
    def __module__(cls) -> str:  # type: ignore[override]
        sys.exit(7)


class Anonymous(Exception, metaclass=Nameless):
    """See Nameless."""


@pytest.mark.parametrize("mode", [Mode.ASYNC, Mode.THREAD])
@pytest.mark.parametrize(
    "raised",
    [Abort("enough"), GeneratorExit(), KeyboardInterrupt(), Unspeakable(), Anonymous()],
    ids=["abort", "generator_exit", "interrupt", "unspeakable", "anonymous"],
)
def test_whatever_is_raised_ends_the_attempt(tmp_path: Any, raised: BaseException, mode: Mode) -> None:
    """I2: nothing that user code raises, then or when it is asked about it, leaves its job running."""

    async def coroutine() -> None:
        raise raised

    def plain() -> None:
        raise raised

    handler = coroutine if mode is Mode.ASYNC else plain
    with World(tmp_path, task("h", handler), task("good", lambda: 1), concurrency=1) as world:
        job = world.enqueue("h", policy=Policy(max_attempts=2, backoff=Backoff(base=0.001, jitter=0)))
        world.enqueue("good")
        world.work()
        assert (world.job(job).state, world.job(job).reason) == (State.DEAD, "attempts_exhausted")
        assert world.states()["completed"] == 1
        world.sound()


def test_an_abort_gives_the_stores_lock_back(tmp_path: Any) -> None:
    async def handler(ctx: Any) -> None:
        await ctx.atransaction()
        raise Abort

    with World(tmp_path, task("h", handler, context=0)) as world:
        job = world.enqueue("h", policy=Policy(max_attempts=1))
        world.work()
        assert world.job(job).state is State.DEAD
        world.enqueue("h", policy=Policy(max_attempts=1))


@pytest.mark.parametrize("answer", [GeneratorExit, SystemExit, Abort])
def test_a_cancel_is_final_however_it_is_answered(tmp_path: Any, answer: type[BaseException]) -> None:
    """I13."""
    started = asyncio.Event()

    async def handler() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise answer from None

    with World(tmp_path, task("h", handler)) as world:
        job = world.enqueue("h")

        async def script(link: FakeLink) -> None:
            await started.wait()
            world.run(world.store.cancel(Selection(ids=(job,))))
            link.worker.cancel([job])
            await world.until(world.idle)

        world.work(script)
        assert world.job(job).state is State.CANCELLED


@pytest.mark.parametrize("mode", [Mode.ASYNC, Mode.THREAD])
def test_who_returns_after_a_cancel_has_not_completed(tmp_path: Any, mode: Mode) -> None:
    """I13: nor are its children enqueued, nor is what it wrote in its transaction kept."""
    started = threading.Event()

    async def on_the_loop(ctx: Context) -> str:
        (await ctx.atransaction()).execute("CREATE TABLE paid (x)")
        started.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done"

    def in_a_thread(ctx: Context) -> str:
        ctx.transaction().execute("CREATE TABLE paid (x)")
        started.set()
        while not ctx.cancelled:
            time.sleep(0.001)
        return "done"

    handler: Any = on_the_loop if mode is Mode.ASYNC else in_a_thread
    with World(tmp_path, task("h", handler, mode, context=0)) as world:
        job = world.enqueue("h")

        async def script(link: FakeLink) -> None:
            await world.until(started.is_set)
            link.worker.cancel([job])
            await world.until(world.idle)

        world.work(script)
        assert (world.job(job).state, world.job(job).result) == (State.CANCELLED, None)
        with closing(sqlite3.connect(tmp_path / "jobs.db")) as db:
            assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'paid'").fetchall()


def test_a_cancel_after_the_return_came_too_late(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever was first stands: the work is done."""
    ended: list[str] = []
    end = Executor._thread_ended

    def cancelled_then_ended(self: Executor, run: Any, outcome: Any) -> None:
        self.cancel(run.held.id)
        ended.append(run.held.id)
        end(self, run, outcome)

    monkeypatch.setattr(Executor, "_thread_ended", cancelled_then_ended)
    with World(tmp_path, task("h", lambda: 1, Mode.THREAD)) as world:
        job = world.enqueue("h")
        world.work()
        assert ended == [job]
        assert world.job(job).state is State.COMPLETED


def test_binding_is_under_the_eye_of_the_supervisor(tmp_path: Any) -> None:
    """I6: it runs user code, which may kill or hang the worker: the job is marked, with its hard limit, before it."""
    seen: list[Any] = []

    def bind(payload: str, version: int) -> Any:
        seen.extend(link.table.executing())
        sys.exit(7)

    link: Any = None

    async def script(this: FakeLink) -> None:
        nonlocal link
        link = this
        job = world.enqueue("h", policy=Policy(max_attempts=2, timeout=5.0, backoff=Backoff(base=0.001, jitter=0)))
        this.worker.wake()
        await world.until(lambda: world.job(job).state is State.DEAD)
        assert world.job(job).reason == "attempts_exhausted"
        assert "SystemExit" in (world.job(job).error or "")
        assert [(entry.job_id, entry.hard_deadline > 0) for entry in seen] == [(job, True)] * 2

    with World(tmp_path, task("h", echo, bind=bind)) as world:
        world.work(script)
        assert link.table.begun() == []


class Spied(SlotTable):
    """Notes what is given back, and in which state."""

    __slots__ = ("given_back",)

    def end(self, slot: int) -> None:
        [entry] = [each for each in self.begun() if each.slot == slot]
        self.given_back.append(entry)
        super().end(slot)


def test_what_has_ended_is_marked_until_it_is_settled(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """I6: what a handler leaves behind may kill the worker before its outcome is kept."""
    table = Spied()
    table.given_back = []
    monkeypatch.setattr("tests.worker.harness.SlotTable", lambda: table)
    with World(tmp_path, task("a", echo), task("t", lambda: 1), concurrency=2) as world:
        jobs = [*world.enqueue_many("a", [(n,) for n in range(20)]), *world.enqueue_many("t", [()] * 20)]
        world.work()
    assert sorted(entry.job_id for entry in table.given_back) == sorted(jobs)
    assert all(entry.ended for entry in table.given_back)
    assert table.begun() == []


@pytest.mark.parametrize("mode", [Mode.ASYNC, Mode.PROCESS])
def test_a_cancel_before_the_first_step_is_heard(tmp_path: Any, mode: Mode) -> None:
    """I2, I13: nothing of a coroutine runs then, so nothing in it can say how it ended."""

    async def handler() -> None:
        await asyncio.Event().wait()

    async def script(link: FakeLink) -> None:
        executor = link.worker._executor
        start = executor.start

        def start_and_cancel(held: Any) -> None:
            start(held)
            executor.cancel(held.id)

        executor.start = start_and_cancel  # type: ignore[method-assign]
        job = world.enqueue("h")
        link.worker.wake()
        await world.until(world.idle)
        assert world.job(job).state is State.CANCELLED

    with World(tmp_path, task("h", handler, mode)) as world:
        world.work(script)


@pytest.mark.parametrize("mode", [Mode.ASYNC, Mode.THREAD])
@pytest.mark.parametrize("leaving", [None, 0, 5, "a word"])
def test_a_fork_does_not_become_a_second_worker(tmp_path: Any, mode: Mode, leaving: Any) -> None:
    """I28: the child of a handler that forks ends where its handler ends, with the status that it asked for."""

    def fork() -> int:
        child = os.fork()
        if child == 0 and leaving is not None:
            sys.exit(leaving)
        return child and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    async def coroutine() -> int:
        return fork()

    with World(tmp_path, task("h", fork if mode is Mode.THREAD else coroutine, mode)) as world:
        job = world.enqueue("h")
        world.work()
        status = {None: 0, "a word": 1}.get(leaving, leaving)
        assert (world.job(job).state, world.job(job).result) == (State.COMPLETED, str(status))


def test_a_million_reports_are_one_wake_up(tmp_path: Any) -> None:
    """A handler that never waits must not fill the loop's queue."""
    calls: list[Any] = []

    async def handler(ctx: Any) -> None:
        loop = asyncio.get_running_loop()
        before = len(loop._ready)  # type: ignore[attr-defined]
        for n in range(1_000):
            ctx.progress(n, 1_000)
        calls.append(len(loop._ready) - before)  # type: ignore[attr-defined]

    with World(tmp_path, task("h", handler, context=0)) as world:
        job = world.enqueue("h")
        world.work()
        assert calls == [1]
        assert '"done":999' in (world.job(job).progress or "").replace(" ", "").replace(".0", "")
