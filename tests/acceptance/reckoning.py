"""The end of a run: everything ends, all that was written down is held against the store, and what must be, is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from tests.acceptance.rig import PROGRAM, REPOSITORY, WAITING, Rig, eventually
from windlass.ports.store import ScheduleChange
from windlass.testing import ledger

SECOND = 1_000_000
SCHEDULE = "each second"


def settle(r: Rig, patience: float) -> None:
    """No more ticks; then everything ends within so many seconds, and the supervisors leave."""
    r.run(r.opened.store.change_schedules([ScheduleChange(name=SCHEDULE, action="pause")]))
    eventually(lambda: not waiting(r), patience)
    for each in r.supervised:
        if each.process.poll() is None:
            assert each.stop() == 0


def waiting(r: Rig) -> int:
    """How many jobs have not ended."""
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
