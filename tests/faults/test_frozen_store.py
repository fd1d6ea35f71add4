"""I1b: a process that holds the store's lock is stopped in the middle; whoever enqueues is told within the deadline."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import KINDS, Ledger, migrated, new_job, open_store, opened_store, typed, url_of, use_wal
from windlass import Windlass
from windlass.core.errors import OutcomeUnknown, StoreTimeout

DEADLINE = 2.0
LATE = 1.1
"""What the invariant allows over the deadline."""

HOLDER = {
    "apsw": "import apsw, sys\nc = apsw.Connection(sys.argv[1])\n",
    "stdlib": "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n",
}
HOLD = "c.execute(sys.argv[2]); print('held', flush=True); sys.stdin.read()"


@contextmanager
def frozen(kind: str, path: Path, begin: str) -> Iterator[Callable[[], None]]:
    """Another process inside a transaction, stopped; calling what is yielded lets it go on and end."""
    program = HOLDER[kind[:6]] + HOLD
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(path), begin], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None

    def thaw() -> None:
        os.kill(holder.pid, signal.SIGCONT)
        holder.communicate()

    try:
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGSTOP)
        yield thaw
    finally:
        holder.kill()
        holder.communicate()


class Timed:
    """How long each call took, and what it raised."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self.raised: list[BaseException] = []

    @contextmanager
    def call(self) -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        except BaseException as error:
            self.raised.append(error)
        finally:
            self.took.append(time.monotonic() - begin)

    def check(self, calls: int) -> None:
        """Every one of them raised, none before its time and none late; OutcomeUnknown if this very process was late."""
        assert len(self.raised) == len(self.took) == calls
        for error in self.raised:
            typed(error, (StoreTimeout, OutcomeUnknown))
        assert min(self.took) > DEADLINE * 0.5
        assert max(self.took) <= DEADLINE * LATE, self.took


def all_at_once(app: Windlass, timed: Timed, threads: int, tasks: int) -> None:
    """Enqueue from threads and from an event loop together."""

    def blocking() -> None:
        with timed.call():
            app.enqueue("note", [1])

    async def one() -> None:
        with timed.call():
            await app.aenqueue("note", [1])

    async def several() -> None:
        await asyncio.gather(*(one() for _ in range(tasks)))

    workers = [threading.Thread(target=blocking) for _ in range(threads)]
    for worker in workers:
        worker.start()
    asyncio.run(several())
    for worker in workers:
        worker.join()


@pytest.mark.parametrize(
    ("kind", "begin"), [*((kind, "BEGIN IMMEDIATE") for kind in KINDS), ("stdlib", "BEGIN EXCLUSIVE")]
)
def test_enqueue_ends_within_its_deadline(kind: str, begin: str, tmp_path: Path) -> None:
    """I1b: four threads and eight coroutines at once, each with its own deadline; then everything works again."""
    path = tmp_path / "jobs.db"
    open_store(kind, path).close()
    timed = Timed()
    with Windlass(url_of(kind, path), enqueue_timeout=DEADLINE) as app:
        first = app.enqueue("note", [0])
        with frozen(kind, path, begin) as thaw:
            all_at_once(app, timed, threads=4, tasks=8)
            timed.check(12)
            thaw()
            second = app.enqueue("note", [2])
            assert [first.state(), second.state()] == ["queued", "queued"]
        assert app.client.stats(exact=True).states["queued"] == 2
        assert app.engine.run(app.opened.store.audit()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_was_never_used_is_frozen(kind: str, tmp_path: Path) -> None:
    """I1b: also the first use of a process, which has a file to open and a schema to make, is bounded."""
    path = tmp_path / "jobs.db"
    if kind == "stdlib-wal":
        use_wal(path)
    timed = Timed()
    with Windlass(url_of(kind, path), enqueue_timeout=DEADLINE) as app:
        with frozen(kind, path, "BEGIN EXCLUSIVE") as thaw:
            all_at_once(app, timed, threads=2, tasks=2)
            timed.check(4)
            thaw()
        assert app.enqueue("note", [2]).state() == "queued"
        assert app.client.stats(exact=True).states["queued"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_enqueue_that_is_sent_again_gives_one_job(kind: str, tmp_path: Path) -> None:
    """I1, I1b: with the same id, after a time-out, as often as one likes."""
    path = tmp_path / "jobs.db"
    ledger = Ledger()
    job = new_job()
    with migrated(kind, path) as opened:
        with frozen(kind, path, "BEGIN IMMEDIATE") as thaw:
            for _ in range(3):
                with pytest.raises(StoreTimeout):
                    ledger.enqueue(opened, job, timeout=0.05)
            thaw()
        for _ in range(3):
            ledger.enqueue(opened, job)
        assert ledger.acked == [job.id] * 3
        assert ledger.faults(opened) == []
    with opened_store(kind, path) as opened:
        assert opened.shell.run(opened.store.stats(exact=True)).states["queued"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_is_not_kept_by_a_frozen_writer(kind: str, tmp_path: Path) -> None:
    """A WAL's readers wait for nobody, in threads and on an event loop with a write in line before them."""
    path = tmp_path / "jobs.db"
    with migrated(kind, path) as opened:
        opened.shell.run(opened.store.enqueue([new_job()]))

        async def both() -> tuple[Any, Any]:
            shell = opened.async_shell()
            write = asyncio.ensure_future(shell.run(opened.store.enqueue([new_job()]), 0.3))
            read = await asyncio.wait_for(shell.run(opened.store.stats(), 5), 0.25)
            return read, (await asyncio.gather(write, return_exceptions=True))[0]

        with frozen(kind, path, "BEGIN IMMEDIATE"):
            assert opened.shell.run(opened.store.stats()).states["queued"] == 1
            read, write = asyncio.run(both())
            assert read.states["queued"] == 1
            typed(write, StoreTimeout)


def test_a_late_answer_would_be_seen() -> None:
    """A call that hangs for a fifth longer than it may; one that gives up at once; one that answers."""
    for took, raised in ((DEADLINE * 1.2, True), (0.01, True), (DEADLINE, False)):
        timed = Timed()
        timed.took.append(took)
        timed.raised += [StoreTimeout("x")] if raised else []
        with pytest.raises(AssertionError):
            timed.check(1)
