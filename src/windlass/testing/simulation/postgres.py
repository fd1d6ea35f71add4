"""The PostgreSQL store as the simulation's database: its plans and statements on a real server, in virtual time.

All connections are this thread's, and one statement runs at a time. What another transaction has locked cannot be
waited for here, as who has it could never go on: the server gives up at once (`lock_timeout`), what was sent with that
statement is undone to a savepoint, and sent again when a transaction has ended. So transactions stand in each other's
way as they do in earnest, and a seed decides who is first.

Nothing of the server may decide anything: its clock is not asked, its statistics are drawn (`DEAD`), vacuum keeps away,
and every life begins with tables without a page, which also has every statement planned anew.
"""

from __future__ import annotations

import atexit
import secrets
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from windlass.core.errors import StoreTimeout
from windlass.ports.plan import Rows, Statement
from windlass.ports.store import Store
from windlass.stores.pool import Late, Lost
from windlass.stores.postgres.connection import Connector
from windlass.stores.postgres.parts import SHARE
from windlass.stores.postgres.shell import Turn
from windlass.stores.postgres.statements import BEGIN, ROLLBACK, Part, Script, load_scripts
from windlass.stores.postgres.store import RINGS, PostgresStore
from windlass.stores.postgres.wire import Wire
from windlass.testing.clock import EPOCH
from windlass.testing.simulation.database import NoServer, Waits
from windlass.testing.simulation.scheduler import Process

if TYPE_CHECKING:
    from windlass.testing.simulation.world import World

LOCKED = "1ms"
"""The least that PostgreSQL waits for a lock: here it is only ever waited for in vain."""
PATIENCE = 60.0
"""Seconds of real time for the server to answer; a life ends if it does not."""
KEPT = 2
"""Connections, from one life to the next."""
IDLE_MOST = 2.0
"""Less than the 5 s that `be_quick` in queries.sql tells the server: the troubled part of a life is not much longer."""
DEAD = (0, 0, 0, 1_000_000)
"""Dead rows in a part of a ring, as the server's statistics might say; the last has the rings turn."""
SAVEPOINT = Part(b"simulation_savepoint", b"SAVEPOINT simulation", ())
BACK = Part(b"simulation_back", b"ROLLBACK TO SAVEPOINT simulation", ())


class PostgresDatabase:
    """See database.Database."""

    readers_wait = False
    writers_wait = False
    idle_most = IDLE_MOST
    at_once = False

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.place = place(url)
        self.store: Store = (world.cast.postgres_store or PostgresStore)(self.place.schema)
        self.place.empty()
        self._idle = self.place.wires[::-1]

    def connect(self, process: Process) -> PostgresConnection:
        """See Database. A connection that nobody uses serves whoever comes next, the oldest first."""
        wire = self._idle.pop() if self._idle else self.place.connect()
        return PostgresConnection(self, wire)

    def idle(self, wire: SimulatedWire) -> None:
        """Its transaction has ended."""
        self._idle.append(wire)

    def close(self) -> None:
        """See Database."""
        self.place.tidy()


class PostgresConnection:
    """See database.Connection."""

    def __init__(self, database: PostgresDatabase, wire: SimulatedWire) -> None:
        self._database = database
        self._wire = wire
        self._turn = SimulatedTurn(wire, database.place.scripts, database.world.clock, time.monotonic() + PATIENCE)
        self._writes = False
        self._impatient = False
        """The plan itself has said how long it waits for a lock."""

    def begin(self, *, write: bool) -> None:
        """See Connection."""
        self._writes = write
        self._turn.begin(write=write)
        self._wire.send(SAVEPOINT)
        self._wire.guarded = True

    def execute(self, statement: Statement) -> Rows:
        """See Connection."""
        if statement.name == "wait_at_most":
            self._impatient = True
            return []
        rows: Rows = self._attempt(self._turn.execute, statement)
        if statement.name == "rings":
            dice = self._database.world.dice
            rows = [(name, current, dice.choice(DEAD), *rest) for name, current, _, *rest in rows]
        return rows

    def commit(self) -> bool:
        """See Connection."""
        self._wire.guarded = False
        self._attempt(self._turn.commit, write=self._writes)
        self._database.idle(self._wire)
        return self._turn.wrote

    def rollback(self) -> None:
        """See Connection."""
        self._wire.guarded = False
        self._turn.undo()
        if self._wire.lost or self._wire.busy:
            raise NoServer("a transaction could not be rolled back")
        self._database.idle(self._wire)

    def _attempt(self, call: Any, *arguments: Any, **options: Any) -> Any:
        wire = self._wire
        before = wire.remembered()
        try:
            return call(*arguments, **options)
        except (Late, Lost) as error:
            raise NoServer(str(error)) from error
        except StoreTimeout as error:
            if self._impatient:
                raise
            wire.go_back(before)
            raise Waits(str(error)) from error


