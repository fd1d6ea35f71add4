"""The Redis store as the simulation's database: its plans and scripts on a real server, in virtual time.

A script is a transaction, which nobody is in the middle of and nobody takes back; a plan of several may end between any
two of them. The server's clock is not asked, as scripts are given the time.
"""

from __future__ import annotations

import atexit
import secrets
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from windlass.ports.plan import Rows, Statement
from windlass.ports.store import Store
from windlass.stores.pool import Late, Lost
from windlass.stores.redis import open_redis
from windlass.stores.redis.store import SCHEMA, RedisStore
from windlass.testing.simulation.database import NoServer
from windlass.testing.simulation.scheduler import Process

if TYPE_CHECKING:
    from windlass.testing.simulation.world import World

PATIENCE = 60.0
"""Seconds of real time for the server to answer; a life ends if it does not."""


class RedisDatabase:
    """See database.Database."""

    readers_wait = False
    writers_wait = False
    idle_most = 0.0
    at_once = True

    def __init__(self, world: World, url: str) -> None:
        self.store: Store = (world.cast.redis_store or RedisStore)()
        self.place = place(url)
        self.place.clock = world.clock
        self.place.empty()

    def connect(self, process: Process) -> RedisConnection:
        """See Database."""
        return RedisConnection(self.place)

    def close(self) -> None:
        """See Database."""


class RedisConnection:
    """See database.Connection."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._seen = place.changes()

    def begin(self, *, write: bool) -> None:
        """See Connection: there is no such thing."""

    def execute(self, statement: Statement) -> Rows:
        """See Connection."""
        return self._place.execute(statement)

    def commit(self) -> bool:
        """See Connection: all was done when it was."""
        before, self._seen = self._seen, self._place.changes()
        return self._seen != before

    def rollback(self) -> None:
        """See Connection: nothing is undone."""


class Place:
    """Keys of this process's own on a server; emptied for each life."""

    def __init__(self, url: str) -> None:
        self.prefix = f"windlass-simulation-{secrets.token_hex(4)}"
        mark = "&" if "?" in url else "?"
        self._opened = open_redis(f"{url}{mark}prefix={self.prefix}", clock=self._now, timeout=PATIENCE)
        self.clock: Callable[[], int] = lambda: 0
        atexit.register(self.remove)

    def _now(self) -> int:
        return self.clock()

    def execute(self, statement: Statement) -> Rows:
        """One script."""
        shell, deadline = self._opened.shell, time.monotonic() + PATIENCE
        try:
            with shell.pool.borrowed(deadline) as wire:
                return shell.execute(wire, statement, deadline, write=False)  # whoever asks is never too late
        except (Late, Lost) as error:
            raise NoServer(str(error)) from error

    def changes(self) -> int:
        """How often anything was changed."""
        return self._opened.shell.changed()

    def empty(self) -> None:
        """Have nothing but a schema, and everything counted from the beginning."""
        shell = self._opened.shell
        shell.drop()
        self.execute(Statement("migrate", (SCHEMA, 1)))

    def remove(self) -> None:
        """Leave nothing behind."""
        self._opened.shell.drop()
        self._opened.close()
        atexit.unregister(self.remove)


@lru_cache(maxsize=1)
def place(url: str) -> Place:
    """One serves all lives of this process, whose scripts the server then knows."""
    return Place(url)

