"""Growing up: a live SQLite installation moves to PostgreSQL, workers on both sides, and its copier is killed again and
again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from tests.stores.postgres_server import PLACES
from windlass.core.backoff import Backoff
from windlass.core.job import KeyLimit, Meta, NewJob, Policy, UniqueKey
from windlass.core.placement import job_id
from windlass.ports.parcel import Tally
from windlass.ports.store import Opened, ScheduleChange
from windlass.stores import open as open_store
from windlass.testing import ledger

JOBS, KILLS, BATCH = {"closing": (20_000, 10, 200), "soak": (200_000, 40, 200)}.get(
    os.environ.get("WINDLASS_PROOF", ""), (800, 3, 40)
)
PATIENCE = 60.0 + JOBS / 100
WINDLASS = [sys.executable, "-m", "windlass"]
COPY = [*WINDLASS, "store", "copy"]
BEAT = ["schedules", "add", "beat", "work", "[0]", "--every", "1s", "--overlap", "queue", "--catch-up", "all"]

APP = """
import os, time
from windlass import Context, Windlass
from windlass.testing import ledger

LEDGER = os.environ["LEDGER"]
app = Windlass()

@app.task(name="work")
def work(n: int, ctx: Context) -> int:
    ledger.write(LEDGER, "start", ctx.id, ctx.token.fence, ctx.attempt)
    time.sleep(0.002)
    bad = n % 23 == 5 and ctx.attempt == 1
    ledger.write(LEDGER, "end", ctx.id, ctx.token.fence, ctx.attempt, "raised" if bad else "")
    if bad:
        raise ValueError(n)
    return n
"""
POLICY = Policy(max_attempts=2, backoff=Backoff(base="300ms", factor=1, jitter=0))


def job(n: int) -> NewJob:
    """Of every kind, in turns: delayed, with an idempotency key, unique, limited, and some that fail once."""
    meta = Meta(policy=POLICY)
    more = {}
    match n % 6:
        case 1:
            more = {"after": 1_000_000 * (n % 5)}
        case 2:
            more = {"idempotency_key": f"k{n}", "digest": "d"}
        case 3:
            meta = msgspec.structs.replace(meta, unique=UniqueKey(f"u{n}"))
        case 4:
            meta = msgspec.structs.replace(meta, limits=(KeyLimit(f"l{n % 7}", 1),))
    id = job_id(time.time_ns() // 1_000_000, os.urandom(10))
    return NewJob(id=id, task="work", payload=f"[[{n}],{{}}]", meta=msgspec.json.encode(meta).decode(), **more)


class Sides:
    """Both stores, and who works on them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = path / "ledger"
        self.ledger.mkdir()
        (path / "work_app.py").write_text(APP)
        self.urls = (f"sqlite:///{path}/jobs.db", PLACES.url(path / "target"))
        self.source, self.target = (open_store(url) for url in self.urls)
        for opened in (self.source, self.target):
            opened.shell.run(opened.store.migrate())
        self.workers: list[subprocess.Popen[bytes]] = []
        self.acked: list[str] = []

    def work(self, url: str, concurrency: int) -> None:
        """A supervisor with one worker."""
        command = [*WINDLASS, "worker", "work_app:app", "--processes", "1"]
        environ = os.environ | {"WINDLASS_URL": url, "LEDGER": str(self.ledger)}
        with (self.path / f"log{len(self.workers)}").open("wb") as log:
            command += ["--concurrency", str(concurrency)]
            self.workers.append(subprocess.Popen(command, cwd=self.path, env=environ, stderr=log))

    def enqueue(self, numbers: Sequence[int]) -> None:
        jobs = [job(n) for n in numbers]
        answers = self.source.shell.run(self.source.store.enqueue(jobs))
        assert all(answer.inserted for answer in answers)
        for each in jobs:
            self.acked.append(each.id)
            ledger.write(str(self.ledger), "acked", each.id)

    def copier(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*COPY, *self.urls, "--batch", str(BATCH)], cwd=self.path, stdout=subprocess.PIPE)

    def states(self, opened: Opened) -> Counter[str]:
        return Counter(opened.shell.run(opened.store.stats(exact=True)).states)

    def arrived(self) -> Tally:
        name = self.source.shell.run(self.source.store.identity("never"))
        return self.target.shell.run(self.target.store.tallies(name))[1]

    def ticked(self) -> int:
        """Of the schedule, how often the target has fired it since the move."""
        here, there = (opened.shell.run(opened.store.schedules()) for opened in (self.source, self.target))
        return there[0].fired - here[0].fired

    def close(self) -> None:
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            worker.wait(40)
        for opened in (self.source, self.target):
            opened.close()
        PLACES.recycle()


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    sides = Sides(tmp_path)
    yield sides
    sides.close()


