"""SQLite through apsw, which brings its own current build: the one behind many Pythons has the WAL-reset bug."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from windlass.core import errors
from windlass.ports.plan import Rows
from windlass.stores.sqlite.driver import Busy, IndexFull

VERSION = apsw.sqlite_lib_version()


class ApswDriver:
    """One apsw connection."""

    def __init__(self, path: str) -> None:
        try:
            self.raw = apsw.Connection(path, statementcachesize=200)
        except apsw.Error as error:
            raise translate(error) from error
        self._execute = self.raw.execute

    def execute(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """See Driver."""
        try:
            return self._execute(sql, params).fetchall()
        except apsw.Error as error:
            raise translate(error) from error

    def many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """See Driver."""
        try:
            self.raw.executemany(sql, rows)
        except apsw.Error as error:
            raise translate(error) from error

    def in_transaction(self) -> bool:
        """See Driver."""
        return bool(self.raw.in_transaction)

    def close(self) -> None:
        """See Driver."""
        try:
            self.raw.close()
        except apsw.Error as error:
            raise translate(error) from error


def translate(error: apsw.Error) -> Exception:
    """The same few errors whichever library found them; the text is SQLite's own and names no parameter."""
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return Busy(str(error))
        case apsw.FullError():
            return errors.StoreFull(f"the disk is full: {error}")
        case apsw.IOError() if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:
            return IndexFull(f"the disk is full: {error}")
        case apsw.CorruptError() | apsw.NotADBError():
            return errors.StoreCorrupt(f"the file is damaged or is no database: {error}")
        case apsw.CantOpenError() | apsw.IOError() | apsw.ReadOnlyError() | apsw.PermissionsError():
            return errors.StoreUnavailable(f"the file cannot be used: {error}")
        case apsw.ProtocolError() | apsw.NoMemError() | apsw.InterruptError():
            return errors.StoreUnavailable(f"SQLite could not go on: {error}")
        case apsw.SQLError() if "no such table" in str(error):
            return errors.SchemaError(f"the store has no schema yet, run `windlass store migrate`: {error}")
        case _:
            return errors.StoreError(str(error))
