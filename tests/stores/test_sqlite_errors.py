"""What SQLite says, in the few words that the rest of Windlass knows: the same from either library."""

from __future__ import annotations

import sqlite3
from typing import Any

import apsw
import pytest

from windlass.core.errors import SchemaError, StoreCorrupt, StoreError, StoreFull, StoreUnavailable
from windlass.stores.sqlite import driver_apsw, driver_stdlib
from windlass.stores.sqlite.driver import Busy

SAID: dict[str, type[Exception]] = {
    "BUSY": Busy,
    "LOCKED": Busy,
    "FULL": StoreFull,
    "CORRUPT": StoreCorrupt,
    "NOTADB": StoreCorrupt,
    "CANTOPEN": StoreUnavailable,
    "IOERR": StoreUnavailable,
    "READONLY": StoreUnavailable,
    "PERM": StoreUnavailable,
    "PROTOCOL": StoreUnavailable,
    "NOMEM": StoreUnavailable,
    "INTERRUPT": StoreUnavailable,
    "CONSTRAINT": StoreError,
    "TOOBIG": StoreError,
}


def as_apsw(name: str) -> Any:
    return driver_apsw.translate(apsw.exception_for(getattr(apsw, f"SQLITE_{name}")))


def as_stdlib(name: str) -> Any:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{name}")
    return driver_stdlib.translate(error)


@pytest.mark.parametrize("said", [as_apsw, as_stdlib])
@pytest.mark.parametrize("name", SAID)
def test_either_library_is_understood(said: Any, name: str) -> None:
    """I23: only what is a row's own fault may cost a row; all else passes, and is waited for."""
    assert type(said(name)) is SAID[name]


def test_a_missing_schema_says_what_to_do() -> None:
    for driver in (driver_apsw.ApswDriver(":memory:"), driver_stdlib.StdlibDriver(":memory:")):
        with pytest.raises(SchemaError, match="windlass store migrate"):
            driver.execute("SELECT 1 FROM windlass_jobs")
        driver.close()
