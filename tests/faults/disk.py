"""A disk that fails, or kills, at the n-th thing that SQLite asks of it: for apsw a VFS of its own, for the standard
library's module the default VFS of the same shared library, with some of its functions replaced."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apsw
import pytest

IOERR = {"read": 266, "write": 778, "sync": 1034, "truncate": 1546, "delete": 2570}
"""SQLite's extended codes."""
FULL = 13


class Disk:
    """Counts requests (read, write, sync, truncate, delete) for the files of a database while it is armed."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.struck = 0
        self._act = ""
        self._at = 0
        self._lasting = False
        self._kinds: tuple[str, ...] = ()
        self.watch: Callable[[str], object] = lambda request: None
        """Called before each request that counts, and after it."""

    def arm(self, act: str, at: int, *, lasting: bool = False, reads: bool = False) -> None:
        """From now on count, and at the `at`-th request (and ever after, if `lasting`) act.

        `eio`: refuse it. `full`: refuse a write for want of room. `torn`: do it, a write by half, and say that it
        failed. `kill`: end this process before it; `killed`: after it.
        """
        self.log.clear()
        self._act, self._at, self._lasting, self.struck = act, at, lasting, 0
        self._kinds = ("read",) if reads else ("write", "sync", "truncate", "delete")

    def rest(self) -> list[str]:
        """Count and fail no more; answers what was asked."""
        self._kinds = ()
        return list(self.log)

    def ask(self, kind: str, file: str, perform: Callable[[], int], half: Callable[[], int] | None = None) -> int:
        """Answers SQLite's code."""
        if kind not in self._kinds:
            return perform()
        self.log.append(f"{kind} {file}")
        number = len(self.log)
        self.watch(f"before {self.log[-1]}")
        if not (number == self._at or (self._lasting and 0 < self._at < number)):
            code = perform()
            self.watch(f"after {self.log[-1]}")
            return code
        if self._act == "full" and kind != "write":
            return perform()
        self.struck += 1
        if self._act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._act in ("torn", "killed"):
            (half if half is not None and self._act == "torn" else perform)()
            if self._act == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
        return FULL if self._act == "full" else IOERR[kind]


@contextmanager
def faulty(kind: str) -> Iterator[Disk]:
    """What the library of `kind` opens meanwhile lies on the Disk."""
    disk = Disk()
    with _apsw(disk) if kind == "apsw" else _stdlib(disk):
        yield disk


