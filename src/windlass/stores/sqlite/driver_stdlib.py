"""SQLite through the standard library's module, for jobs inside the application's own database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from windlass.core import errors
from windlass.ports.plan import Rows
from windlass.stores.sqlite.driver import Busy, IndexFull, Stale

VERSION = sqlite3.sqlite_version

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PASSING = {sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT}
_AWAY = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}


class StdlibDriver:
    """One sqlite3 connection."""

    def __init__(self, path: str | sqlite3.Connection) -> None:
        try:
            self.raw = path if isinstance(path, sqlite3.Connection) else _connect(path)
        except sqlite3.Error as error:
            raise translate(error) from error

    def execute(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """See Driver."""
        cursor = None
        try:
            cursor = self.raw.cursor()
            cursor.row_factory = None  # the caller's own factory would change what a plan reads
            return cursor.execute(sql, params).fetchall()
        except sqlite3.Error as error:
            raise translate(error) from error
        finally:
            if cursor is not None:
                cursor.close()

    def many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """See Driver."""
        try:
            self.raw.executemany(sql, rows).close()
        except sqlite3.Error as error:
            raise translate(error) from error

    def in_transaction(self) -> bool:
        """See Driver."""
        return self.raw.in_transaction

    def close(self) -> None:
        """See Driver."""
        try:
            self.raw.close()
        except sqlite3.Error as error:
            raise translate(error) from error


class CallerDriver(StdlibDriver):
    """See driver.CallerDriver."""

    def commits_itself(self) -> bool:
        """See driver.CallerDriver. Python 3.12 has `autocommit`, which overrules `isolation_level` unless it is -1."""
        mode = getattr(self.raw, "autocommit", -1)
        return self.raw.isolation_level is None if mode == -1 else bool(mode)

    @contextmanager
    def as_ours(self, timeout: float) -> Iterator[None]:
        """See driver.CallerDriver."""
        limit = max(0, int(timeout * 1_000))
        wait = self.execute("PRAGMA busy_timeout")[0][0]
        factory, self.raw.text_factory = self.raw.text_factory, str
        if wait > limit:
            self.execute(f"PRAGMA busy_timeout = {limit}")
        try:
            yield
        finally:
            self.raw.text_factory = factory
            if wait > limit:
                self.execute(f"PRAGMA busy_timeout = {wait}")


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=200)


def translate(error: sqlite3.Error) -> Exception:
    """As driver_apsw.translate."""
    code = getattr(error, "sqlite_errorcode", 0)
    plain = code & 0xFF
    if code == sqlite3.SQLITE_BUSY_SNAPSHOT:
        return Stale(str(error))
    if plain in _BUSY:
        return Busy(str(error))
    if plain == sqlite3.SQLITE_FULL:
        return errors.StoreFull(f"the disk is full: {error}")
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return IndexFull(f"the disk is full: {error}")
    if plain in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return errors.StoreCorrupt(f"the file is damaged or is no database: {error}")
    if plain in _AWAY:
        return errors.StoreUnavailable(f"the file cannot be used: {error}")
    if plain in _PASSING:
        return errors.StoreUnavailable(f"SQLite could not go on: {error}")
    if "no such table" in str(error):
        return errors.SchemaError(f"the store has no schema yet, run `windlass store migrate`: {error}")
    return errors.StoreError(str(error))