class SimulatedTurn(Turn):
    """The product's, but that no time-out is the server's."""

    @property
    def wrote(self) -> bool:
        """Whether it wrote anything that others may wait for."""
        return self._wrote

    def _send(self, name: str, params: tuple[Any, ...] = ()) -> None:
        if name not in {"be_quick", "wait_at_most"}:
            super()._send(name, params)


Remembered = tuple[list[tuple[Part, list[bytes | None]]], int]


class SimulatedWire(Wire):
    """The product's; what is sent together can be taken back together."""

    guarded = False
    """Each exchange begins with a savepoint."""

    def exchange(self, deadline: float) -> Rows:
        """See Wire."""
        rows = super().exchange(deadline)
        if self.guarded:
            self.send(SAVEPOINT)
        return rows

    def remembered(self) -> Remembered:
        """What is queued, and was changed so far."""
        return list(self._queued), self.changes

    def go_back(self, to: Remembered) -> None:
        """To the last savepoint, with the queue as it was; the transaction had begun."""
        self.forget()
        self.ending = False
        self.send(BACK)
        super().exchange(time.monotonic() + PATIENCE)
        queued, self.changes = to
        self._queued = [each for each in queued if each[0] is not BEGIN]


SETTINGS = (
    f"SET lock_timeout = '{LOCKED}'",
    "SET synchronous_commit = off",  # nobody pulls a plug here
)
TABLES = """SELECT c.relname FROM pg_class c WHERE c.relnamespace = to_regnamespace('{schema}') AND c.relkind = 'r'
            AND c.relname <> 'schema_version' ORDER BY c.relname"""
SEQUENCES = ("jobs_seq", "changes_seq")
WIDTH = 7 * 86_400_000 // SHARE
"""Milliseconds of a part, as it is for jobs that are kept for a week."""


class Place:
    """A schema of this process's own in a database, and the connections to it; emptied for each life."""

    def __init__(self, url: str) -> None:
        self._connector = Connector(url, pooled=False)
        self.schema = f"windlass_simulation_{secrets.token_hex(4)}"
        self.scripts: dict[str, Script] = load_scripts(self.schema)
        self.wires: list[SimulatedWire] = []
        """All that there are, in the order in which they were made."""
        self._admin = self._connect()
        atexit.register(self.remove)
        turn = Turn(self._admin, self.scripts, lambda: EPOCH, time.monotonic() + PATIENCE)
        turn.run(PostgresStore(self.schema).migrate())
        tables = [f"{self.schema}.{row[0]}" for row in self._ask(TABLES.format(schema=self.schema))]
        self._ask(*(f"ALTER TABLE {table} SET (autovacuum_enabled = false)" for table in tables))
        rings = ", ".join(f"('{name}', 0)" for name in RINGS)
        self._emptying = (
            f"TRUNCATE {', '.join(tables)}",
            f"INSERT INTO {self.schema}.rings (name, current) VALUES {rings}",  # noqa: S608 - all names are ours
            f"INSERT INTO {self.schema}.parts (since, width) VALUES (0, {WIDTH})",  # noqa: S608
            *(f"ALTER SEQUENCE {self.schema}.{name} RESTART" for name in SEQUENCES),
        )

    def connect(self) -> SimulatedWire:
        """One connection more."""
        wire = self._connect()
        self.wires.append(wire)
        return wire

    def empty(self) -> None:
        """Have no rows, no pages, and everything counted from the beginning."""
        self._ask(*self._emptying)

    def tidy(self) -> None:
        """Keep a few connections, without a transaction: an open one would be in the way of the next life."""
        for wire in self.wires[KEPT:]:
            wire.close()
        del self.wires[KEPT:]
        for wire in self.wires:
            wire.guarded = False
            wire.forget()
            if wire.busy:
                wire.send(ROLLBACK)
                wire.exchange(time.monotonic() + PATIENCE)

    def remove(self) -> None:
        """Leave nothing behind."""
        for wire in self.wires:
            wire.close()
        if not self._admin.lost:
            self._ask(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")
        self._admin.close()
        atexit.unregister(self.remove)

    def _connect(self) -> SimulatedWire:
        made = self._connector.connect(time.monotonic() + PATIENCE)
        wire = SimulatedWire(made.pg, prepares=True)
        for sql in SETTINGS:
            wire.send(Part(b"", sql.encode(), ()))
        wire.exchange(time.monotonic() + PATIENCE)
        return wire

    def _ask(self, *statements: str) -> Rows:
        """In one transaction; the last one answers."""
        for sql in statements:
            self._admin.send(Part(b"", sql.encode(), ()))
        return self._admin.exchange(time.monotonic() + PATIENCE)


@lru_cache(maxsize=1)
def place(url: str) -> Place:
    """Making one takes a while, so one serves all lives of this process."""
    return Place(url)
