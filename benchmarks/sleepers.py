"""1,000 jobs that sleep 0.1 s, on the 100 slots of one worker: ideally one second."""

from __future__ import annotations

from benchmarks import report
from benchmarks.peers import run as peers
from benchmarks.report import Figure


def measure(rounds: int, quick: bool) -> list[Figure]:
    """From the start of the first job to the end of the last."""
    spans: list[float] = []
    for number in range(rounds):
        found = peers.w6("windlass", "sqlite", {})
        if found["ran"] != 1_000:
            raise SystemExit(f"{found['ran']} of 1,000 jobs ran")
        spans.append(found["span_s"])
        report.say(f"round {number + 1}: {spans[-1]:.3f} s")
    return [Figure("1,000 sleeps of 0.1 s on 100 slots", spans, "s", 1.06, digits=3)]


if __name__ == "__main__":
    report.main(measure, __doc__)
