"""One store, opened under one manual clock, and short words for what every chapter does with it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import pytest

from windlass.core.job import (
    Attempt,
    Held,
    Job,
    Meta,
    NewJob,
    Outcome,
    Settled,
    Token,
    Transition,
)
from windlass.core.machine import decide
from windlass.core.placement import job_id
from windlass.ports.plan import Plan, chain
from windlass.ports.store import (
    BeatAnswer,
    Claimed,
    ClaimRequest,
    Enqueued,
    Opened,
    Quota,
    Store,
    WorkerReport,
)
from windlass.testing.clock import ManualClock

T = TypeVar("T")

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
HOLD = 15 * SECOND

Script = Generator[Plan[Any], Any, Any]
"""One actor among several: yields plans, receives their answers; written once for threads and for an event loop."""

Opener = Callable[[Path, ManualClock], Opened]


class Runner(Protocol):
    """How plans are run: the one thing in which the blocking and the async half of the suite differ."""

    def run(self, opened: Opened, plan: Plan[T], timeout: float | None = None) -> T:
        """Run one plan."""
        ...

    def together(self, opened: Opened, scripts: Sequence[Script]) -> list[Any]:
        """Run scripts at once, and answer what each returned."""
        ...

    def close(self, opened: Opened) -> None:
        """Close a store with its shells."""
        ...

    def end(self) -> None:
        """Leave nothing behind."""
        ...


class World:
    """A store as the chapters see it; `kind` is "sync" or "async"."""

    def __init__(self, opener: Opener, path: Path, clock: ManualClock, kind: str) -> None:
        self.kind = kind
        self.clock = clock
        self.figures: dict[str, int] = {}
        """What a proof went through, for the report of the run."""
        self._open = opener
        self._path = path
        self.runner: Runner = Threads() if kind == "sync" else Loop()
        self._others: list[Opened] = []
        self._made = itertools.count(1)  # also from many threads at once: none has the id of another
        self._seqs: dict[str, int] = {}
        self.known: dict[str, None] = {}
        """Every id that was enqueued here, for `dump`."""
        self.opened = opener(path, clock)

    @property
    def store(self) -> Store:
        """Its plans."""
        return self.opened.store

    def need(self, capability: str) -> None:
        """Skip the test unless the store has the capability."""
        if capability not in self.store.capabilities:
            pytest.skip(f"the store does not have the capability {capability!r}")

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """Run one plan through this world's shell."""
        return self.runner.run(self.opened, plan, timeout)

    def together(self, *scripts: Script) -> list[Any]:
        """Run scripts at once, each in its own thread or task; raises what one of them raised."""
        return self.runner.together(self.opened, scripts)

    def another(self) -> Opened:
        """The same store, opened once more, as another process would."""
        opened = self._open(self._path, self.clock)
        self._others.append(opened)
        return opened

    def elsewhere(self) -> Opened:
        """Another store of the same kind, migrated and empty."""
        path = self._path / "elsewhere"
        path.mkdir()
        self._others.append(self._open(path, self.clock))
        self.run_on(self._others[-1], self._others[-1].store.migrate())
        return self._others[-1]

    def run_on(self, opened: Opened, plan: Plan[T]) -> T:
        """Run one plan through another opening."""
        return self.runner.run(opened, plan)

    def reopen(self) -> None:
        """Close the store and open it again."""
        self.runner.close(self.opened)
        self.opened = self._open(self._path, self.clock)

    def close(self) -> None:
        """Leave nothing behind."""
        for opened in [*self._others, self.opened]:
            self.runner.close(opened)
        self.runner.end()

    # --- making things -------------------------------------------------------------------------------------

    def job(self, **given: Any) -> NewJob:
        """A new job with an id of its own, later than every id before."""
        number = next(self._made).to_bytes(10, "big")
        given.setdefault("id", job_id(self.clock() // 1_000 & 0xFFFFFFFFFFFF, number))
        given.setdefault("task", "tests.task")
        given.setdefault("payload", "[[],{}]")
        return NewJob(**given)

    def jobs(self, count: int, **given: Any) -> list[NewJob]:
        """Several of them."""
        return [self.job(**given) for _ in range(count)]

    def enqueue(self, *jobs: NewJob) -> list[Enqueued]:
        """Enqueue a batch."""
        self.known |= dict.fromkeys(job.id for job in jobs)
        return self.run(self.store.enqueue(jobs))

    def put(self, **given: Any) -> str:
        """Enqueue one job and answer its id."""
        job = self.job(**given)
        assert self.enqueue(job) == [Enqueued(job.id, inserted=True)]
        return job.id

    def beat(self, worker: str, **given: Any) -> BeatAnswer:
        """One beat of one worker."""
        return self.run(self.store.beat([report(worker, **given)]))[0]

    def claim(
        self, worker: str = "w1", limit: int = 10, *, queue: str = "default", seq: int | None = None, **given: Any
    ) -> Claimed:
        """Claim from one queue, under a seq of its own unless one is given."""
        request = ClaimRequest(limit, (Quota(queue, limit),), **given)
        return self.run(self.store.claim(worker, self.next_seq(worker) if seq is None else seq, request))

    def next_seq(self, worker: str) -> int:
        """The seq of this worker's next claim."""
        self._seqs[worker] = self._seqs.get(worker, 0) + 1
        return self._seqs[worker]

    def running(self, worker: str = "w1", **given: Any) -> Held:
        """A job that was just granted to `worker`, which is made to beat first."""
        self.beat(worker)
        job = self.put(**given)
        held = self.run(self.store.claim_ids(worker, self.next_seq(worker), [job])).jobs
        assert [h.id for h in held] == [job]
        return held[0]

    def settle(self, *transitions: Transition, worker: str = "w1") -> list[Settled]:
        """Settle a batch."""
        return self.run(self.store.settle(worker, transitions))

    def end(self, held: Held, outcome: Outcome, worker: str = "w1") -> Settled:
        """Settle one run by what it produced, by the job's own policy, without jitter."""
        policy = msgspec.json.decode(held.meta, type=Meta).policy
        return self.settle(decide(held, policy, outcome, 0.0), worker=worker)[0]

    # --- looking -------------------------------------------------------------------------------------------

    def fetch(self, job: str) -> Job:
        """One job that must be there."""
        found = self.run(self.store.fetch([job]))[0]
        assert found is not None, f"job {job} is not in the store"
        return found

    def attempts(self, job: str) -> list[Attempt]:
        """Its history."""
        return self.run(self.store.attempts(job))

    def outcomes(self, job: str) -> list[str]:
        """How its attempts ended."""
        return [attempt.outcome for attempt in self.attempts(job)]

    def healthy(self) -> None:
        """The store's own records must not contradict each other (I3)."""
        assert self.run(self.store.audit()) == []

    def dump(self) -> dict[str, Any]:
        """Everything that can be read, for comparing before with after, or one store with another."""
        store, ids = self.store, list(self.known)
        infos = self.run(store.workers())
        infos.sort(key=lambda info: info.id)
        workers = sorted({info.id for info in infos} | self._seqs.keys())
        parts = chain(
            store.fetch(ids),
            store.stats(exact=True),
            store.queues(),
            store.schedules(),
            *(store.attempts(job) for job in ids),
            *(store.logs(job) for job in ids),
            *(store.held(worker) for worker in workers),
        )
        jobs, stats, queues, schedules, *rest = self.run(parts)
        return {
            "jobs": [readable(job) for job in jobs],
            "states": {state: count for state, count in stats.states.items() if count},
            "workers": infos,
            "queues": queues,
            "schedules": schedules,
            "attempts": rest[: len(ids)],
            "logs": rest[len(ids) : 2 * len(ids)],
            "held": [sorted(held, key=token_order) for held in rest[2 * len(ids) :]],
        }


class Threads:
    """Runs plans with the blocking shell; scripts in threads."""

    def run(self, opened: Opened, plan: Plan[T], timeout: float | None = None) -> T:
        """See Runner.run."""
        return opened.shell.run(plan, timeout)

    def together(self, opened: Opened, scripts: Sequence[Script]) -> list[Any]:
        """See Runner.together."""
        answers: list[Any] = [None] * len(scripts)
        failures: list[BaseException] = []
        gate = threading.Barrier(len(scripts))  # or the first would be done before the last has begun

        def act(place: int, script: Script) -> None:
            gate.wait()
            try:
                answers[place] = _follow(script, opened.shell.run)
            except BaseException as failure:  # told to the test, which is in another thread
                failures.append(failure)

        threads = [threading.Thread(target=act, args=each) for each in enumerate(scripts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return answers

    def close(self, opened: Opened) -> None:
        """See Runner.close."""
        opened.close()

    def end(self) -> None:
        """See Runner.end."""


class Loop:
    """Runs plans with the async shell, on one event loop; scripts in tasks."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def run(self, opened: Opened, plan: Plan[T], timeout: float | None = None) -> T:
        """See Runner.run."""

        async def once() -> T:
            return await opened.async_shell().run(plan, timeout)

        return self._runner.run(once())

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop of the shells."""
        return self._runner.run(work)

    def together(self, opened: Opened, scripts: Sequence[Script]) -> list[Any]:
        """See Runner.together."""

        async def act(script: Script) -> Any:
            answer: Any = None
            try:
                while True:
                    answer = await opened.async_shell().run(script.send(answer))
                    await asyncio.sleep(0)  # a shell that never waits would let nobody else in
            except StopIteration as end:
                return end.value

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(act(script) for script in scripts))

        return self._runner.run(all_of_them())

    def close(self, opened: Opened) -> None:
        """See Runner.close."""

        async def close() -> None:
            await opened.async_shell().close()

        self._runner.run(close())
        opened.close()

    def end(self) -> None:
        """See Runner.end."""
        self._runner.close()


def _follow(script: Script, run: Callable[[Plan[Any]], Any]) -> Any:
    answer: Any = None
    try:
        while True:
            answer = run(script.send(answer))
    except StopIteration as end:
        return end.value


@contextmanager
def open_world(opener: Opener, path: Path, kind: str, clock: ManualClock | None = None) -> Iterator[World]:
    """A migrated store in the empty directory `path`, closed at the end."""
    world = World(opener, path, clock or ManualClock(), kind)
    try:
        world.run(world.store.migrate())
        yield world
    finally:
        world.close()


def report(worker: str, **given: Any) -> WorkerReport:
    """What a worker says of itself."""
    said: dict[str, Any] = {"id": worker, "supervisor": "s1", "host": "host", "pid": 1, "hold": HOLD}
    return WorkerReport(**said | given)


def readable(job: Job | None) -> Any:
    """A job in which progress is a value, since one value has many spellings in JSON."""
    if job is None or job.progress is None:
        return job
    return msgspec.structs.replace(job, progress=None), msgspec.json.decode(job.progress)


def plain(held: Held) -> Held:
    """A grant without what a store's own kind of Held may carry besides."""
    return Held(*(getattr(held, name) for name in Held.__struct_fields__))


def told(answer: Any) -> Any:
    """An answer without what a store's own kinds of it may carry besides."""
    if isinstance(answer, list):
        return [told(each) for each in answer]
    if isinstance(answer, Claimed):
        return msgspec.structs.replace(answer, jobs=told(answer.jobs))
    return plain(answer) if isinstance(answer, Held) else answer


def token_order(token: Token | Held) -> tuple[str, int]:
    """For comparing tokens that come in any order."""
    return (token.id, token.fence)
