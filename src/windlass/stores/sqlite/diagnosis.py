"""What can be read off a SQLite store: the library, the file, the disk, and what "enqueued" survives here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from windlass.core.errors import StoreError
from windlass.core.health import Reading
from windlass.core.words import span
from windlass.ports.plan import NOW, Plan, Rows, Statement, Steps
from windlass.stores.named_sql import load_migrations
from windlass.stores.sqlite.store import RAW

if TYPE_CHECKING:
    from windlass.stores.sqlite import OpenedSqlite

DISK_BAD, DISK_LOW = 64 << 20, 1 << 30
WAL_LARGE = 128 << 20
"""Eight times the size at which a checkpoint is made: somebody's open reader stands in its way."""
SYNCHRONOUS = ("off", "normal", "full", "extra")

SURVIVES = {
    # (journal, synchronous): what a committed enqueue survives, and whether the file itself is safe
    ("wal", "full"): "a crash of every process, of the system, and a loss of power",
    ("wal", "extra"): "a crash of every process, of the system, and a loss of power",
    ("wal", "normal"): "a crash of every process; a loss of power may take the last commits, and nothing else",
    ("delete", "full"): "a crash of every process, of the system, and a loss of power",
    ("delete", "extra"): "a crash of every process, of the system, and a loss of power",
    ("delete", "normal"): "a crash of every process; a loss of power at the wrong moment may damage the file",
}


def diagnose(opened: OpenedSqlite, library: str, file_system: str) -> Iterator[Reading]:
    """Read everything that needs no knowledge of jobs; `library` is apsw or stdlib."""
    yield _library(library)
    if not os.path.exists(opened.path):
        yield Reading("file", opened.path, "bad", "is not there; `windlass store migrate` makes it")
        return
    yield from _file(opened.path)
    yield from _disk(opened.path, file_system)
    try:
        answers = opened.shell.run(_pragmas())
        version = opened.shell.run(opened.store.version())
    except StoreError as error:
        yield Reading("readable", False, "bad", str(error))
        return
    yield from _durability(*answers)
    schema = _schema(version)
    yield schema
    if schema.verdict == "ok":
        for name, holder, until, now in opened.shell.run(_leads()):
            left = span(until - now)
            yield Reading("lead", name, "warning", f"is held by {holder}, of which no worker lives; free in {left}")


def _pragmas() -> Plan[tuple[str, int]]:
    def steps() -> Steps[tuple[str, int]]:
        journal: Rows = yield Statement(RAW, ("PRAGMA journal_mode",))
        synchronous: Rows = yield Statement(RAW, ("PRAGMA synchronous",))
        return str(journal[0][0]).lower(), int(synchronous[0][0])

    return Plan(steps, "pragmas", write=False)


def _leads() -> Plan[Rows]:
    def steps() -> Steps[Rows]:
        now = (yield NOW)[0][0]
        return (yield Statement("leads_of_nobody", (now,)))

    return Plan(steps, "leads", write=False)


def _library(library: str) -> Reading:
    if library == "apsw":
        from windlass.stores.sqlite.driver_apsw import VERSION
    else:
        from windlass.stores.sqlite.driver_stdlib import VERSION
    whose = "its own, by way of apsw" if library == "apsw" else "the standard library's"
    if has_reset_bug(VERSION):
        return Reading(
            "library",
            f"SQLite {VERSION} ({whose})",
            "warning",
            "has the WAL-reset bug: with two or more connections in WAL mode the file may be damaged; fixed in "
            "3.44.6, 3.50.7 and 3.51.3",
        )
    return Reading("library", f"SQLite {VERSION} ({whose})")


def has_reset_bug(version: str) -> bool:
    """Whether a SQLite of this version may lose pages when the WAL is reset under a second connection."""
    number = tuple(int(part) for part in version.split("."))
    if not (3, 7, 0) <= number <= (3, 51, 2):
        return False
    return not (number[:2] == (3, 44) and number >= (3, 44, 6)) and not (number[:2] == (3, 50) and number >= (3, 50, 7))


def _file(path: str) -> Iterator[Reading]:
    yield Reading("file", path)
    yield Reading("size", os.path.getsize(path))
    try:
        wal = os.path.getsize(f"{path}-wal")
    except FileNotFoundError:
        return
    if wal > WAL_LARGE:
        yield Reading(
            "wal", wal, "warning", "is large: a reader that never ends its transaction keeps it from shrinking"
        )
    else:
        yield Reading("wal", wal)


def _disk(path: str, kind: str) -> Iterator[Reading]:
    if kind in ("tmpfs", "ramfs"):
        yield Reading("file_system", kind, "warning", "is memory: a restart of the machine empties it")
    elif kind == "overlay":
        yield Reading(
            "file_system", kind, "warning", "is a container's own layer, gone with the container; use a volume"
        )
    else:
        yield Reading("file_system", kind or "unknown")
    disk = os.statvfs(os.path.dirname(path))
    free = disk.f_bavail * disk.f_frsize
    if free < DISK_BAD:
        yield Reading("disk_free", free, "bad", "is almost nothing: enqueues will soon be refused")
    elif free < DISK_LOW:
        yield Reading("disk_free", free, "warning", "is little")
    else:
        yield Reading("disk_free", free)


def _durability(journal: str, synchronous: int) -> Iterator[Reading]:
    word = SYNCHRONOUS[synchronous] if 0 <= synchronous < len(SYNCHRONOUS) else str(synchronous)
    yield Reading("journal_mode", journal)
    alike = "delete" if journal in ("truncate", "persist") else journal
    survives = SURVIVES.get((alike, word))
    if survives is None:
        yield Reading("durability", word, "bad", "a crash of the system may damage the file")
    else:
        yield Reading("durability", word, "ok", f"what is enqueued survives {survives}")


def _schema(version: int) -> Reading:
    ours = len(load_migrations("windlass.stores.sqlite"))
    if version == ours:
        return Reading("schema", version)
    if version > ours:
        return Reading("schema", version, "bad", f"is newer than this Windlass, which knows {ours}: upgrade Windlass")
    what = "there is none yet" if version == 0 else f"this Windlass wants {ours}"
    return Reading("schema", version, "bad", f"{what}: run `windlass store migrate`")
