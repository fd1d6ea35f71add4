"""Chaos, with real processes: eight workers under three supervisors, every kind of job, and trouble without end.

What happened is in the ledgers of those to whom it happened; `windlass ledger check` says whether it may have.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from tests.acceptance.rig import PROGRAM, REPOSITORY, WAITING, Rig, eventually, rig
from tests.acceptance.trouble import HOLD, Trouble
from windlass.ports.store import ScheduleChange
from windlass.testing import ledger
from windlass.testing.conformance.sizes import seeds, size

SECOND = 1_000_000
SCHEDULE = "each second"


class Aim(NamedTuple):
    """What must have happened before it is enough."""

    jobs: int
    kills: int
    stops: int
    seconds: float
    rate: float
    """Jobs enqueued a second."""


WHICH = size(0, 1, 2)
AIM = (
    Aim(jobs=3_000, kills=10, stops=2, seconds=0, rate=400),
    Aim(jobs=50_000, kills=500, stops=100, seconds=20 * 60, rate=200),
    Aim(jobs=1_000_000, kills=2_000, stops=500, seconds=0, rate=350),
)[WHICH]
PATIENCE = (60, 300, 900)[WHICH]
"""Seconds until everything has ended, once the trouble has."""


class Acked:
    """Counts what the producers have written down, reading each byte once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[int, int] = {}
        self.count = 0

    def look(self, producers: list[int]) -> int:
        for pid in producers:
            path = self._directory / f"{pid}.jsonl"
            if path.exists():
                with path.open("rb") as file:
                    file.seek(self._read.get(pid, 0))
                    text = file.read()
                self._read[pid] = self._read.get(pid, 0) + len(text)
                self.count += text.count(b'"acked"')
        return self.count


@pytest.mark.timeout((240, 3_600, 0)[WHICH])
def test_chaos(record_property: Any) -> None:
    seed = seeds(1, 2, 2)[0]
    place = Path(tempfile.mkdtemp(prefix="windlass-chaos-"))  # pytest forgets its own after three more runs
    print(f"WINDLASS_SEED={seed}, all that is left of a failure is in {place}", flush=True)
    with rig(place, WINDLASS_HOLD=f"{HOLD}s", WINDLASS_LIVENESS="lease") as r:
        r.sql("CREATE TABLE books (job TEXT, fence INTEGER)")
        trouble = Trouble(r, seed, AIM.rate)
        try:
            cause(trouble, Acked(r.ledger))
        finally:
            trouble.end()
        settle(r)
        write_down(r)
        assert r.run(r.opened.store.audit()) == []
    report = checked(place / "ledger")
    assert report["counts"]["acknowledged"] >= AIM.jobs
    assert "SIGTERM supervisor" not in report["explained"]  # I26: a stop hands back what has not begun
    record_property("proof", {**report["counts"], **report["faults"], "lost": 0, "stale": 0, "unexplained": 0})
    keep(place)


def cause(trouble: Trouble, acked: Acked) -> None:
    """Rounds of trouble, until there was enough of it for as many jobs."""
    began = time.monotonic()
    while not (
        time.monotonic() - began >= AIM.seconds
        and trouble.count("SIGKILL") >= AIM.kills
        and trouble.count("SIGSTOP") >= AIM.stops
        and acked.look(trouble.producers) >= AIM.jobs * 1.05  # some are acknowledged for several requests
    ):
        trouble.round()
        print(f"{time.monotonic() - began:6.0f} s: {acked.look(trouble.producers):,} acknowledged; {trouble}", flush=True)


def settle(r: Rig) -> None:
    """No more ticks; then everything ends, and the supervisors leave."""
    r.run(r.opened.store.change_schedules([ScheduleChange(name=SCHEDULE, action="pause")]))
    eventually(lambda: not waiting(r), PATIENCE)
    for each in r.supervised:
        if each.process.poll() is None:
            assert each.stop() == 0


def waiting(r: Rig) -> int:
    states = r.run(r.opened.store.stats()).states
    return sum(states.get(state, 0) for state in WAITING)


def write_down(r: Rig) -> None:
    """What the store holds, beside what everybody else wrote."""
    ledger.export(r.opened, r.ledger)
    for job, fence in r.sql("SELECT job, fence FROM books"):
        ledger.write(str(r.ledger), "written", job, fence, note="the row")
    [at] = r.run(r.opened.store.schedules((SCHEDULE,)))
    first, last = (at.created_at // SECOND + 1) * SECOND, at.cursor // SECOND * SECOND
    ledger.write(str(r.ledger), "schedule", schedule=SCHEDULE, created=first, ended=last, step=SECOND)


def checked(directory: Path) -> Any:
    """As a person would: the command, in words for whoever reads along, and as JSON."""
    command = [sys.executable, "-c", PROGRAM, "ledger", "check", str(directory)]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    print(said.stdout, said.stderr)
    assert said.returncode == 0, f"the ledgers are kept in {directory}"
    return msgspec.json.decode(subprocess.run([*command, "--json"], capture_output=True, check=True).stdout)


def keep(place: Path) -> None:
    """After a failure all stays where it is; else the ledgers only, where somebody asked for them."""
    wanted = os.environ.get("WINDLASS_KEEP_LEDGERS")
    if wanted:
        kept = Path(wanted) / place.name
        shutil.copytree(place / "ledger", kept)
        print(f"the ledgers are kept in {kept}")
    shutil.rmtree(place)
