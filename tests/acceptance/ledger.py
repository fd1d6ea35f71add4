"""The ledger: one append-only file per actor, written line by line as things happen, believed by nobody but the checker.

It knows nothing of the store. Instants are CLOCK_MONOTONIC, which every process of a machine shares.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from windlass.core.job import Job


class Line(msgspec.Struct, frozen=True):
    """One thing that an actor did."""

    at: float
    actor: int
    what: str
    job: str
    fence: int = 0
    attempt: int = 0
    note: str = ""


def write(directory: str, what: str, job: str, fence: int = 0, attempt: int = 0, note: str = "") -> None:
    """One line, in one write, to this process's own file: a kill cannot tear it."""
    line = {"at": time.monotonic(), "actor": os.getpid(), "what": what, "job": job, "fence": fence, "attempt": attempt}
    fd = os.open(os.path.join(directory, f"{os.getpid()}.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(fd, (json.dumps(line | {"note": note}) + "\n").encode())
    finally:
        os.close(fd)


def read(directory: Path) -> list[Line]:
    """Every line of every actor, by time."""
    lines: list[Line] = []
    for path in directory.glob("*.jsonl"):
        lines += [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]
    return sorted(lines, key=lambda line: line.at)


def read_path(directory: str) -> list[Line]:
    """As `read`, for a handler that only has the name."""
    return read(Path(directory))


def violations(
    lines: Iterable[Line], jobs: Iterable[Job], acked: Iterable[str], *, exactly_once: bool = False, starts_most: int = 99
) -> list[str]:
    """What the ledger and the store's final state say against the invariants; an empty list is what is hoped for."""
    stored = {job.id: job for job in jobs}
    starts: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    fences: dict[str, list[int]] = defaultdict(list)
    for line in lines:
        starts[line.job] += line.what == "start"
        ends[line.job] += line.what == "end"
        if line.what == "start":
            fences[line.job].append(line.fence)
    found = [f"I1: acked job {job} is not in the store" for job in acked if job not in stored]
    for job in stored.values():
        found += _of_one(job, starts[job.id], ends[job.id], fences[job.id], exactly_once, starts_most)
    return found


def crowds(
    lines: Iterable[Line], limits: dict[str, dict[str, int]], deaths: dict[int, float]
) -> tuple[list[str], dict[str, int]]:
    """Where more jobs ran at once than a limit allows, and how many ever did, by key.

    `limits` holds, by job, how many may run under each of its keys. A run lasts from its start to its end; one that has
    no end lasted until its actor died, at the latest at the instant in `deaths`, or until its job started again.
    """
    lines = sorted(lines, key=lambda line: line.at)
    ends = {(line.job, line.fence): line.at for line in lines if line.what == "end"}
    starts = [line for line in lines if line.what == "start"]
    again: dict[str, float] = {}
    steps: list[tuple[float, int, Line]] = []
    for line in reversed(starts):
        until = min(deaths.get(line.actor, float("inf")), again.get(line.job, float("inf")))
        steps += [(line.at, 1, line), (ends.get((line.job, line.fence), until), -1, line)]
        again[line.job] = line.at
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    found = []
    for at, step, line in sorted(steps, key=lambda each: each[:2]):
        for key, limit in limits.get(line.job, {}).items():
            now[key] += step
            most[key] = max(most[key], now[key])
            if step > 0 and now[key] > limit:
                found.append(f"I9: {now[key]} of {limit} ran under {key!r} at {at:.3f}, the last one job {line.job}")
    return found, dict(most)


def _of_one(job: Job, starts: int, ends: int, fences: list[int], exactly_once: bool, starts_most: int) -> list[Any]:
    found = []
    if not job.state.terminal:
        found.append(f"I2: job {job.id} ({job.task}) is {job.state}, not ended")
    if fences != sorted(set(fences)):
        found.append(f"I4: the fences of job {job.id} do not only grow: {fences}")
    if starts > starts_most:
        found.append(f"I6: job {job.id} ({job.task}) started {starts} times, {starts_most} at most")
    if job.state == "completed" and not ends:
        found.append(f"I2: job {job.id} ({job.task}) is completed, and never ended")
    if exactly_once and (starts, ends) != (1, 1):
        found.append(f"I26: job {job.id} ({job.task}) started {starts} times and ended {ends} times")
    return found
