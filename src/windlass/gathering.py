"""Group commit: enqueues that are asked for at the same time share a transaction.

A web process that enqueues once per request would pay a flush and two changes of thread for each: 2 ms a job on two
busy cores, 500 a second. While one transaction is being committed here, the next gathers, so an idle process waits
for nobody and a flooded one pays a hundredth.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

from windlass.core.errors import OutcomeUnknown, StoreError, StoreTimeout, StoreUnavailable
from windlass.core.job import NewJob
from windlass.ports.store import Enqueued, Opened
from windlass.refusal import refused

JOBS_MOST = 250
BYTES_MOST = 1 << 20
"""One transaction's bounds: workers wait for the lock that it holds."""
LATE = 0.05
"""Seconds past its deadline after which a caller no longer waits for the store to say so itself (I1b)."""


class _Ask:
    __slots__ = ("deadline", "future", "job")

    def __init__(self, job: NewJob, deadline: float, future: asyncio.Future[Enqueued]) -> None:
        self.job = job
        self.deadline = deadline
        self.future = future


class Gatherer:
    """The single enqueues of one event loop. Each is committed or fails by itself, as if it had been alone."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self._shell = opened.async_shell()
        self._asks: deque[_Ask] = deque()
        self._task: asyncio.Task[None] | None = None

    async def enqueue(self, job: NewJob, timeout: float) -> Enqueued:
        """Store one job; returns when it is committed. Raises as Task.enqueue, within `timeout` seconds."""
        ask = _Ask(job, time.monotonic() + timeout, asyncio.get_running_loop().create_future())
        self._asks.append(ask)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        try:
            async with asyncio.timeout(timeout + LATE):
                return await ask.future
        except TimeoutError:
            raise StoreTimeout(
                "enqueue: the store did not answer before the deadline; the job may still come"
            ) from None

    async def _work(self) -> None:
        while self._asks:
            asks = self._take()
            if asks:
                await self._store(asks)

    def _take(self) -> list[_Ask]:
        """The next batch, in order; who gave up before it began is left out, and nothing of his is stored."""
        taken: list[_Ask] = []
        size = 0
        while self._asks and len(taken) < JOBS_MOST and size < BYTES_MOST:
            ask = self._asks.popleft()
            if not ask.future.done():
                taken.append(ask)
                size += len(ask.job.payload)
        return taken

    async def _store(self, asks: Sequence[_Ask]) -> None:
        now = time.monotonic()
        left = min(ask.deadline for ask in asks) - now
        try:
            plan = self.opened.store.enqueue([ask.job for ask in asks])
            answers = await self._shell.run(plan, max(0.0, left))
        except (StoreTimeout, OutcomeUnknown) as error:
            self._again(asks, error)
        except StoreUnavailable as error:
            _fail(asks, error)
        except Exception as error:
            if len(asks) == 1:
                _fail(asks, error)
                return
            for ask in asks:  # one that the store cannot take must not fail the others (I23)
                await self._store([ask])
        else:
            for ask, answer in zip(asks, answers, strict=True):
                _tell(ask, answer)

    def _again(self, asks: Sequence[_Ask], error: StoreError) -> None:
        """The deadline of one is not that of all. Jobs carry their ids, so sending them again stores none twice."""
        now = time.monotonic()
        _fail([ask for ask in asks if ask.deadline <= now], error)
        self._asks.extendleft(reversed([ask for ask in asks if ask.deadline > now]))


def _tell(ask: _Ask, answer: Enqueued) -> None:
    if ask.future.done():
        return
    refusal = refused(ask.job, answer)
    if refusal is not None:
        ask.future.set_exception(refusal)
    else:
        ask.future.set_result(answer)


def _fail(asks: Sequence[_Ask], error: Exception) -> None:
    for ask in asks:
        if not ask.future.done():
            ask.future.set_exception(_another(error))


def _another(error: Exception) -> Exception:
    """An exception for each: one that is raised in several tasks at once would collect all their tracebacks."""
    try:
        new = type(error)(*error.args)
    except TypeError:
        return error
    new.__cause__ = error.__cause__
    return new
