"""The SQLite store: `sqlite:///file` (Windlass's own file) and `sqlite+stdlib:///file` (inside the application's)."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal
from weakref import WeakSet

from windlass.core.errors import CapabilityMissing, ConfigError, StoreReplaced, StoreUnavailable
from windlass.core.health import Reading
from windlass.stores.async_shell import AsyncShell
from windlass.stores.sqlite.caller_shell import CallerShell
from windlass.stores.sqlite.driver import Busy, Driver
from windlass.stores.sqlite.hints import DIRECTORY, Hints
from windlass.stores.sqlite.shell import Clock, Shell
from windlass.stores.sqlite.store import SqliteStore
from windlass.stores.sqlite.transaction import discard, pause

Durability = Literal["full", "normal"]

MOUNTS = "/proc/self/mounts"
_ESCAPED = re.compile(r"\\([0-7]{3})")
"""How that table writes spaces in names."""
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs", "lustre", "ncpfs"}

_users: dict[tuple[int, int], WeakSet[OpenedSqlite]] = {}
"""Which files are open in this process, by (device, inode)."""
_users_lock = threading.Lock()


def open_sqlite(
    url: str,
    *,
    clock: Clock | None = None,
    durability: Durability = "full",
    timeout: float = 5.0,
    beside: OpenedSqlite | None = None,
) -> OpenedSqlite:
    """Open the store in the file that `url` names; the file is made if it is missing, its directory is not.

    `durability` "full" flushes every commit; "normal" may lose the last commits in a power cut, never in a crash of
    the process. `beside` is the same file, opened in this process already: each is closed by itself, but the writers
    of both queue in one line. Raises ConfigError for a bad URL, a missing directory or a network file system.
    """
    scheme, _, path = url.partition("://")
    if not path.startswith("/") or path == "/":
        raise ConfigError(f"url: {url!r} names no file; write {scheme}:///relative.db or {scheme}:////absolute.db")
    try:
        os.lstat(path[1:])
    except OSError:
        pass
    except ValueError as error:  # what no file can be called
        raise ConfigError(f"url: {url!a} has no path of a file: {error}") from None
    if durability not in {"full", "normal"}:
        raise ConfigError(f"durability: {durability!r} must be full or normal")
    # As SQLite resolves it: under two names for one file, two workers would look for each other's locks in two places.
    real = os.path.realpath(path[1:])
    return OpenedSqlite(url, real, scheme == "sqlite+stdlib", clock, durability, timeout, beside)


class OpenedSqlite:
    """See ports.store.Opened."""

    def __init__(
        self,
        url: str,
        path: str,
        stdlib: bool,
        clock: Clock | None,
        durability: Durability,
        timeout: float,
        beside: OpenedSqlite | None = None,
    ) -> None:
        self.url = url
        self.path = path
        self.store = SqliteStore()
        self.library = "stdlib" if stdlib else "apsw"
        self._durability = durability
        self._file: tuple[int, int] | None = None
        """Device and inode of what was opened first."""
        _check_place(path)
        line = None if beside is None else beside.shell.writing
        self.shell: Shell = Shell(self._connect, Hints(path + DIRECTORY), clock or _system_clock, timeout, line)
        self.shell.in_place = self._in_place
        self._async: dict[asyncio.AbstractEventLoop, AsyncShell] = {}

    def _connect(self, deadline: float) -> Driver:
        # Before it is opened, as opening and closing it would do the harm; and once more if that has made the file.
        self._claim_file()
        driver = self._driver()
        try:
            self._claim_file()
            if self._file is None:
                with suppress(OSError):
                    self._file = _identity(self.path)
            if self.library == "apsw":
                _set_up(driver, self._durability, deadline)
        except BaseException:
            discard(driver)
            raise
        return driver

    def _driver(self) -> Driver:
        if self.library == "stdlib":
            from windlass.stores.sqlite.driver_stdlib import StdlibDriver

            return StdlibDriver(self.path)
        from windlass.stores.sqlite.driver_apsw import ApswDriver

        return ApswDriver(self.path)

    def _in_place(self) -> None:
        """Raises StoreReplaced if the file that is open is no longer the one at its path."""
        if self._file is None:
            return
        try:
            found = _identity(self.path)
        except FileNotFoundError:
            raise StoreReplaced(f"the file {self.path} was deleted while it was open") from None
        except OSError:  # a directory that may not be read just now says nothing about the file
            return
        if found != self._file:
            raise StoreReplaced(f"another file was put in the place of {self.path} while it was open")

    def _claim_file(self) -> None:
        """Two SQLite builds on one file in one process drop each other's POSIX locks when either closes: refuse."""
        try:
            found = os.stat(self.path)
        except OSError:  # not there yet, or not to be looked at: opening it says more
            return
        with _users_lock:
            users = _users.setdefault((found.st_dev, found.st_ino), WeakSet())
            other = next((user.library for user in users if user.library != self.library), None)
            if other is None:
                users.add(self)
        if other is not None:
            raise ConfigError(
                f"url: this process already uses {self.path} through {other}; "
                "use sqlite+stdlib:/// everywhere or nowhere"
            )

    def async_shell(self) -> AsyncShell:
        """See ports.store.Opened."""
        loop = asyncio.get_running_loop()
        # Other threads do the same for their loops: one of them alone gets to stop a shell, and nobody adds one to a
        # loop but the thread that runs it. A lock would say no more, and would be held for ever in a forked child.
        for gone in [each for each in list(self._async) if each.is_closed()]:
            shell = self._async.pop(gone, None)
            if shell is not None:
                shell.stop()
        found = self._async.get(loop)
        if found is None:
            found = self._async[loop] = AsyncShell(self.shell, loop)
        return found

    def own(self, connection: Any) -> CallerShell:
        """See ports.store.Opened: a sqlite3 connection to this very file."""
        import sqlite3

        from windlass.stores.sqlite.driver_stdlib import CallerDriver

        if not isinstance(connection, sqlite3.Connection):
            raise CapabilityMissing(
                f"caller_transaction: a {type(connection).__name__} is no sqlite3.Connection; this store joins no other"
            )
        if self.library != "stdlib":
            raise CapabilityMissing(
                "caller_transaction: a sqlite3 connection joins a sqlite+stdlib:///file store only; this process uses "
                "another SQLite library on this file, and two of them on one file drop each other's locks"
            )
        driver = CallerDriver(connection)
        with driver.as_ours(self.shell.timeout):
            files = {row[1]: row[2] for row in driver.execute("PRAGMA database_list")}
        if not files.get("main") or not _same_file(files["main"], self.path):
            raise CapabilityMissing(
                f"caller_transaction: the connection is to {files.get('main') or 'memory'}, the store is {self.path}"
            )
        return CallerShell(self.shell, driver)

    def run_directory(self) -> str | None:
        """See ports.store.Opened: every user of a SQLite file is on one machine, so its kernel judges."""
        return self.path + DIRECTORY

    def diagnose(self) -> Iterator[Reading]:
        """What `windlass store doctor` wants to know of this store in particular."""
        from windlass.stores.sqlite.diagnosis import diagnose

        return diagnose(self, self.library, _file_system(self.path))

    def close(self) -> None:
        """See ports.store.Opened."""
        for shell in list(self._async.values()):
            shell.stop()
        self._async.clear()
        self.shell.close()
        with _users_lock:
            # Forgotten where nobody is left: the next file may get the same inode.
            for file, users in list(_users.items()):
                users.discard(self)
                if not users:
                    del _users[file]


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _set_up(driver: Driver, durability: Durability, deadline: float) -> None:
    while True:
        try:
            return _configure(driver, durability)
        except Busy:
            # Switching to WAL needs the file to itself: of ten processes that start at once, nine find it busy.
            pause("open", deadline, 0.001)


