"""The shells of the memory store: a lock, a clock and pipes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from windlass.core.errors import StoreTimeout, StoreUnavailable
from windlass.ports.plan import Plan, Rows, Statement, drive
from windlass.stores.memory.store import MemoryStore

T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds that a plan waits for its turn, unless told otherwise."""


class MemoryShell:
    """Runs plans one at a time; one that raises changes nothing."""

    def __init__(self, store: MemoryStore, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._turn = threading.Lock()
        self._commits = 0
        self._listeners: list[MemoryListener] = []
        self._ears = threading.Lock()
        self._closed = False

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See Shell.run."""
        if not self._turn.acquire(timeout=TIMEOUT if timeout is None else max(0.0, timeout)):
            raise StoreTimeout(f"memory store: {plan.name} had to wait longer than its time-out")
        try:
            if self._closed:
                raise StoreUnavailable("memory store: it is closed")
            return self._transact(plan)
        finally:
            self._turn.release()

    def _transact(self, plan: Plan[T]) -> T:
        try:
            answer = drive(iter(plan), self._execute)
        except BaseException:
            self._store.data.roll_back()
            raise
        if self._store.data.commit():
            self._commits += 1
        if plan.hint:
            self.hint()
        return answer

    def _execute(self, statement: Statement) -> Rows:
        if statement.name != "now":
            raise StoreUnavailable(f"memory store: it has no statement {statement.name!r}")
        return [(self._clock(),)]

    def changed(self) -> int:
        """See Shell.changed."""
        return self._commits

    def hint(self) -> None:
        """See Shell.hint."""
        # Under the lock, lest a listener closes meanwhile and its descriptor becomes somebody else's file.
        with self._ears:
            for listener in self._listeners:
                listener.wake()

    def listen(self) -> MemoryListener:
        """See Shell.listen."""
        listener = MemoryListener(self._forget)
        with self._ears:
            self._listeners.append(listener)
        return listener

    def _forget(self, listener: MemoryListener) -> None:
        with self._ears:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def close(self) -> None:
        """See Shell.close."""
        with self._turn:
            self._closed = True
        for listener in list(self._listeners):
            listener.close()


class MemoryListener:
    """A pipe that holds one byte for every hint that was not yet drained."""

    def __init__(self, forget: Callable[[MemoryListener], None]) -> None:
        self._forget = forget
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._open = True

    def wake(self) -> None:
        """Make the descriptor readable."""
        with contextlib.suppress(BlockingIOError):  # full of hints: one more says nothing new
            os.write(self._writer, b"\0")

    def fileno(self) -> int:
        """See Listener.fileno."""
        return self._reader

    def drain(self) -> None:
        """See Listener.drain."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 4_096):
                pass

    def close(self) -> None:
        """See Listener.close."""
        self._forget(self)
        if self._open:
            self._open = False
            os.close(self._reader)
            os.close(self._writer)


class AsyncMemoryShell:
    """The same for an event loop; a dict is never worth waiting for, so it runs where it is called."""

    def __init__(self, shell: MemoryShell) -> None:
        self._shell = shell

    async def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See AsyncShell.run."""
        return self._shell.run(plan, timeout)

    async def close(self) -> None:
        """See AsyncShell.close. The store stays open for the blocking shell, which owns it."""
