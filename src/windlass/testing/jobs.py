"""What a test does with the jobs of an application: run them, look at them, turn the clock, break things."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import msgspec

from windlass.app import Windlass
from windlass.core.duration import Duration, micros, seconds
from windlass.core.errors import InvalidValue, StoreError, StoreUnavailable, WindlassError
from windlass.core.job import Attempt, State
from windlass.core.words import count, near
from windlass.declaration import Call
from windlass.names import shown
from windlass.ports.store import Filter
from windlass.runtime.context import current_run
from windlass.task import Task
from windlass.testing.bench import Bench, BenchEngine, Setting, check_url, real_now
from windlass.testing.clock import CENTURY, ManualClock
from windlass.testing.faults import At, Fake, StoreFault, WorkerKilled, lost_answer
from windlass.testing.life import Bounds
from windlass.testing.seen import SeenJob, Wanted, complaint, listing, named, see

LIMIT = 10_000
"""Runs of one drain, unless said otherwise."""
TIMEOUT = 60.0
"""Real seconds of one drain, unless said otherwise."""

AnyTask = Task[..., Any] | str


class Drained(msgspec.Struct, frozen=True):
    """What a drain did: how many runs, and what became of the jobs that were taken up."""

    ran: int
    """Handlers that were started, each retry and each run after a crash counted."""
    jobs: tuple[SeenJob, ...]
    """The jobs that were taken up, as they stand now, in the order in which they were first taken up."""

    @property
    def completed(self) -> int:
        """How many of them completed."""
        return self._count(State.COMPLETED)

    @property
    def retrying(self) -> int:
        """How many failed and wait for another attempt."""
        return self._count(State.RETRYING)

    @property
    def scheduled(self) -> int:
        """How many were put off (snoozed, or parked because their code is not here)."""
        return self._count(State.SCHEDULED)

    @property
    def dead(self) -> int:
        """How many are dead letters now."""
        return self._count(State.DEAD)

    @property
    def cancelled(self) -> int:
        """How many were cancelled while they ran."""
        return self._count(State.CANCELLED)

    def _count(self, state: State) -> int:
        return sum(job.state is state for job in self.jobs)

    def assert_completed(self) -> Self:
        """Raises AssertionError, with the error and its trace, unless every job that was taken up completed."""
        failed = [job for job in self.jobs if job.state is not State.COMPLETED]
        if failed:
            traces = [f"{job}\n{job.error.trace}" if job.error else str(job) for job in failed]
            how_many = f"{len(failed)} of {count(len(self.jobs), 'job')} did not complete"
            raise AssertionError("\n".join([f"{how_many}:", *traces]))
        return self

    def __str__(self) -> str:
        states = Counter(job.state.value for job in self.jobs)
        return f"ran {self.ran}: " + (", ".join(f"{number} {state}" for state, number in states.items()) or "nothing")


class Jobs:
    """The jobs of an application under test. Made by `windlass.testing.engine`.

    Nothing runs unless `drain` (or `adrain`, on an event loop) is called; nothing comes due unless the clock is moved.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._from = 0

    @property
    def app(self) -> Windlass:
        """The application."""
        return self._bench.app

    # --- running -----------------------------------------------------------------------------------------------------

    def drain(
        self,
        *,
        queue: str | None = None,
        until: Duration | dt.datetime | None = None,
        with_scheduled: bool = False,
        limit: int = LIMIT,
        timeout: Duration = TIMEOUT,
    ) -> Drained:
        """Run all that is due, and what that enqueues, in the real worker, until nothing is due any more.

        `until` goes on in time: a duration from now, or an instant with a time zone. The clock moves exactly to each
        moment at which something comes due (a retry, a delayed job, a tick of a schedule, a lapsed lease), and in the
        end to `until`. `with_scheduled` goes on until no job waits; schedules, which never end, do not tick. `queue`
        leaves the other queues alone. A job that fails has failed, as in a real worker: look at the answer, or call its
        `assert_completed`.

        Raises AssertionError after `limit` runs, or `timeout` of real time; WindlassError on a running event loop;
        ValueError, naming the argument, for one that is wrong.
        """
        import asyncio

        self._bench.refuse_loop("drain() would stop the event loop; write `await jobs.adrain()`")
        with asyncio.Runner() as runner:
            return runner.run(
                self.adrain(queue=queue, until=until, with_scheduled=with_scheduled, limit=limit, timeout=timeout)
            )

    async def adrain(
        self,
        *,
        queue: str | None = None,
        until: Duration | dt.datetime | None = None,
        with_scheduled: bool = False,
        limit: int = LIMIT,
        timeout: Duration = TIMEOUT,
    ) -> Drained:
        """`drain` for an event loop: async handlers run on this very loop."""
        if until is not None and with_scheduled:
            raise ValueError("until: cannot be given together with with_scheduled, which goes on without an end")
        end = None if until is None else self._instant(until, "until")
        bounds = Bounds(seconds(timeout, "timeout"), _whole(limit, "limit"))
        queues = () if queue is None else (self._known_queue(queue),)
        taken: dict[str, None] = {}
        while True:
            taken.update(dict.fromkeys(await self._bench.work_off(bounds, queues)))
            event = self._bench.next_event(ticks=end is not None) if end is not None or with_scheduled else None
            if event is None or (end is not None and event > end):
                break
            self._bench.move(event)
        if end is not None:
            self._bench.move(end)
        records = self._bench.run(self._bench.real.store.fetch(list(taken)))
        return Drained(bounds.ran, tuple(self._see(record) for record in records if record is not None))

    def _known_queue(self, queue: str) -> str:
        """A queue that some task or job has: a drain of any other would do nothing, and pass for one."""
        if not isinstance(queue, str):
            raise InvalidValue("queue", f"{shown(queue)} must be the name of a queue")
        known = set(self.app.registry.queues)
        if queue not in known:
            known |= {job.queue for job in self.all()}
        if queue not in known:
            raise InvalidValue("queue", f"no task and no job has queue {queue!r}.{near(queue, known)}")
        return queue

    # --- time --------------------------------------------------------------------------------------------------------

    @property
    def clock(self) -> ManualClock:
        """The store's clock. `advance` and `drain` move it; set it back by hand to see what that does."""
        return self._bench.clock

    @property
    def now(self) -> dt.datetime:
        """The store's time, in UTC."""
        return dt.datetime.fromtimestamp(self._bench.clock() / 1e6, dt.UTC)

    def advance(self, by: Duration) -> dt.datetime:
        """Move the clock, run nothing, and answer the new time. `by` is a duration of at most a century.

        Schedules enqueue what ticks on the way. Whoever has died unseen meanwhile is found out (see `crash`). Raises
        ValueError for what is no duration.
        """
        self._bench.move(self._bench.clock() + micros(by, "by", most=CENTURY))
        return self.now

    def _instant(self, when: Duration | dt.datetime, name: str) -> int:
        if not isinstance(when, dt.datetime):
            return self._bench.clock() + micros(when, name, most=CENTURY)
        if when.utcoffset() is None:
            raise ValueError(f"{name}: {when.isoformat()} has no time zone; write for instance jobs.now + timedelta(1)")
        return round(when.timestamp() * 1e6)

    # --- looking -----------------------------------------------------------------------------------------------------

    def all(self, task: AnyTask | None = None, *, state: str | None = None, queue: str | None = None) -> list[SeenJob]:
        """The jobs there are, first enqueued first, whatever became of them; of one task, state or queue.

        Raises InvalidValue for a task that neither the application nor any job has, and for what is no state.
        """
        states = () if state is None else (_state(state),)
        name = None if task is None else self._spoken_of(task)
        found = self._bench.jobs(Filter(states=states, queue=queue, task=name))
        return [self._see(record) for record in found]

    def only(self, task: AnyTask | None = None, *, state: str | None = None, queue: str | None = None) -> SeenJob:
        """The one job that `all` finds; raises AssertionError if it finds none, or several."""
        found = self.all(task, state=state, queue=queue)
        if len(found) != 1:
            raise AssertionError(f"expected one job, found {len(found)}.\n{listing(found or self.all())}")
        return found[0]

    def attempts(self, job: SeenJob | str) -> list[Attempt]:
        """Every ended run of a job, oldest first."""
        found: list[Attempt] = self._bench.run(self._bench.real.store.attempts(job if isinstance(job, str) else job.id))
        return found

    def assert_enqueued(
        self,
        task: AnyTask,
        /,
        *args: Any,
        times: int | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: Duration | None = None,
        at: dt.datetime | None = None,
        tags: Sequence[str] | None = None,
        state: str | None = None,
        **kwargs: Any,
    ) -> SeenJob:
        """Check that a job of `task` was enqueued, whatever became of it since, and answer the last such job.

        Arguments are compared by name; those that are left out, and options that are None, may be anything, and
        objects that equal anything (`unittest.mock.ANY`) do. `times` is how many such jobs there must be exactly, at
        least one without it. Where a parameter of the task is called as one of these options, pass `task.call(...)` as
        the only argument.

        Raises AssertionError that shows the nearest job and lists what was enqueued; TypeError for arguments that the
        task does not take.
        """
        if times is not None:
            _whole(times, "times", "; where there must be no job, say assert_not_enqueued")
        wanted = self._wanted(task, args, kwargs, queue, priority, delay, at, tags, state)
        jobs = self.all()
        found = [job for job in jobs if job.task == wanted.task and not wanted.differences(job)]
        if not found or (times is not None and len(found) != times):
            raise AssertionError(complaint(wanted, times, len(found), jobs))
        return found[-1]

    def assert_not_enqueued(
        self,
        task: AnyTask,
        /,
        *args: Any,
        queue: str | None = None,
        priority: int | None = None,
        delay: Duration | None = None,
        at: dt.datetime | None = None,
        tags: Sequence[str] | None = None,
        state: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Check that there is no such job; arguments and errors as of `assert_enqueued`. Raises InvalidValue for a
        task that neither the application nor any job has: of such a one there never is a job."""
        wanted = self._wanted(task, args, kwargs, queue, priority, delay, at, tags, state)
        jobs = self.all(task)
        found = [job for job in jobs if not wanted.differences(job)]
        if found:
            raise AssertionError(f"expected no job {wanted}, found {len(found)}.\n{listing(found)}")

    def _wanted(
        self, task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any], queue: str | None, priority: int | None,
        delay: Duration | None, at: dt.datetime | None, tags: Sequence[str] | None, state: str | None,
    ) -> Wanted:  # fmt: skip
        if len(args) == 1 and isinstance(args[0], Call):
            args, kwargs = args[0].args, args[0].kwargs
        return Wanted(
            _name(task),
            named(self.app, _name(task), args, kwargs),
            queue,
            priority,
            None if delay is None else seconds(delay, "delay"),
            at,
            None if tags is None else tuple(tags),
            None if state is None else _state(state),
        )

    def _see(self, record: Any) -> SeenJob:
        return see(self.app, record, self._bench.clock())

    # --- trouble -----------------------------------------------------------------------------------------------------

    @contextmanager
    def fake(
        self,
        task: AnyTask,
        *,
        returns: Any = None,
        raises: BaseException | type[BaseException] | None = None,
        calls: Callable[..., Any] | None = None,
        times: int | None = None,
    ) -> Iterator[None]:
        """Let something else stand in for a task's handler, in the block: it `returns` a value, `raises` an exception,
        or `calls` a function with the handler's arguments (its Context and resources among them). Everything around
        the handler stays real: arguments, results, retries.

        `times` is for how many runs; the handler itself runs after those, so `raises=ConnectionError("down"), times=2`
        is a remote side that is back at the third attempt. Raises ValueError for two of the three.
        """
        if (returns is not None) + (raises is not None) + (calls is not None) > 1:
            raise ValueError("fake: one of returns, raises and calls, please")
        error = raises() if isinstance(raises, type) else raises
        entry = self._bench.faults.fake(self._known(task), Fake(returns=returns, raises=error, calls=calls), times)
        try:
            yield
        finally:
            self._bench.faults.unfake(_name(task), entry)

    def crash(self, task: AnyTask, *, at: At = "during", times: int = 1, seen: bool = True) -> None:
        """Kill the worker, as `kill -9` would, the next `times` times that it has a job of `task` in its hands.

        `at` is "before" the handler begins; "during": at the first `await` of an `async def` that really waits, and
        otherwise as the handler ends (for an exact place, see `kill`); or "after": the handler has returned and
        nothing of that is stored. Recovery is the real one: jobs that had not begun are handed back, a crash that is
        certainly a job's own counts against its crash_budget, it runs alone next.

        `seen=False` is a machine that is gone, with nobody to see it: its jobs are taken over once the clock has gone
        past the worker's lease. Raises ValueError for another `at`.
        """
        if at not in ("before", "during", "after"):
            raise ValueError(f"at: {at!r} must be before, during or after")
        self._bench.faults.crash(self._known(task), at, times, seen=seen)

    def kill(self) -> None:
        """Kill the worker from inside: called by something that a handler calls, say a fake of a mail server.

        Raises WorkerKilled, which no `except Exception` catches, and WindlassError outside a handler. A dead process
        runs no `finally`; Python does, but nothing that it does there reaches the store.
        """
        if current_run.get() is None or self._bench.life is None:
            raise WindlassError("kill: no job runs here; call it from what a handler calls")
        self._bench.faults.seen = True
        raise WorkerKilled

    def fail_store(
        self, operation: str, error: StoreError | None = None, *, times: int = 1, applied: bool = False
    ) -> None:
        """Let the store fail at the next `times` plans with this operation: "enqueue", "claim", "settle", "fetch",
        "cancel", or another of `windlass.ports.store.Store`.

        `error` is what it raises, StoreUnavailable unless said otherwise. With `applied` the work is done and only the
        answer is lost, which the caller has to find out. Raises ValueError for what is no operation of a store.
        """
        if not hasattr(self._bench.real.store, operation):
            raise ValueError(f"operation: a store has no {operation!r}")
        default = lost_answer(operation) if applied else StoreUnavailable(f"{operation}: planted by the test")
        self._bench.faults.fail_store(StoreFault(operation, error or default, applied=applied), times)

    def _known(self, task: AnyTask) -> str:
        """A task whose handler is here."""
        name = _name(task)
        if name not in self.app.tasks:
            raise InvalidValue("task", f"{name!r} is not one of this application.{near(name, self.app.tasks)}")
        return name

    def _spoken_of(self, task: AnyTask) -> str:
        """A task that is here, or that some job has: an assertion about any other would hold whatever happens."""
        name = _name(task)
        known = set(self.app.tasks)
        if name not in known:
            known |= {record.task for record in self._bench.jobs(Filter())}
        if name not in known:
            raise InvalidValue("task", f"neither the application nor any job has {name!r}.{near(name, known)}")
        return name


def _name(task: AnyTask) -> str:
    if not isinstance(task, (str, Task)):
        raise InvalidValue("task", f"{shown(task)} must be a task or the name of one")
    return task if isinstance(task, str) else task.name


def _state(state: str) -> State:
    if state not in list(State):
        raise InvalidValue("state", f"{shown(state)} must be one of {', '.join(State)}")
    return State(state)


def _check_zoned(now: object) -> None:
    if not isinstance(now, dt.datetime) or now.utcoffset() is None:
        raise InvalidValue("now", f"{now} has no time zone; give a datetime with one, or None")


def _whole(value: object, field: str, hint: str = "") -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidValue(field, f"{shown(value)} must be a whole number from 1{hint}")
    return value


@contextmanager
def engine(
    app: Windlass,
    *,
    url: str = "memory://",
    now: dt.datetime | None = None,
    concurrency: int = 1,
    threads: bool = True,
    inline: bool = False,
    resources: dict[Any, Any] | None = None,
) -> Iterator[Jobs]:
    """Give `app` a store of its own for the block, with a clock that the test turns, and run its jobs when asked to.

    `url` names the store: the memory store, or a file in a temporary directory ("sqlite:////tmp/x/jobs.db"), which
    tasks with `ctx.transaction()` need. `now` is where the clock begins, at the real time unless said otherwise.

    The worker is the product's own, in this process. It runs `concurrency` jobs at a time; one makes the order of
    events certain. `async def` handlers run on the event loop of the drain, `def` ones in threads, or with
    `threads=False` on the loop too, for code that must stay in the test's thread (a database transaction that the test
    rolls back); `ctx.transaction()` is not for those. Tasks with executor="process" run in this process as well. Start
    hooks run at the beginning of each drain and end with it; `resources` maps types to values that are injected
    instead of what the hooks return.

    `inline` runs each job as soon as it is enqueued, before `enqueue` returns, so that `job.result()` answers at once.

    Raises ConfigError for the URL that `app` itself uses, and as `windlass.stores.open`; InvalidValue for another
    argument that is wrong.
    """
    if now is not None:
        _check_zoned(now)
    _whole(concurrency, "concurrency")
    clock = ManualClock(real_now() if now is None else round(now.timestamp() * 1e6))
    setting = Setting(concurrency, threads, inline, dict(resources or {}))
    bench = Bench(app, check_url(app, url), clock, setting)
    before, app.engine = app.engine, BenchEngine(app, bench)
    try:
        yield Jobs(bench)
    finally:
        app.engine = before
        bench.close()
