"""The shop on PostgreSQL, and the points around the commit of its jobs at which somebody strikes: around every message of
the transaction's connection, from the first one on."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg

from tests.faults.shop import Counter
from tests.worker.harness import FakeLink, World
from windlass.runtime.context import Transaction
from windlass.stores.postgres.watched import Watched
from windlass.stores.postgres.wire import Wire

WAIT_R = 1
"""What psycopg's generators say when all is sent and an answer is wanted."""
PATIENCE = 10_000
"""Milliseconds for an answer to arrive."""
Patch = Callable[[Any, str, Any], None]


class Till(Counter):
    """One in a database of its own, whose jobs lie in a schema of it."""

    BOOK = "INSERT INTO booked VALUES (%s, %s)"
    BOOKED = "SELECT count(*) FROM booked WHERE n = %s"

    def __init__(self, url: str, **settings: Any) -> None:
        parts = urlsplit(url)
        self._looking = psycopg.connect(parts._replace(query="").geturl(), autocommit=True)
        schema = parse_qs(parts.query)["schema"][0]
        self.CHILDREN = f"SELECT count(*) FROM {schema}.jobs WHERE meta::jsonb ->> 'parent_id' = %s"
        super().__init__(url, **settings)

    def make(self) -> None:
        """Its table, empty."""
        self._looking.execute("DROP TABLE IF EXISTS booked")
        self._looking.execute(self.TABLE)

    def count(self, sql: str, *parameters: Any) -> int:
        """See Counter."""
        [answer] = self._looking.execute(sql, parameters).fetchone() or [0]
        return int(answer)

    def end_backend(self, pid: int) -> None:
        """Have the server end one of its processes, and wait until it has: by its own clock it would look ten times a
        second."""
        self._looking.execute("SELECT pg_terminate_backend(%s)", (pid,))
        while self.count("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid):
            time.sleep(0.001)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._looking.close()


class Points:
    """Failpoints of one transaction of a handler's. Each message has four: before it, once it was sent, once its answer
    has arrived and nobody has read it, and after that."""

    def __init__(self, at: str = "", strike: Callable[[Wire], None] = lambda wire: None) -> None:
        """`strike` is done at the point of this name."""
        self.names: list[str] = []
        self.struck = False
        self._at = at
        self._strike = strike
        self._wire: Any = None
        self._label = ""
        self._over = False

    def reach(self, name: str) -> None:
        """Be here; strike, if this is the one."""
        if self._over:
            return
        self.names.append(name)
        if name == self._at:
            self.struck = self._over = True
            self._strike(self._wire)
        if name.startswith("after") and name.endswith("commit"):
            self._over = True

    def watch(self, patch: Patch) -> None:
        """Put the points where they are; `patch` is `setattr`, or undoes it some day."""
        patch(Wire, "exchange", self._around(Wire.exchange))
        patch(Wire, "_flush", self._behind(Wire._flush))
        patch(Watched, "_heard", self._within(Watched._heard))
        for method in ("execute", "executemany"):
            patch(Transaction, method, self._about(method, getattr(Transaction, method)))

    def _around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def exchange(wire: Wire, deadline: float) -> Any:
            queued = [part.name.decode() for part, _ in wire._queued] or ["nothing more"]
            if "savepoint" in queued:
                self._wire = wire
            if wire is not self._wire:
                return real(wire, deadline)
            label = self._label = f"{queued[0]} to {queued[-1]}"
            self.reach(f"before {label}")
            answer = real(wire, deadline)
            self.reach(f"after {label}")
            return answer

        return exchange

    def _behind(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def flush(wire: Wire, deadline: float) -> None:
            real(wire, deadline)
            if wire is self._wire:
                self._sent()

        return flush

    def _within(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def heard(connection: Watched, gen: Any) -> Generator[Any, Any, Any]:
            inner, ready, told = real(connection, gen), None, False
            while True:
                try:
                    wanted = inner.send(ready)
                except StopIteration as stop:
                    return stop.value
                if wanted == WAIT_R and not told:
                    told = True
                    self._sent()
                ready = yield wanted

        return heard

    def _sent(self) -> None:
        self.reach(f"sent {self._label}")
        if not self._over:
            waiting = select.poll()
            waiting.register(self._wire.fileno(), select.POLLIN)
            assert waiting.poll(PATIENCE)
        self.reach(f"arrived {self._label}")

    def _about(self, method: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(this: Transaction, sql: str, *rest: Any) -> Any:
            label = self._label = f"{method} {sql[:11]}"
            self.reach(f"before {label}")
            answer = real(this, sql, *rest)
            self.reach(f"after {label}")
            return answer

        return call


def cut(wire: Wire) -> None:
    """End the connection; what has arrived and was not read is lost."""
    with socket.socket(fileno=os.dup(wire.fileno())) as kernel:
        kernel.setblocking(False)
        with suppress(BlockingIOError):
            kernel.recv(1 << 20)
        kernel.shutdown(socket.SHUT_RDWR)


def work_and_die(url: str, worker: str, at: str) -> None:
    """A process whose worker runs what there is, and is killed at that point."""
    points = Points(at, lambda wire: os.kill(os.getpid(), signal.SIGKILL))
    points.watch(setattr)
    with Till(url) as till:

        async def until_ended(world: World, _: FakeLink) -> None:
            await world.until(lambda: not world.states()["running"] and bool(points.names))

        till.work(until_ended, worker=worker)