def _configure(driver: Driver, durability: Durability) -> None:
    mode = driver.execute("PRAGMA journal_mode = WAL")[0][0]
    if mode != "wal":
        raise StoreUnavailable(f"SQLite cannot keep a WAL in this place, and would go on with the journal {mode!r}")
    driver.execute(f"PRAGMA synchronous = {durability.upper()}")
    driver.execute("PRAGMA temp_store = MEMORY")
    driver.execute("PRAGMA cache_size = -16000")
    # Default 1,000 pages made a checkpoint of every 30th batch; at 4,000 (16 MiB) its cost disappears in the noise.
    driver.execute("PRAGMA wal_autocheckpoint = 4000")


def _check_place(path: str) -> None:
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise ConfigError(f"url: the directory {folder} does not exist")
    if os.path.isdir(path):
        raise ConfigError(f"url: {path} is a directory; name a file in it")
    kind = _file_system(path)
    if kind in NETWORK:
        raise ConfigError(f"url: {path} is on a network file system ({kind}), where SQLite's locks do not hold")


def _file_system(path: str) -> str:
    """The type of the mount that `path` lies on; empty where /proc does not tell."""
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
            rows = [line.split()[1:3] for line in mounts]
    except OSError:
        return ""
    real = os.path.realpath(path) + "/"
    found, length = "", 0
    for point, kind in rows:
        place = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), point).rstrip("/") + "/"
        # Of two mounts on one point the later one covers the other.
        if real.startswith(place) and len(place) >= length:
            found, length = kind, len(place)
    return found


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # not there yet: a connection makes its file when it first reads it
        return os.path.realpath(one) == os.path.realpath(other)


def _forked() -> None:
    global _users_lock  # noqa: PLW0603 - another thread of the parent may have held it
    _users_lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def _system_clock() -> int:
    return time.time_ns() // 1_000
