"""Idle: jobs 5 s apart. How soon each starts in its worker, and what supervisor and two workers cost meanwhile."""

from __future__ import annotations

import time

from benchmarks import report
from benchmarks.peers import run as peers
from benchmarks.report import Figure

APART = 5.0


def measure(rounds: int, quick: bool) -> list[Figure]:
    """One session; each round is 20 jobs of it. A job notes when it started; another process noted when it called
    enqueue, so the enqueue itself is part of the time."""
    jobs = 4 if quick else 20
    peers.call("windlass", "sqlite", "reset")
    worker = peers.Worker("windlass", "sqlite")
    delays: list[list[float]] = []
    busy: list[float] = []
    memory: list[float] = []
    try:
        time.sleep(5)
        for number in range(rounds):
            peers.clear_ticks()
            cpu, began = worker.cpu(), time.perf_counter()
            peers.call("windlass", "sqlite", "probe", jobs, APART)
            time.sleep(APART)
            busy.append(100 * (worker.cpu() - cpu) / (time.perf_counter() - began))
            memory.append(worker.mem()["pss_mb"])
            delays.append([(start - sent) / 1e6 for sent, start in peers.pairs()])
            report.say(f"round {number + 1}: {sorted(round(x, 2) for x in delays[-1])} ms, {busy[-1]:.2f} % of a core")
    finally:
        worker.stop()
    every = sorted(x for each in delays for x in each)
    if len(every) != rounds * (jobs + 1):
        raise SystemExit(f"{len(every)} of {rounds * (jobs + 1)} jobs ran")
    return [
        Figure("enqueue to start, jobs 5 s apart, p50", [peers.pct(each, 0.5) for each in delays], "ms", 3),
        Figure(f"enqueue to start, p99 of all {len(every)}", [peers.pct(every, 0.99)], "ms", 15),
        Figure("supervisor and two workers: CPU", busy, "% of a core", 1),
        Figure("supervisor and two workers: memory (PSS)", memory, "MB", 75, digits=1),
    ]


if __name__ == "__main__":
    report.main(measure, __doc__)
