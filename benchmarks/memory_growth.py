"""How much memory supervisor and two workers gain over 100,000 jobs."""

from __future__ import annotations

import time

from benchmarks import report
from benchmarks.peers import run as peers
from benchmarks.report import Figure


def measure(rounds: int, quick: bool) -> list[Figure]:
    """One session; after a warm-up each round is 100,000 jobs, and memory is read when the session is idle again."""
    jobs = 100_000
    peers.call("windlass", "sqlite", "reset")
    peers.clear_ticks()
    worker = peers.Worker("windlass", "sqlite")
    growth: list[float] = []
    try:
        before = _after(worker, jobs // 2, jobs // 2)
        done = jobs // 2
        for number in range(rounds):
            done += jobs
            now = _after(worker, jobs, done)
            growth.append(now - before)
            report.say(f"round {number + 1}: {before:.1f} MB to {now:.1f} MB")
            before = now
    finally:
        worker.stop()
    return [Figure("memory growth over 100,000 jobs (PSS)", growth, "MB", 2)]


def _after(worker: peers.Worker, jobs: int, in_all: int) -> float:
    peers.call("windlass", "sqlite", "many", jobs)
    if not peers.drain(worker, in_all, 60)[2]:
        raise SystemExit("the jobs did not run; see the worker's log")
    time.sleep(2)
    return worker.mem()["pss_mb"]


if __name__ == "__main__":
    report.main(measure, __doc__)
