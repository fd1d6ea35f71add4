"""A database as the simulation needs one: transactions that are driven one statement at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from windlass.ports.plan import Rows, Statement
from windlass.ports.store import Store
from windlass.stores.memory import MemoryStore
from windlass.testing.simulation.scheduler import Process


class PowerCut(Exception):
    """The machine lost its power in the middle of this."""


class Waits(Exception):
    """Somebody else has locked what this needs: it is to be asked again once a transaction of another has ended."""


class NoServer(BaseException):
    """The real server below a simulation cannot be used, so there is no life to speak of."""


class Connection(Protocol):
    """One transaction at a time, of one process."""

    def begin(self, *, write: bool) -> None:
        """Begin a transaction."""
        ...

    def execute(self, statement: Statement) -> Rows:
        """One statement. Raises Waits, Again."""
        ...

    def commit(self) -> bool:
        """Make it last, and answer whether it changed anything; `PowerCut` may strike inside. Raises Waits."""
        ...

    def rollback(self) -> None:
        """Undo it."""
        ...


class Database(Protocol):
    """What outlives the processes."""

    store: Store
    """The product's plans."""
    readers_wait: bool
    """Whether a reader must wait for a writer."""
    writers_wait: bool
    """Whether a writer must wait for a writer; else they do where they meet."""
    idle_most: float
    """Virtual seconds after which a transaction is ended in which nothing happens; 0: never."""
    at_once: bool
    """Each statement is a transaction of its own, which nobody takes back."""

    def connect(self, process: Process) -> Connection:
        """A connection without a transaction; at the end of its transaction it may serve another process."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


class MemoryDatabase:
    """The memory store: what was committed outlives everything but the simulation."""

    readers_wait = True  # it has no snapshots: who came in between two statements of a writer would see half of it
    writers_wait = True
    idle_most = 0.0
    at_once = False

    def __init__(self, store: MemoryStore, clock: Callable[[], int]) -> None:
        self.store: Store = store
        self._connection = _MemoryConnection(store, clock)

    def connect(self, process: Process) -> Connection:
        """See Database. One lock lets in one transaction, so one connection serves all."""
        return self._connection

    def close(self) -> None:
        """See Database."""


class _MemoryConnection:
    def __init__(self, store: MemoryStore, clock: Callable[[], int]) -> None:
        self._data = store.data
        self._clock = clock

    def begin(self, *, write: bool) -> None:
        pass

    def execute(self, statement: Statement) -> Rows:
        assert statement.name == "now", statement
        return [(self._clock(),)]

    def commit(self) -> bool:
        return self._data.commit()

    def rollback(self) -> None:
        self._data.roll_back()
