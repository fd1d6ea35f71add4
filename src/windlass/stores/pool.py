"""The connections of one process to one server: made when they are needed, kept for a while, and never too many.

Not the drivers' own: psycopg_pool makes connections in threads of its own and has a time-out of its own, where here one
deadline covers making the connection, waiting for a lock, and the answer; and a fork must find no thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, Protocol, TypeVar

from windlass.core.errors import StoreTimeout

KEEP = 60.0
"""Seconds for which a connection that nobody uses is kept."""
DOUBT = 5.0
"""Seconds unused, after which a connection is asked whether it is one still, before it is given a transaction: what
lies between may have forgotten it without a word, and who found out by his transaction would have waited until his
deadline, once for each such connection."""
PROBE = 1.0
"""Seconds that it is given to answer."""


class Lost(Exception):
    """The connection broke. What was sent before may have been heard."""

    def __init__(self, problem: str) -> None:
        """`problem` may be of several lines, as libpq's are."""
        super().__init__(" ".join(problem.split()))


class Late(Exception):
    """The deadline passed in the middle of an exchange: the connection is of no use any more."""


class Wire(Protocol):
    """A connection, as the pool sees it."""

    @property
    def lost(self) -> bool:
        """Whether it broke, or fell silent."""
        ...

    @property
    def busy(self) -> bool:
        """Whether something that was begun on it has not ended."""
        ...

    @property
    def ending(self) -> bool:
        """Whether the server has said that it is about to end it."""
        ...

    def stale(self) -> bool:
        """Whether the server has hung up meanwhile, or says what nobody asked for."""
        ...

    def exchange(self, deadline: float) -> Any:
        """Ask whether anybody is there. Raises Lost and Late."""
        ...

    def close(self) -> None:
        """Give it up."""
        ...


W = TypeVar("W", bound=Wire)


class Pool(Generic[W]):
    """Lends connections, one thread each. Several shells may share it; it ends with the last of them."""

    def __init__(self, connect: Callable[[float], W], most: int) -> None:
        """`connect` is given the instant of the monotonic clock until which it may take."""
        self._connect = connect
        self.most = most
        self._places = threading.Semaphore(most)
        self._idle: list[tuple[float, W]] = []
        """Since when, the last used last."""
        self.users = 0

    @contextmanager
    def borrowed(self, deadline: float) -> Iterator[W]:
        """A connection for as long as the block lasts. Raises StoreTimeout, StoreUnavailable."""
        if not self._places.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StoreTimeout(f"all {self.most} connections of this process were in use until the deadline")
        try:
            wire = self._tried(deadline) or self.connect(deadline)
            try:
                yield wire
            finally:
                self._give_back(wire)
        finally:
            self._places.release()

    def _tried(self, deadline: float) -> W | None:
        """The idle connection that was used last, if there is one, and it is of use."""
        try:
            since, wire = self._idle.pop()
        except IndexError:
            return None
        if wire.stale():
            wire.close()
            self.forget()
            return None
        now = time.monotonic()
        if now - since > DOUBT:
            try:
                wire.exchange(min(deadline, now + PROBE))
            except (Late, Lost):
                wire.close()
                self.forget()
                return None
        return wire

    def connect(self, deadline: float) -> W:
        """A new connection, which is the caller's to close."""
        try:
            return self._connect(deadline)
        except Late as error:
            raise StoreTimeout(f"{error}; nothing was applied") from error

    def _give_back(self, wire: W) -> None:
        if not self.users or wire.lost or wire.busy or wire.ending:
            wire.close()
            return
        now = time.monotonic()
        self._idle.append((now, wire))
        if now - self._idle[0][0] > KEEP:
            self._idle.pop(0)[1].close()

    def forget(self) -> None:
        """Close what is idle: made when one that broke or fell silent was, it is as good as gone."""
        while self._idle:
            with suppress(IndexError):  # another thread has taken the last one
                self._idle.pop()[1].close()

    def leave(self) -> None:
        """One shell less uses it."""
        self.users -= 1
        if not self.users:
            self.forget()
