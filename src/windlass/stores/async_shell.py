"""The shell of an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from windlass.core.errors import StoreError
from windlass.ports.plan import Plan

T = TypeVar("T")


class Shell(Protocol):
    """The blocking shell, as much as is needed of it here."""

    timeout: float

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See ports.store.Shell."""
        ...

    def check(self) -> None:
        """Raises StoreError where the shell must not be used: once it was closed, and in a forked child."""
        ...


class AsyncShell:
    """The same for an event loop: a whole plan is one hop to a thread, which nothing can cancel half-way.

    Two threads, made when first needed: readers of a WAL wait for nobody, so they must not stand in line behind a
    write that waits for the lock.
    """

    def __init__(self, shell: Shell, loop: asyncio.AbstractEventLoop) -> None:
        self._shell = shell
        self._loop = loop
        self._lines: dict[bool, _Line] = {}

    async def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See ports.store.AsyncShell."""
        line = self._lines.get(plan.write)
        if line is None:
            line = self._lines[plan.write] = _Line(self._shell, self._loop)
        return await line.put(plan, timeout)

    async def close(self) -> None:
        """See ports.store.AsyncShell. What was handed in before is finished first."""
        self.stop()

    def stop(self) -> None:
        """End the threads, from any thread."""
        for line in self._lines.values():
            line.stop()
        self._lines.clear()


class _Line:
    """One thread and the plans that wait for it."""

    def __init__(self, shell: Shell, loop: asyncio.AbstractEventLoop) -> None:
        self._shell = shell
        self._loop = loop
        self._work: SimpleQueue[tuple[Plan[Any], float, asyncio.Future[Any]] | None] = SimpleQueue()
        self._ended = False
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="windlass-store", daemon=True)
        self._thread.start()

    def put(self, plan: Plan[T], timeout: float | None) -> asyncio.Future[T]:
        """Have it run; its time counts from now, however long the line is."""
        self._shell.check()  # in a forked child there is no such thread
        future: asyncio.Future[T] = self._loop.create_future()
        deadline = time.monotonic() + (self._shell.timeout if timeout is None else timeout)
        with self._turn:  # nothing may come to stand behind the end, where nobody would ever answer it
            if self._ended:
                raise StoreError("this store was closed")
            self._work.put((plan, deadline, future))
        return future

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            plan, deadline, future = item
            answer, failure = None, None
            try:
                answer = self._shell.run(plan, deadline - time.monotonic())
            except BaseException as error:
                failure = error
            try:
                self._loop.call_soon_threadsafe(_answer, future, answer, failure)
            except RuntimeError:  # the loop was closed before its answer came: nobody waits for it any more
                return

    def stop(self) -> None:
        """End the thread after what was handed in before."""
        with self._turn:
            self._ended = True
            self._work.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()


def _answer(future: asyncio.Future[Any], answer: Any, failure: BaseException | None) -> None:
    if future.cancelled():
        return
    if failure is None:
        future.set_result(answer)
    else:
        future.set_exception(failure)
