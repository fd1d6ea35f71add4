"""How long one enqueue takes in a web process while two workers are saturated with no-op jobs."""

from __future__ import annotations

from benchmarks import report, stores
from benchmarks.peers import run as peers
from benchmarks.report import Figure


def measure(rounds: int, quick: bool) -> list[Figure]:
    """Every 20 ms one enqueue in a process of its own; what it enqueues goes to the end of the line."""
    took: list[list[float]] = []
    for number in range(rounds):
        stores.restore("backlog")
        peers.clear_ticks()
        worker = peers.Worker("windlass", "sqlite")
        try:
            peers.drain(worker, stores.ROWS, 60, stop_at=1_000)
            found = peers.call("windlass", "sqlite", "probe", 100 if quick else 500, 0.02)
            ran = peers.nticks()
        finally:
            worker.stop()
        if ran >= stores.ROWS:
            raise SystemExit("the backlog ran out while enqueues were timed: the workers were not saturated")
        took.append([seconds * 1e3 for seconds in found["durs"]])
        report.say(f"round {number + 1}: p50 {peers.pct(took[-1], 0.5):.2f} ms, p99 {peers.pct(took[-1], 0.99):.2f} ms")
    return [
        Figure("enqueue while saturated, p50", [peers.pct(each, 0.5) for each in took], "ms"),
        Figure("enqueue while saturated, p99", [peers.pct(each, 0.99) for each in took], "ms", 50),
        Figure("enqueue while saturated, worst", [max(each) for each in took], "ms"),
    ]


if __name__ == "__main__":
    report.main(measure, __doc__)
