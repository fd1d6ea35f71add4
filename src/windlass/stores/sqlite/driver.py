"""What the shell needs of a SQLite library, of which there are two: driver_apsw.py and driver_stdlib.py."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from windlass.core.errors import StoreFull
from windlass.ports.plan import Rows


class Busy(Exception):
    """Somebody else holds the lock; nothing was done."""


class Stale(Busy):
    """Waiting cannot help: the transaction has read what was changed since, so it must not write."""


class IndexFull(StoreFull):
    """No room for the index of the WAL, which may have to grow when the frames of a commit are written already."""


class Driver(Protocol):
    """One connection. `execute` and `many` raise Busy, or a windlass.core.errors.StoreError."""

    raw: Any
    """The library's own connection, for `ctx.transaction()`."""

    def execute(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """Run one statement and return all its rows."""
        ...

    def many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run one statement once per row of parameters."""
        ...

    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class CallerDriver(Driver, Protocol):
    """A connection of the caller's."""

    def commits_itself(self) -> bool:
        """Whether a statement outside a transaction is committed at once, by the connection's own rules."""
        ...

    def as_ours(self, timeout: float) -> AbstractContextManager[None]:
        """Meanwhile, set aside what would change what a plan reads, or have it wait for a lock beyond `timeout` s."""
        ...
