"""The SQLite store as the simulation's database: its plans, statements and settings, on the disk that forgets.

Each transaction that writes also counts itself in a table of the simulation's own. So after a power cut it is known
whether the commit in whose middle it came is there, and whether one is missing that had been acknowledged.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import lru_cache
from typing import TYPE_CHECKING

from windlass.core.errors import OutcomeUnknown, StoreUnavailable
from windlass.ports.plan import NOW, Rows, Statement, drive
from windlass.ports.store import Store
from windlass.stores.named_sql import load_queries
from windlass.stores.sqlite import _configure
from windlass.stores.sqlite.driver_apsw import ApswDriver
from windlass.stores.sqlite.store import RAW, SqliteStore
from windlass.stores.sqlite.transaction import commit, discard, rollback
from windlass.testing.clock import EPOCH
from windlass.testing.simulation.disk import Disk, fast_directory
from windlass.testing.simulation.scheduler import Process

if TYPE_CHECKING:
    from windlass.testing.simulation.world import World

_queries = lru_cache(maxsize=1)(lambda: load_queries("windlass.stores.sqlite"))


class SqliteDatabase:
    """See database.Database."""

    readers_wait = False
    writers_wait = True
    idle_most = 0.0
    at_once = False

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice
        self.store: Store = (world.cast.sqlite_store or SqliteStore)()
        self._place = tempfile.mkdtemp(prefix="windlass-simulation-", dir=fast_directory())
        self._generation = 0
        self._idle: list[SqliteConnection] = []
        self._all: list[SqliteConnection] = []
        self._pages = self._dice.choice((4, 20, 200))
        """Of the WAL, between two checkpoints: with the product's 4,000 there would be none in so short a life."""
        self.committed = 0
        self.survived = False
        self._disk = Disk(self._dice)
        self._disk.put(self._path, _template())

    @property
    def _path(self) -> str:
        return os.path.join(self._place, f"{self._generation}.db")

    def connect(self, process: Process) -> SqliteConnection:
        """See Database. A connection that nobody uses serves whoever comes next, as its pages are the same for all."""
        if self._idle:
            return self._idle.pop()
        driver = self._disk.open(self._path)
        _configure(driver, self._world.cast.durability)  # type: ignore[arg-type]
        driver.execute(f"PRAGMA wal_autocheckpoint = {self._pages}")
        connection = SqliteConnection(self, driver)
        self._all.append(connection)
        return connection

    def idle(self, connection: SqliteConnection) -> None:
        """Its transaction has ended."""
        if connection in self._all:
            self._idle.append(connection)

    def drop(self, connection: SqliteConnection) -> None:
        """It is not to be used again."""
        if connection in self._all:
            self._all.remove(connection)
        discard(connection.driver)

    def clock(self) -> int:
        """The store's."""
        return self._world.clock()

    def lose_power_soon(self, requests: int) -> None:
        """At the n-th request to the disk from now on."""
        self._disk.cut_in = requests

    def lose_power(self) -> None:
        """Go on with what was flushed, and with whatever else happened to reach the disk."""
        left = self._disk.lose_power()
        for connection in list(self._all):
            self.drop(connection)
        self._idle.clear()
        before = self._path
        self._disk.close()
        self._generation += 1
        self._disk = Disk(self._dice)
        for path, content in left.items():
            self._disk.put(self._path + path.removeprefix(before), content)
        connection = self.connect(self._world.reader)
        found = int(connection.driver.execute("SELECT commits FROM simulation")[0][0])
        self.idle(connection)
        self.survived = found == self.committed + 1
        if found < self.committed:
            self._world.lost_commits(self.committed - found)
        self.committed = found

    def close(self) -> None:
        """See Database."""
        self._disk.on = False
        for connection in list(self._all):
            self.drop(connection)
        self._disk.close()
        shutil.rmtree(self._place)


class SqliteConnection:
    """See database.Connection."""

    def __init__(self, database: SqliteDatabase, driver: ApswDriver) -> None:
        self._database = database
        self.driver = driver
        self._writes = False
        self._changes = 0

    def begin(self, *, write: bool) -> None:
        """See Connection."""
        self._writes = write
        self._changes = self.driver.raw.total_changes()
        self.driver.execute("BEGIN IMMEDIATE" if write else "BEGIN")

    def execute(self, statement: Statement) -> Rows:
        """See Connection; as stores.sqlite.shell.Shell.execute does it."""
        if statement is NOW:
            return [(self._database.clock(),)]
        name, params, many = statement
        sql = params[0] if name == RAW else _queries()[name]
        if many is None:
            return self.driver.execute(sql, () if name == RAW else params)
        if many:
            self.driver.many(sql, many)
        return []

    def commit(self) -> bool:
        """See Connection."""
        changed = bool(self.driver.raw.total_changes() != self._changes)
        if self._writes:
            self.driver.execute("UPDATE simulation SET commits = ?", (self._database.committed + 1,))
        commit(self.driver)
        self._database.committed += self._writes
        self._database.idle(self)
        return changed

    def rollback(self) -> None:
        """See Connection."""
        try:
            rollback(self.driver)
        except (StoreUnavailable, OutcomeUnknown):
            self._database.drop(self)
        else:
            self._database.idle(self)


@lru_cache(maxsize=1)
def _template() -> bytes:
    """A migrated, empty store, with the simulation's own table."""
    with tempfile.TemporaryDirectory(dir=fast_directory()) as place:
        path = os.path.join(place, "template.db")
        driver = ApswDriver(path)

        def execute(statement: Statement) -> Rows:
            if statement is NOW:
                return [(EPOCH,)]
            sql = statement.params[0] if statement.name == RAW else _queries()[statement.name]
            return driver.execute(sql, () if statement.name == RAW else statement.params)

        _configure(driver, "full")
        driver.execute("BEGIN IMMEDIATE")
        drive(iter(SqliteStore().migrate()), execute)
        driver.execute("CREATE TABLE simulation (commits INTEGER NOT NULL)")
        driver.execute("INSERT INTO simulation VALUES (0)")
        driver.execute("COMMIT")
        driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        driver.close()
        with open(path, "rb") as file:
            return file.read()