# --- apsw -----------------------------------------------------------------------------------------------------------


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._name = _named(flags[0])
        super().__init__("unix", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        found: list[bytes] = [b""]

        def read() -> int:
            found[0] = super(_File, self).xRead(amount, offset)
            return 0

        _raise(self._disk.ask("read", self._name, read))
        return found[0]

    def xWrite(self, data: bytes, offset: int) -> None:
        write = super().xWrite
        half = data[: len(data) // 2]
        _raise(self._disk.ask("write", self._name, lambda: write(data, offset) or 0, lambda: write(half, offset) or 0))

    def xSync(self, flags: int) -> None:
        sync = super().xSync
        _raise(self._disk.ask("sync", self._name, lambda: sync(flags) or 0))

    def xTruncate(self, size: int) -> None:
        truncate = super().xTruncate
        _raise(self._disk.ask("truncate", self._name, lambda: truncate(size) or 0))


class _Vfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__("windlass-faults", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self._disk, name, flags) if _named(flags[0]) else super().xOpen(name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        delete = super().xDelete
        _raise(self._disk.ask("delete", filename.rpartition("-")[2], lambda: delete(filename, syncdir) or 0))


def _raise(code: int) -> None:
    """As apsw does with a code that its library answers."""
    if code:
        error = apsw.FullError("database or disk is full") if code == FULL else apsw.IOError("disk I/O error")
        error.result, error.extendedresult = code & 0xFF, code
        raise error


@contextmanager
def _apsw(disk: Disk) -> Iterator[None]:
    vfs = _Vfs(disk)
    try:
        yield
    finally:
        vfs.unregister()


def _named(flags: int) -> str:
    """Which of a database's files is opened with these flags; empty for others."""
    for flag, name in ((0x100, "db"), (0x800, "journal"), (0x80000, "wal")):
        if flags & flag:
            return name
    return ""


# --- the standard library's -----------------------------------------------------------------------------------------

P, I, L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
OPEN = ctypes.CFUNCTYPE(I, P, P, P, I, P)
DELETE = ctypes.CFUNCTYPE(I, P, ctypes.c_char_p, I)
TRANSFER = ctypes.CFUNCTYPE(I, P, P, I, L)
TRUNCATE = ctypes.CFUNCTYPE(I, P, L)
SYNC = ctypes.CFUNCTYPE(I, P, I)


class VfsStruct(ctypes.Structure):
    _fields_ = (
        *((name, I) for name in ("iVersion", "szOsFile", "mxPathname")),
        *((name, P) for name in ("pNext", "zName", "pAppData", "xOpen", "xDelete")),
    )


class MethodsStruct(ctypes.Structure):
    _fields_ = (
        ("iVersion", I),
        *((name, P) for name in ("xClose", "xRead", "xWrite", "xTruncate", "xSync", "xFileSize")),
        *((f"other{n}", P) for n in range(12)),
    )


_kept: list[Any] = []
"""A callback that was freed while a connection still has it would end the process."""


def _address(function: Any) -> int:
    return ctypes.cast(function, P).value or 0


def _methods(disk: Disk, of: int, name: str) -> MethodsStruct:
    """The functions of an open file, four of which ask the disk first."""
    real = MethodsStruct.from_address(of)
    mine = MethodsStruct.from_buffer_copy(real)
    read, write = TRANSFER(real.xRead), TRANSFER(real.xWrite)
    truncate, sync = TRUNCATE(real.xTruncate), SYNC(real.xSync)
    functions = (
        TRANSFER(lambda file, to, n, at: disk.ask("read", name, lambda: read(file, to, n, at))),
        TRANSFER(
            lambda file, data, n, at: disk.ask(
                "write", name, lambda: write(file, data, n, at), lambda: write(file, data, n // 2, at)
            )
        ),
        TRUNCATE(lambda file, size: disk.ask("truncate", name, lambda: truncate(file, size))),
        SYNC(lambda file, flags: disk.ask("sync", name, lambda: sync(file, flags))),
    )
    mine.xRead, mine.xWrite, mine.xTruncate, mine.xSync = (_address(function) for function in functions)
    _kept.append((mine, functions, read, write, truncate, sync))
    return mine


@contextmanager
def _stdlib(disk: Disk) -> Iterator[None]:
    library = ctypes.CDLL(ctypes.util.find_library("sqlite3"))
    library.sqlite3_vfs_find.restype = ctypes.POINTER(VfsStruct)
    vfs = library.sqlite3_vfs_find(None).contents
    real = (vfs.xOpen, vfs.xDelete)
    open_, delete = OPEN(vfs.xOpen), DELETE(vfs.xDelete)
    tables: dict[tuple[int, str], MethodsStruct] = {}

    def opening(self: int, path: int, file: int, flags: int, out: int) -> int:
        code = open_(self, path, file, flags, out)
        slot = P.from_address(file)
        name = _named(flags)
        if slot.value and name:
            key = (slot.value, name)
            if key not in tables:
                tables[key] = _methods(disk, slot.value, name)
            slot.value = ctypes.addressof(tables[key])
        return int(code)

    def deleting(self: int, path: bytes, sync: int) -> int:
        name = path.decode(errors="replace").rpartition("-")[2]
        return disk.ask("delete", name, lambda: delete(self, path, sync))

    functions = OPEN(opening), DELETE(deleting)
    _kept.append((functions, open_, delete, tables))
    vfs.xOpen, vfs.xDelete = map(_address, functions)
    try:
        if not _is_used(disk):
            pytest.skip("Python's sqlite3 module has a SQLite of its own, which cannot be reached from here")
        yield
    finally:
        vfs.xOpen, vfs.xDelete = real


def _is_used(disk: Disk) -> bool:
    """Whether the module sqlite3 works with the library that was found."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        disk.arm("eio", 0)
        connection = sqlite3.connect(f"{folder}/a.db")
        connection.execute("CREATE TABLE a (b)")
        connection.close()
        return bool(disk.rest())
