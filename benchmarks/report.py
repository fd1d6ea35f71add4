"""What a figure is, the table it stands in, and the machine it was taken on."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from benchmarks.peers import run as peers


median = statistics.median
VERSION = "from importlib.metadata import version; print('{0}', version('{0}'))"
PEERS = {
    "huey": "import huey, sqlite3; print('huey', huey.__version__ + ' on SQLite', sqlite3.sqlite_version)",
    "pgqueuer": VERSION.format("pgqueuer"),
    "oban": VERSION.format("oban"),
    "awa": VERSION.format("awa-pg"),
    "chancy": VERSION.format("chancy"),
    "procrastinate": VERSION.format("procrastinate"),
}
"""How to ask each which version it is, in its own environment."""


@dataclass
class Figure:
    """One number of the table: a value per round, and what it should be."""

    name: str
    values: Sequence[float]
    unit: str = ""
    goal: float | None = None
    less: bool = True
    """Whether less is better; the goal is then an upper bound."""
    digits: int = 2

    @property
    def median(self) -> float:
        return median(self.values)

    def row(self) -> str:
        show = lambda x: f"{x:,.{self.digits}f}"
        spread = f"{show(min(self.values))} to {show(max(self.values))}" if len(self.values) > 1 else ""
        goal = verdict = ""
        if self.goal is not None:
            goal = f"{'<=' if self.less else '>='} {show(self.goal)}"
            verdict = "yes" if (self.median <= self.goal if self.less else self.median >= self.goal) else "**no**"
        return f"| {self.name} | {show(self.median)} {self.unit} | {spread} | {len(self.values)} | {goal} | {verdict} |"


def table(figures: Sequence[Figure]) -> str:
    """Markdown: median, spread, goal."""
    head = "| figure | median | min to max | rounds | goal | met |\n|---|---:|---:|---:|---:|---|"
    return "\n".join([head, *(each.row() for each in figures)])


def machine() -> str:
    """Markdown: what the figures depend on. Without the machine's name."""
    import apsw

    known = {
        "CPU": f"{_cpu()}, {os.cpu_count()} cores ({len(os.sched_getaffinity(0))} usable), {_memory():.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "disk": f"{_file_system(peers.HOME)}; write and flush of 4 KiB: median {_flush() * 1e6:,.0f} us",
        "Python": f"{platform.python_version()} ({platform.python_compiler()})",
        "Windlass": f"{version('windlass')} ({_commit()}), SQLite {apsw.sqlite_lib_version()} by apsw, "
        f"msgspec {version('msgspec')}",
        "durability": "full (WAL, synchronous=FULL) unless said otherwise; results and attempts kept",
        "PostgreSQL": _postgres(),
        "peers": ", ".join(filter(None, (_peer(peer, program) for peer, program in PEERS.items()))),
        "at": f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, load average before {os.getloadavg()[0]:.2f}",
    }
    return "\n".join(f"- {name}: {value}" for name, value in known.items() if value)


def arguments(description: str) -> argparse.Namespace:
    """`--quick` and `--rounds`, as every script here takes them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rounds: whether it works, not how fast")
    parser.add_argument("--rounds", type=int, default=None, help="default 5, or 1 with --quick")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 5)
    return given


def main(measure: Callable[[int, bool], list[Figure]], description: str) -> None:
    """Run one script on its own."""
    given = arguments(description)
    print(machine() + "\n", flush=True)
    print(table(measure(given.rounds, given.quick)))


def say(*words: object) -> None:
    """Progress, which is no part of the result."""
    print(*words, file=sys.stderr, flush=True)


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _file_system(path: str) -> str:
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        rows = [line.split()[1:3] for line in mounts]
    real = os.path.realpath(path) + "/"
    return max((len(at), kind) for at, kind in rows if real.startswith(at.rstrip("/") + "/"))[1]


def _flush(times: int = 200) -> float:
    """What the disk itself takes for a small durable write, in seconds."""
    path = os.path.join(peers.HOME, "flush")
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    took = []
    for _ in range(times):
        began = time.perf_counter()
        os.pwrite(fd, b"x" * 4096, 0)
        os.fdatasync(fd)
        took.append(time.perf_counter() - began)
    os.close(fd)
    os.unlink(path)
    return statistics.median(took)


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=peers.HERE, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "no commit known"
    return done.stdout.strip()


def _postgres() -> str:
    """The one that peers/servers.sh would start."""
    from windlass.cli.private_postgres import system

    found = system()
    if found is None:
        return ""
    said = subprocess.run([found / "postgres", "-V"], capture_output=True, text=True, check=True).stdout
    return f"{said.split(' ', 2)[-1].strip()}, settings as initdb makes them"


def _peer(peer: str, program: str) -> str:
    if not peers.installed(peer):
        return ""
    return subprocess.run([peers.py(peer), "-c", program], capture_output=True, text=True, check=True).stdout.strip()
