"""`import windlass` over a bare interpreter."""

from __future__ import annotations

from benchmarks import report
from benchmarks.peers import run as peers
from benchmarks.report import Figure


def measure(rounds: int, quick: bool) -> list[Figure]:
    """The median of 15 interpreters that import it, less that of 15 that do not; that often."""
    taken = []
    for number in range(rounds):
        taken.append(peers.w5("windlass", "windlass"))
        report.say(f"round {number + 1}: {taken[-1]['ms']:.1f} ms over {taken[-1]['bare_ms']:.1f} ms")
    return [Figure("import windlass, over bare Python", [each["ms"] for each in taken], "ms", 60, digits=1)]


if __name__ == "__main__":
    report.main(measure, __doc__)
