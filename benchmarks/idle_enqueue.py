"""What one enqueue takes on an idle system, beyond the commit that its durability asks for."""

from __future__ import annotations

import statistics

from benchmarks import report
from benchmarks.peers import run as peers
from benchmarks.report import Figure


def measure(rounds: int, quick: bool) -> list[Figure]:
    """In turn a bare insert of one row and an enqueue, each into a file of its own, while nothing else happens.

    The figure with the goal is of one directly after the other. The other two have a pause between them, in which the
    process works or sleeps: then caches are cold, and the same instructions take several times as long."""
    taken: dict[str, list[tuple[float, float]]] = {"hot": [], "awake": [], "asleep": []}
    for number in range(rounds):
        peers.call("windlass", "sqlite", "reset")
        for between, found in taken.items():
            times = peers.call("windlass", "sqlite", "extra", "idle_enqueue", 50 if quick else 200, between)
            found.append((statistics.median(times["bare"]) * 1e3, statistics.median(times["enqueue"]) * 1e3))
            report.say(f"round {number + 1}: {between}: commit {found[-1][0]:.3f} ms, enqueue {found[-1][1]:.3f} ms")
    beyond = {between: [whole - bare for bare, whole in found] for between, found in taken.items()}
    return [
        Figure("idle: bare commit of one row, p50", [bare for bare, _ in taken["hot"]], "ms", digits=3),
        Figure("idle: enqueue, p50", [whole for _, whole in taken["hot"]], "ms", digits=3),
        Figure("idle: enqueue beyond the commit", beyond["hot"], "ms", 0.2, digits=3),
        Figure("the same after 10 ms of other work", beyond["awake"], "ms", digits=3),
        Figure("the same after 20 ms of sleep", beyond["asleep"], "ms", digits=3),
    ]


if __name__ == "__main__":
    report.main(measure, __doc__)
