"""A disk that forgets at a power cut what was not flushed: a VFS for apsw.

Every write goes to a file, from which SQLite reads as always; beside that the disk remembers what each file held when
it was last flushed, and what was written since. At a power cut any part of what was written since may have reached the
platter, in any order, the last piece by half.
"""

from __future__ import annotations

import itertools
import os
import random
from typing import Any

import apsw

from windlass.stores.sqlite.driver_apsw import ApswDriver
from windlass.testing.simulation.database import PowerCut

_numbers = itertools.count(1)
WAL, DATABASE = 0x80000, 0x100
"""SQLite's flags for the files that must last; its shared memory is no file to it."""

Write = tuple[int, bytes | None]
"""At which offset, what; None cuts the file off there."""


class _Platter:
    """What of one file is safe, and what is not yet."""

    def __init__(self, safe: bytes, *, known: bool) -> None:
        self.safe = bytearray(safe)
        self.known = known
        """Whether its name would be in the directory after a power cut."""
        self.pending: list[Write] = []

    def flush(self) -> None:
        for write in self.pending:
            _apply(self.safe, write)
        self.pending.clear()
        self.known = True

    def after_cut(self, dice: random.Random) -> bytes | None:
        """What is found when the power is back; None for a file whose name never got there."""
        if not self.known and dice.random() < 0.5:
            return None
        found = bytearray(self.safe)
        way = dice.choice(("nothing", "everything", "a beginning", "some"))
        kept = self.pending[:]
        if way == "nothing":
            kept = []
        elif way == "a beginning":
            kept = kept[: dice.randint(0, len(kept))]
        elif way == "some":
            kept = [write for write in kept if dice.random() < 0.5]
        for write in kept:
            _apply(found, write)
        rest = self.pending[len(kept) :]
        if way == "a beginning" and rest and rest[0][1] is not None and dice.random() < 0.5:
            offset, data = rest[0]
            assert data is not None
            _apply(found, (offset, data[: dice.randint(0, len(data))]))
        return bytes(found)


def _apply(file: bytearray, write: Write) -> None:
    offset, data = write
    if data is None:
        del file[offset:]
        return
    if len(file) < offset:
        file.extend(bytes(offset - len(file)))
    file[offset : offset + len(data)] = data


class Disk:
    """The files of one database, by name."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._platters: dict[str, _Platter] = {}
        self.on = True
        self.cut_in = 0
        """At this request from now on the power goes; 0 for never."""
        self.requests = 0
        self.unsafe = 0
        """Writes that a power cut undid, so far."""
        self._vfs = _Vfs(self)

    def put(self, path: str, content: bytes) -> None:
        """Have a file, flushed."""
        with open(path, "wb") as file:
            file.write(content)
        self._platters[path] = _Platter(content, known=True)

    def request(self) -> None:
        """Before each write and each flush. Raises PowerCut."""
        self.requests += 1
        if self.cut_in:
            self.cut_in -= 1
            if not self.cut_in:
                self.on = False
                raise PowerCut

    def platter(self, path: str) -> _Platter:
        """Of a file that is being opened."""
        if path not in self._platters:
            self._platters[path] = _Platter(b"", known=False)
        return self._platters[path]

    def forget(self, path: str) -> None:
        """It was deleted."""
        self._platters.pop(path, None)

    def lose_power(self) -> dict[str, bytes]:
        """What is left, by path; nothing that is still open can be written any more."""
        self.on = False
        self.unsafe += sum(len(platter.pending) for platter in self._platters.values())
        found = {path: platter.after_cut(self._dice) for path, platter in self._platters.items()}
        return {path: content for path, content in found.items() if content is not None}

    def open(self, path: str) -> ApswDriver:
        """A connection to a database that lies here."""
        return _Driver(path, self._vfs.name)

    def close(self) -> None:
        """Give the VFS back."""
        self._vfs.unregister()


class _Driver(ApswDriver):
    """A connection through a VFS of ours."""

    def __init__(self, path: str, vfs: str) -> None:
        self.raw = apsw.Connection(path, vfs=vfs, statementcachesize=200)
        self._execute = self.raw.execute


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, platter: _Platter, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._platter = platter
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        if self._disk.on:
            self._disk.request()
            self._platter.pending.append((offset, bytes(data)))
            super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        if self._disk.on:
            self._disk.request()
            self._platter.pending.append((size, None))
            super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._disk.on:
            self._disk.request()
            self._platter.flush()


class _Vfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.name = f"windlass-simulated-{next(_numbers)}"
        super().__init__(self.name, "unix")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        if not flags[0] & (WAL | DATABASE):
            return super().xOpen(name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        return _File(self._disk, self._disk.platter(path), name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        if self._disk.on:
            self._disk.forget(filename)
            super().xDelete(filename, syncdir)


def fast_directory() -> str | None:
    """Where files cost least."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - a directory of our own is made there
