"""A worker with no supervisor: what it needs of its keeper, and a store to look at afterwards."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from windlass.core.job import Job, Meta, NewJob, Policy
from windlass.core.placement import job_id
from windlass.ports.store import Opened, WorkerReport
from windlass.runtime.registry import Mode, Registry, TaskDef
from windlass.runtime.slots import SlotTable
from windlass.runtime.worker import Worker
from windlass.stores.sqlite import open_sqlite

_ids = itertools.count(1)


class FakeLink:
    """Records what the worker says; the test is its keeper."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self.table = SlotTable()
        self.wanted = False
        self.has_stopped = False
        self.attached = asyncio.Event()

    def attach(self, worker: Worker) -> None:
        self.worker = worker
        self.attached.set()

    def want_wake(self, wanted: bool) -> None:
        self.wanted = wanted

    def stopped(self) -> None:
        self.has_stopped = True


def task(name: str, handler: Callable[..., Any], mode: Mode | None = None, **options: Any) -> TaskDef:
    """A TaskDef whose payload is `[args, kwargs]` and whose result is any JSON."""
    if mode is None:
        mode = Mode.ASYNC if asyncio.iscoroutinefunction(handler) else Mode.THREAD
    return TaskDef(
        name=name,
        version=options.pop("version", 1),
        handler=handler,
        mode=mode,
        bind=options.pop("bind", lambda payload, _: msgspec.json.decode(payload)),
        encode=options.pop("encode", lambda value: msgspec.json.encode(value).decode()),
        **options,
    )


class World:
    """One SQLite store and one worker at a time."""

    def __init__(self, path: Any, *tasks: TaskDef, opened: Opened | None = None, **settings: Any) -> None:
        self.opened: Any = opened or open_sqlite(f"sqlite:///{path}/jobs.db")
        self.store = self.opened.store
        self.run = self.opened.shell.run
        self.run(self.store.migrate())
        self.registry = Registry(tasks={t.name: t for t in tasks})
        self.settings = {"concurrency": 4, **settings}

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.close()

    def enqueue(self, name: str, *args: Any, policy: Policy | None = None, **fields: Any) -> str:
        """Enqueue one job and answer its id."""
        return self.enqueue_many(name, [args], policy=policy, **fields)[0]

    def enqueue_many(self, name: str, calls: Sequence[Any], *, policy: Policy | None = None, **fields: Any) -> list[str]:
        """Enqueue one job per tuple of arguments."""
        meta = fields.pop("meta", None) or msgspec.json.encode(Meta(policy=policy or Policy())).decode()
        jobs = [
            NewJob(
                id=job_id(1, next(_ids).to_bytes(10, "big")),
                task=name,
                payload=msgspec.json.encode([list(call), {}]).decode(),
                meta=meta,
                **fields,
            )
            for call in calls
        ]
        self.run(self.store.enqueue(jobs))
        return [job.id for job in jobs]

    def beat(self, worker: str = "w1") -> Any:
        """Register or renew the worker."""
        report = WorkerReport(id=worker, supervisor="s", host="h", pid=1, hold=15_000_000)
        return self.run(self.store.beat([report]))[0]

    def work(self, script: Callable[[FakeLink], Any] | None = None, *, worker: str = "w1", opened: Any = None) -> FakeLink:
        """Run a worker until every job has ended, or until `script(link)`, a coroutine function, returns."""

        async def main() -> FakeLink:
            self.beat(worker)
            link = FakeLink(worker)
            queues = self.settings.pop("queues", [("default", None)])
            this = Worker(self.registry, opened or self.opened, link, queues=queues, **self.settings)  # type: ignore[arg-type]
            running = asyncio.ensure_future(this.run())
            await link.attached.wait()
            try:
                await asyncio.wait_for((script or self.until_done)(link), 20)
            finally:
                this.stop(5.0, "end of test")
                await asyncio.wait_for(running, 20)
            return link

        return asyncio.run(main())

    async def until_done(self, _: FakeLink) -> None:
        """Wait until nothing is left to do."""
        await self.until(self.idle)

    def idle(self) -> bool:
        """Whether every job has ended, by one snapshot: a job may move from one state to the next between two."""
        states = self.states()
        return not any(states[s] for s in ("queued", "running", "scheduled", "retrying", "blocked"))

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for a state of the store or of the test's own variables."""
        while not true():  # noqa: ASYNC110 - the store has no event to wait for
            await asyncio.sleep(0.002)

    def states(self) -> dict[str, int]:
        """How many jobs are in each state."""
        return self.run(self.store.stats(exact=True)).states  # type: ignore[no-any-return]

    def job(self, job: str) -> Job:
        """One job as it is now."""
        return self.run(self.store.fetch([job]))[0]  # type: ignore[no-any-return]

    def attempts(self, job: str) -> list[Any]:
        """Its history."""
        return self.run(self.store.attempts(job))  # type: ignore[no-any-return]

    def sound(self) -> None:
        """I3: the store's records agree with each other."""
        assert self.run(self.store.audit()) == []
