"""I1: processes that enqueue in a loop are killed; what they were told is in a ledger of their own, outside the store."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import KINDS, FalseAcks, Ledger, broken, count, forks, migrated, url_of
from windlass import Windlass
from windlass.core.job import NewJob
from windlass.testing.conformance.sizes import size

PRODUCERS = 2
WAYS = ("one", "batch", "gathered")


def produce(kind: str, path: Path, way: str, line: Connection) -> None:
    """A process that enqueues until it dies, and says before each what it sends and after each what was answered."""
    fd = line.fileno()

    def say(word: str, jobs: list[NewJob]) -> None:
        # One write: shorter than a pipe's buffer, so never torn by the kill.
        os.write(fd, "".join(f"{word} {job.id}\n" for job in jobs).encode())

    app = Windlass(url_of(kind, path))
    note = app.named("note")
    jobs: Callable[[int], list[NewJob]] = lambda n: [note.new_job(("x" * 300, k), {}, None) for k in range(n)]
    if way == "gathered":
        asyncio.run(gather(app, jobs, say))
    while True:
        batch = jobs(20 if way == "batch" else 1)
        say("tried", batch)
        app.engine.submit(batch)
        say("acked", batch)


async def gather(app: Windlass, jobs: Any, say: Any) -> None:
    """Eight at once, which share transactions."""

    async def one() -> None:
        while True:
            batch = jobs(1)
            say("tried", batch)
            await app.engine.asubmit(batch)
            say("acked", batch)

    await asyncio.gather(*(one() for _ in range(8)))


def run_and_kill(kind: str, path: Path, way: str, dice: random.Random, ledger: Ledger) -> int:
    """Let some producers run into each other, kill each at a moment of its own, and read what they had said."""
    context = forks()
    ends = [context.Pipe(duplex=False) for _ in range(PRODUCERS)]
    processes = [context.Process(target=produce, args=(kind, path, way, line)) for _, line in ends]
    for process, (_, line) in zip(processes, ends, strict=True):
        process.start()
        line.close()
    killed = 0
    for process, (said, _) in zip(processes, ends, strict=True):
        assert said.poll(30), "it never began"
        time.sleep(dice.random() * 0.03)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        process.close()
    for said, _ in ends:
        read(said, ledger)
    return killed


def read(said: Connection, ledger: Ledger) -> None:
    with os.fdopen(os.dup(said.fileno()), encoding="ascii") as lines:
        for line in lines:
            word, _, id = line.strip().partition(" ")
            (ledger.tried if word == "tried" else ledger.acked).append(id)
    said.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_acknowledged_job_is_lost(kind: str, way: str, place: Path, record_property: Any) -> None:
    """I1: acknowledged and missing: none. Not acknowledged: either way. Twice: none. And the next process writes on."""
    seed = int(os.environ.get("WINDLASS_SEED") or random.randrange(1 << 32))
    dice = random.Random(seed)
    ledger = Ledger()
    killed = 0
    path = place / "jobs.db"
    with migrated(kind, path) as opened:
        # On a busy machine some are killed before anything of theirs is acknowledged: that proves nothing, so go on.
        while killed < size(8, 70, 700) or len(ledger.acked) <= killed:
            killed += run_and_kill(kind, path, way, dice, ledger)
            assert ledger.faults(opened) == [], f"seed {seed}"
        assert len(set(ledger.acked)) == len(ledger.acked) > killed
    assert broken(kind, path) == []
    count(
        record_property, kind=kind, way=way, kills=killed, acked=len(ledger.acked), unsure=len(ledger.tried) - len(ledger.acked)
    )


def test_a_store_that_forgets_would_be_seen(tmp_path: Path) -> None:
    """The checker against false acknowledgements, a job stored twice and one that nobody sent."""
    with migrated("apsw", tmp_path / "jobs.db") as opened:
        note = Windlass("memory://").named("note")
        ledger = Ledger()
        jobs = [note.new_job((n,), {}, None) for n in range(9)]
        liar = FalseAcks(opened, 4)
        for job in jobs[:8]:
            ledger.enqueue(liar, job)
        assert sorted(ledger.faults(opened)) == sorted(
            f"{words}: {jobs[n].id}" for n in (3, 7) for words in ("acknowledged and lost", "not to be fetched")
        )
        opened.shell.run(opened.store.enqueue([jobs[8]]))
        assert f"nobody sent it: {jobs[8].id}" in ledger.faults(opened)
