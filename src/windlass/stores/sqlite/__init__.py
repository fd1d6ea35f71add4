"""The SQLite store: `sqlite:///file` (Windlass's own file) and `sqlite+stdlib:///file` (inside the application's)."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

from windlass.core.errors import CapabilityMissing, ConfigError
from windlass.core.health import Reading
from windlass.stores.sqlite.driver import Driver
from windlass.stores.sqlite.hints import DIRECTORY, Hints
from windlass.stores.sqlite.shell import AsyncShell, CallerShell, Clock, Shell
from windlass.stores.sqlite.store import SqliteStore

Durability = Literal["full", "normal"]

NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs", "lustre", "ncpfs"}

_libraries: dict[tuple[int, int], str] = {}
"""Which SQLite library this process uses on which file, by (device, inode)."""
_libraries_lock = threading.Lock()


def open_sqlite(
    url: str, *, clock: Clock | None = None, durability: Durability = "full", timeout: float = 5.0
) -> OpenedSqlite:
    """Open the store in the file that `url` names; the file is made if it is missing, its directory is not.

    `durability` "full" flushes every commit; "normal" may lose the last commits in a power cut, never in a crash of
    the process. Raises ConfigError for a bad URL, a missing directory or a network file system.
    """
    scheme, _, path = url.partition("://")
    if not path.startswith("/") or path == "/":
        raise ConfigError(f"url: {url!r} names no file; write {scheme}:///relative.db or {scheme}:////absolute.db")
    if durability not in {"full", "normal"}:
        raise ConfigError(f"durability: {durability!r} must be full or normal")
    return OpenedSqlite(url, os.path.abspath(path[1:]), scheme == "sqlite+stdlib", clock, durability, timeout)


class OpenedSqlite:
    """See ports.store.Opened."""

    def __init__(
        self, url: str, path: str, stdlib: bool, clock: Clock | None, durability: Durability, timeout: float
    ) -> None:
        self.url = url
        self.path = path
        self.store = SqliteStore()
        self._library = "stdlib" if stdlib else "apsw"
        self._durability = durability
        _check_place(path)
        self.shell = Shell(self._connect, Hints(path + DIRECTORY), clock or _system_clock, timeout)
        self._async: dict[asyncio.AbstractEventLoop, AsyncShell] = {}

    def _connect(self) -> Driver:
        driver: Driver
        if self._library == "stdlib":
            from windlass.stores.sqlite.driver_stdlib import StdlibDriver

            driver = StdlibDriver(self.path)
        else:
            from windlass.stores.sqlite.driver_apsw import ApswDriver

            driver = ApswDriver(self.path)
            _set_up(driver, self._durability)
        _claim_file(self.path, self._library)
        return driver

    def async_shell(self) -> AsyncShell:
        """See ports.store.Opened."""
        loop = asyncio.get_running_loop()
        for gone in [each for each in self._async if each.is_closed()]:
            self._async.pop(gone).stop()
        if loop not in self._async:
            self._async[loop] = AsyncShell(self.shell, loop)
        return self._async[loop]

    def own(self, connection: Any) -> CallerShell:
        """See ports.store.Opened: a sqlite3 connection to this very file."""
        import sqlite3

        from windlass.stores.sqlite.driver_stdlib import StdlibDriver

        if not isinstance(connection, sqlite3.Connection):
            raise CapabilityMissing(
                f"caller_transaction: a {type(connection).__name__} is no sqlite3.Connection; this store joins no other"
            )
        if self._library != "stdlib":
            raise CapabilityMissing(
                "caller_transaction: a sqlite3 connection joins a sqlite+stdlib:///file store only; this process uses "
                "another SQLite library on this file, and two of them on one file drop each other's locks"
            )
        files = {row[1]: row[2] for row in StdlibDriver(connection).execute("PRAGMA database_list")}
        if not files.get("main") or not os.path.exists(self.path) or not os.path.samefile(files["main"], self.path):
            raise CapabilityMissing(
                f"caller_transaction: the connection is to {files.get('main') or 'memory'}, the store is {self.path}"
            )
        return CallerShell(self.shell, StdlibDriver(connection))

    def run_directory(self) -> str | None:
        """See ports.store.Opened: every user of a SQLite file is on one machine, so its kernel judges."""
        return self.path + DIRECTORY

    def diagnose(self) -> Iterator[Reading]:
        """What `windlass store doctor` wants to know of this store in particular."""
        from windlass.stores.sqlite.diagnosis import diagnose

        return diagnose(self, self._library, _file_system(os.path.dirname(self.path)))

    def close(self) -> None:
        """See ports.store.Opened."""
        for shell in self._async.values():
            shell.stop()
        self._async.clear()
        self.shell.close()


def _set_up(driver: Driver, durability: Durability) -> None:
    from windlass.stores.sqlite.driver import Busy

    # Switching to WAL needs the file to itself: of ten processes that start at once, nine find it busy, or done.
    for _ in range(5_000):
        try:
            if driver.execute("PRAGMA journal_mode = WAL")[0][0] == "wal":
                break
        except Busy:
            pass
        time.sleep(0.001)
    driver.execute(f"PRAGMA synchronous = {durability.upper()}")
    driver.execute("PRAGMA temp_store = MEMORY")
    driver.execute("PRAGMA cache_size = -16000")
    # Default 1,000 pages made a checkpoint of every 30th batch; at 4,000 (16 MiB) its cost disappears in the noise.
    driver.execute("PRAGMA wal_autocheckpoint = 4000")


def _check_place(path: str) -> None:
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise ConfigError(f"url: the directory {folder} does not exist")
    kind = _file_system(folder)
    if kind in NETWORK:
        raise ConfigError(f"url: {folder} is on a network file system ({kind}), where SQLite's locks do not hold")


def _file_system(folder: str) -> str:
    """The type of the mount that `folder` lies on; empty where /proc does not tell."""
    try:
        with open("/proc/self/mounts", encoding="utf-8") as mounts:
            rows = [line.split()[1:3] for line in mounts]
    except OSError:
        return ""
    real = os.path.realpath(folder) + "/"
    under = [(len(point), kind) for point, kind in rows if real.startswith(point.rstrip("/") + "/")]
    return max(under)[1] if under else ""


def _claim_file(path: str, library: str) -> None:
    """Two SQLite builds on one file in one process drop each other's POSIX locks when either closes: refuse."""
    found = os.stat(path)
    with _libraries_lock:
        used = _libraries.setdefault((found.st_dev, found.st_ino), library)
    if used != library:
        raise ConfigError(
            f"url: this process already uses {path} through {used}; use sqlite+stdlib:/// everywhere or nowhere"
        )


def _system_clock() -> int:
    return time.time_ns() // 1_000
