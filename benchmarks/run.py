"""Every figure, one after the other, as one table: `make bench`, or `make bench QUICK=1` to see that it works."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import time

from benchmarks import report
from benchmarks.peers import run as peers

FIGURES = (
    "throughput",
    "web_enqueue",
    "idle_enqueue",
    "idle_session",
    "memory_growth",
    "sleepers",
    "million_rows",
    "import_time",
    "uploads",
)
WITH_A_SERVER = ("postgres", "postgres_rows", "postgres_pinned")
"""They need the system's PostgreSQL, and root; the last takes an hour and a half."""


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small round of each, about two minutes")
    parser.add_argument("--rounds", type=int, default=None, help="default 5, or 1 with --quick")
    parser.add_argument("--only", default=",".join(FIGURES), help="some of: " + ", ".join((*FIGURES, *WITH_A_SERVER)))
    given = parser.parse_args()
    rounds = given.rounds or (1 if given.quick else 5)
    wanted = given.only.split(",")
    if unknown := set(wanted) - {*FIGURES, *WITH_A_SERVER}:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    began = time.monotonic()
    if "throughput" in wanted:
        prepare("huey")
    if "postgres" in wanted:
        for peer in importlib.import_module("benchmarks.postgres").RIVALS:
            prepare(peer)
    machine = report.machine()
    figures: list[report.Figure] = []
    try:
        for name in wanted:
            report.say(f"\n{name}: {(importlib.import_module(f'benchmarks.{name}').__doc__ or '').splitlines()[0]}")
            figures += importlib.import_module(f"benchmarks.{name}").measure(rounds, given.quick)
    finally:
        shutil.rmtree(peers.HOME, ignore_errors=True)  # half a gigabyte of stores
        if os.path.exists(peers.TICKS):
            os.unlink(peers.TICKS)
    print(f"\n{machine}\n- took: {(time.monotonic() - began) / 60:.0f} min{', quick' if given.quick else ''}\n")
    print(report.table(figures))


def prepare(peer: str) -> None:
    """An environment of its own for what Windlass is compared with, on the same Python."""
    if peers.installed(peer):
        return
    report.say(f"installing {peer} into {os.path.relpath(peers.VENVS)}")
    script = os.path.join(peers.HERE, "setup.sh")
    env = {**os.environ, "PEERS_PYTHON": sys.executable, "PEERS_VENVS": peers.VENVS}
    subprocess.run([script, peer], env=env, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
