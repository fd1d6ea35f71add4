"""What the shell needs of a SQLite library, of which there are two: driver_apsw.py and driver_stdlib.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from windlass.ports.plan import Rows


class Busy(Exception):
    """Somebody else holds the lock; nothing was done."""


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