def until(true: object, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


@pytest.mark.timeout(900)
def test_a_live_installation_moves_while_its_copier_is_killed(sides: Sides, record_property: object) -> None:
    """I1, I2, I4, I10, I11: no job is lost, and none runs twice but by its own doing."""
    for some in _cut(JOBS * 3 // 4):
        sides.enqueue(some)
    subprocess.run([*WINDLASS, *BEAT, "--url", sides.urls[0]], check=True, stdout=subprocess.DEVNULL)
    for url in sides.urls:
        sides.work(url, 2)
    kills = 0
    for kill in range(KILLS):
        copier = sides.copier()
        goal = sides.arrived().jobs + JOBS // (2 * KILLS)
        until(lambda: sides.arrived().jobs >= goal or copier.poll() is not None, "nothing arrived")
        kills += copier.poll() is None
        copier.kill()
        copier.communicate()
        first = JOBS * 3 // 4 + JOBS // 4 * kill // KILLS
        sides.enqueue(range(first, JOBS * 3 // 4 + JOBS // 4 * (kill + 1) // KILLS))
    runs = 0
    while True:  # as an operator does: again, until nothing is left
        copier = sides.copier()
        said, _ = copier.communicate(timeout=PATIENCE)
        runs += 1
        if copier.returncode == 0:
            break
        assert copier.returncode == 1, said
        assert runs < 100, said
    assert b"verified" in said
    assert sum(sides.states(sides.source).values()) == 0
    assert len(sides.acked) == JOBS
    until(lambda: sides.ticked() > 2, "the schedule does not go on")
    sides.target.shell.run(sides.target.store.change_schedules([ScheduleChange(name="beat", action="pause")]))
    waiting = ("queued", "scheduled", "retrying", "running", "blocked")
    until(lambda: not any(sides.states(sides.target)[name] for name in waiting), "not all ended")
    ledger.export(sides.target, sides.ledger)
    report = ledger.check(ledger.History.of(sides.ledger), without=("limit",))
    lines = ledger.read(sides.ledger)
    here, there = (sum(x.what == "start" and x.parent == each.pid for x in lines) for each in sides.workers)
    figures = report.counts | {"ran at the source": here, "ran at the target": there} | {"kills": kills, "copies": kills + runs, "arrived": sides.arrived().jobs}
    record_property("proof", figures)  # type: ignore[operator]
    assert report.problems == []
    assert max(report.crowds.values()) <= 2, "each side keeps to its limits by itself"
    assert report.counts["acknowledged"] == JOBS
    assert report.states == {"completed": JOBS + report.counts["ticks"]}
    ticks = sorted(line.tick for line in lines if line.tick)
    assert {later - sooner for sooner, later in pairwise(ticks)} == {1_000_000}, "each tick once, wherever it was fired"
    assert kills == KILLS
    assert min(here, there) > 0
    for opened in (sides.source, sides.target):
        assert opened.shell.run(opened.store.audit()) == []


def _cut(count: int) -> Iterator[range]:
    return (range(first, min(first + 500, count)) for first in range(0, count, 500))
