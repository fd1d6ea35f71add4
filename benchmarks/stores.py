"""Stores with a million jobs, made once and copied for every round, and how fast they are."""

from __future__ import annotations

import os
import shutil

from benchmarks import report
from benchmarks.peers import run as peers

ROWS = 1_000_000
STORE = os.path.join(peers.HOME, "windlass.db")


def restore(kind: str) -> None:
    """Put a fresh store in place: "empty", or with a million jobs that are queued ("backlog") or done ("history")."""
    peers.call("windlass", "sqlite", "reset")
    if kind == "empty":
        return
    kept = os.path.join(peers.HOME, f"windlass-{kind}-{os.path.getmtime(_schema()):.0f}.db")
    if not os.path.exists(kept):
        report.say(f"making a store with {ROWS:,} jobs of {kind}")
        _make(kind)
        os.rename(STORE, kept)
    for end in ("", "-wal", "-shm"):
        if os.path.exists(STORE + end):
            os.unlink(STORE + end)
    shutil.copyfile(kept, STORE)
    # or the kernel writes half a gigabyte back while the round is being timed
    fd = os.open(STORE, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def rate(store: str, jobs: int) -> float:
    """Jobs a second in the steady part of so many that wait in this store."""
    peers.clear_ticks()
    worker = peers.Worker("windlass", store)
    try:
        _, series, complete = peers.drain(worker, jobs, 120)
        if not complete:
            raise SystemExit(f"{series[-1][1]} of {jobs} jobs ran in two minutes")
        return peers.steady(series, jobs)[0]
    finally:
        worker.stop()


def _make(kind: str) -> None:
    peers.clear_ticks()
    peers.call("windlass", "sqlite", "single", 1)
    if kind == "history":
        worker = peers.Worker("windlass", "sqlite")
        try:
            _, _, complete = peers.drain(worker, 1, 20)
        finally:
            worker.stop()  # waits until its last outcome is settled
        if not complete:
            raise SystemExit("the job to be copied did not run; see the worker's log")
    peers.call("windlass", "sqlite", "clone", kind, ROWS)


def _schema() -> str:
    """A kept store of another schema is of no use."""
    import windlass

    return os.path.join(os.path.dirname(windlass.__file__), "stores", "sqlite", "migrations")
