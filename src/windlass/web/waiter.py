"""One loop that watches the store for all requests that wait for a job to end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from windlass.core.errors import StoreError

if TYPE_CHECKING:
    from windlass import Windlass
    from windlass.core.job import Job

POLL_FIRST, POLL_MOST = 0.002, 0.05
"""Seconds between two looks at the store's change number, which costs microseconds."""
READ_SHARE = 4
"""A read of all jobs waited for is followed by a pause of at least so many times what it took: while the store is
busy with other jobs its number changes at every look, and reading must not take the time that enqueues need."""
READ_AT_LEAST_EVERY = 1.0
STORE_AWAY = 0.5


class Waiter:
    """A thousand waiting requests cost the store as much as one: the loop runs while anybody waits."""

    def __init__(self, app: Windlass) -> None:
        self._app = app
        self._waiting: dict[str, set[asyncio.Future[Job | None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._stopped = False

    async def ended(self, id: str, timeout: float) -> Job | None:
        """The job of that id once it has ended or is gone; None if neither happened within `timeout` seconds."""
        if self._stopped:
            return None
        future: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(id, set()).add(future)
        self._news.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            return None
        finally:
            self._forget(id, future)

    def stop(self) -> None:
        """Answer everybody with None, now and from now on."""
        self._stopped = True
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_result(None)
        self._news.set()

    def _forget(self, id: str, future: asyncio.Future[Job | None]) -> None:
        futures = self._waiting.get(id, set())
        futures.discard(future)
        if not futures:
            self._waiting.pop(id, None)

    async def _watch(self) -> None:
        opened = await self._app.engine.aopened()
        seen, read_at, pause, least = None, 0.0, POLL_FIRST, POLL_FIRST
        while self._waiting and not self._stopped:
            # The number is taken before the rows, so that a change in between is not missed.
            change, now = opened.shell.changed(), time.monotonic()
            if self._news.is_set() or change != seen or now - read_at >= READ_AT_LEAST_EVERY:
                self._news.clear()
                try:
                    await self._read()
                except StoreError:
                    # Those who wait have deadlines of their own, and will be told by their last look.
                    await asyncio.sleep(STORE_AWAY)
                    continue
                seen, read_at, pause = change, now, POLL_FIRST
                least = READ_SHARE * (time.monotonic() - now)
            await self._rest(max(pause, least))
            pause = min(pause * 1.5, POLL_MOST)

    async def _rest(self, seconds: float) -> None:
        """Sleep; somebody new is looked up after the shortest pause, together with whoever else came meanwhile."""
        if self._news.is_set():
            await asyncio.sleep(POLL_FIRST)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return
        await asyncio.sleep(POLL_FIRST)

    async def _read(self) -> None:
        ids = list(self._waiting)
        opened = await self._app.engine.aopened()
        found = await opened.async_shell().run(opened.store.fetch(ids))
        for id, job in zip(ids, found, strict=True):
            if job is not None and not job.state.terminal:
                continue
            for future in self._waiting.get(id, ()):
                if not future.done():
                    future.set_result(job)
