"""Psycopg's connection as a handler is given it: it waits for as long as the server is at work, and no longer.

TCP cannot tell a statement that takes its time from one that was lost on the way: what forwards the bytes (a proxy, a
firewall, a tunnel) may go on acknowledging them for ever. The server can, on another connection: a backend that waits
for its client, while the client waits for it, was not heard or is not heard.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any, TypeVar

import psycopg
from psycopg import pq
from psycopg.abc import PQGen

T = TypeVar("T")

QUIET = 3.0
"""Seconds without a word from the server, after which it is asked what it does, and how long after that once more: two
such answers with nothing heard in between, or what it has just said might still be under way."""


class Watched(psycopg.Connection[Any]):
    """See above."""

    def __init__(self, connection: pq.abc.PGconn, waits: Callable[[], bool]) -> None:
        """`waits` says whether the backend waits for us too, or is gone."""
        super().__init__(connection)
        self._waits = waits

    def wait(self, gen: PQGen[T], *rest: Any, **named: Any) -> T:
        """See psycopg, whose every wait is this one. It sends a word into `gen` ten times a second, heard or not."""
        return super().wait(self._heard(gen), *rest, **named)

    def _heard(self, gen: PQGen[T]) -> PQGen[T]:
        ready: Any = None
        since, suspected = time.monotonic(), False
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as stop:
                answer: T = stop.value
                return answer
            ready = yield wanted
            if ready:
                since, suspected = time.monotonic(), False
            elif time.monotonic() - since > QUIET and not self._sending():
                waits = self._waits()
                if waits and suspected:
                    self._give_up()
                since, suspected = time.monotonic(), waits

    def _sending(self) -> bool:
        """Whether what was said is still on its way, on a slow one perhaps: how long that may take is for the kernel to
        judge."""
        left = array("i", [0])
        with suppress(OSError):  # not every system counts
            ioctl(self.pgconn.socket, TIOCOUTQ, left)
        return left[0] > 0

    def _give_up(self) -> None:
        self.close()
        raise psycopg.OperationalError(
            "the connection has fallen silent: the server waits for this transaction, as this transaction does for the "
            "server; nothing was applied"
        )
