"""A worker by hand: claims, runs and settles one job at a time, with nothing running in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from windlass import Windlass
from windlass.core.job import Failed, Held, LogLine, Meta, NewJob, Outcome, Progress, Settled, Succeeded
from windlass.core.machine import decide
from windlass.ports.store import ClaimRequest, Quota, WorkerReport
from windlass.runtime.context import Context, current_run
from windlass.runtime.verdict import describe

HOLD = 15_000_000


class HandRun:
    """The least that a Context needs."""

    def __init__(self, app: Windlass, held: Held) -> None:
        self.held = held
        self.meta = msgspec.json.decode(held.meta, type=Meta)
        self.url = app.opened.url
        self.cancelled = False
        self.in_transaction = False
        self.children: list[NewJob] = []
        self.progress: list[Progress] = []
        self.lines: list[LogLine] = []
        self._app = app

    def report_progress(self, progress: Progress) -> None:
        self.progress.append(progress)

    def report_log(self, line: LogLine) -> None:
        self.lines.append(line)

    def once(self, name: str, value: str | None) -> str | None:
        return self._app.opened.shell.run(self._app.opened.store.once(self.held.token, name, value))

    async def aonce(self, name: str, value: str | None) -> str | None:
        return await self._app.opened.async_shell().run(self._app.opened.store.once(self.held.token, name, value))

    def fan_out(self, name: str, after: int, jobs: Sequence[NewJob]) -> int:
        return self._app.opened.shell.run(self._app.opened.store.fan_out(self.held.token, name, after, jobs))

    async def afan_out(self, name: str, after: int, jobs: Sequence[NewJob]) -> int:
        plan = self._app.opened.store.fan_out(self.held.token, name, after, jobs)
        return await self._app.opened.async_shell().run(plan)

    def add_child(self, job: NewJob) -> None:
        self.children.append(job)

    def begin_transaction(self) -> Any:
        self.in_transaction = True
        return self


class Hand:
    """One worker of `app`."""

    def __init__(self, app: Windlass, worker: str = "hand") -> None:
        self.app, self.worker, self.seq = app, worker, 0
        report = WorkerReport(id=worker, supervisor=worker, host="here", pid=1, hold=HOLD)
        app.opened.shell.run(app.opened.store.beat([report]))

    def claim(self, *queues: str) -> Held | None:
        self.seq += 1
        wanted = ClaimRequest(1, tuple(Quota(queue, 1) for queue in queues or self.app.registry.queues))
        claimed = self.app.opened.shell.run(self.app.opened.store.claim(self.worker, self.seq, wanted))
        return claimed.jobs[0] if claimed.jobs else None

    def settle(self, held: Held, outcome: Outcome) -> Settled:
        policy = msgspec.json.decode(held.meta, type=Meta).policy
        transition = decide(held, policy, outcome, 0.0)
        (answer,) = self.app.opened.shell.run(self.app.opened.store.settle(self.worker, [transition]))
        return answer

    def perform(self, held: Held) -> Outcome:
        """Run the handler; what it produced, as a worker would say it."""
        task = self.app.registry.tasks[held.task]
        args, kwargs = task.bind(held.payload, held.version)
        run = HandRun(self.app, held)
        if task.context == 0:
            args.insert(0, Context(run))
        elif task.context:
            kwargs[task.context] = Context(run)
        token = current_run.set(run)
        try:
            return Succeeded(task.encode(task.handler(*args, **kwargs)), tuple(run.children))
        except Exception as error:
            return Failed(describe(error))
        finally:
            current_run.reset(token)

    def work(self, *queues: str) -> Held | None:
        """Claim, run and settle one job; None if none was due."""
        held = self.claim(*queues)
        if held is not None:
            assert self.settle(held, self.perform(held)) is Settled.APPLIED
        return held
