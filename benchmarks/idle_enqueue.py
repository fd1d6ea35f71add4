"""What one enqueue takes on an idle system, beyond the commit that its durability asks for."""

from __future__ import annotations

import os
import statistics
import time

from benchmarks import report
from benchmarks.peers import run as peers
from benchmarks.report import Figure


def measure(rounds: int, quick: bool) -> list[Figure]:
    """Alternately a bare insert of one row and an enqueue, 20 ms apart, each into a file of its own."""
    peers.call("windlass", "sqlite", "reset")
    worker = peers.Worker("windlass", "sqlite")
    bare: list[float] = []
    whole: list[float] = []
    extra: list[float] = []
    try:
        time.sleep(3)
        for number in range(rounds):
            found = peers.call("windlass", "sqlite", "extra", "idle_enqueue", 50 if quick else 200)
            bare.append(statistics.median(found["bare"]) * 1e3)
            whole.append(statistics.median(found["enqueue"]) * 1e3)
            extra.append(whole[-1] - bare[-1])
            report.say(f"round {number + 1}: commit {bare[-1]:.3f} ms, enqueue {whole[-1]:.3f} ms")
    finally:
        worker.stop()
    return [
        Figure("idle: bare commit of one row, p50", bare, "ms", digits=3),
        Figure("idle: enqueue, p50", whole, "ms", digits=3),
        Figure("idle: enqueue beyond the commit", extra, "ms", 0.2, digits=3),
    ]


if __name__ == "__main__":
    report.main(measure, __doc__)
