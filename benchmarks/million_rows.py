"""Throughput with a million jobs queued, or a million finished, against that of an empty store."""

from __future__ import annotations

from benchmarks import report, stores
from benchmarks.peers import run as peers
from benchmarks.report import Figure


def measure(rounds: int, quick: bool) -> list[Figure]:
    """Empty, backlog, history, in turn; always the same number of jobs is timed."""
    jobs = 40_000 if quick else 150_000
    kinds = ("empty", "backlog", "history")
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    bulk: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        for kind in kinds:
            stores.restore(kind)
            bulk[kind].append(jobs / peers.call("windlass", "sqlite", "many", jobs)["s"])
            rates[kind].append(stores.rate("sqlite", jobs))
            report.say(f"round {number + 1}: {kind} {rates[kind][-1]:,.0f} jobs/s, enqueue {bulk[kind][-1]:,.0f}/s")
    figures = [Figure("no-op jobs, empty store", rates["empty"], "jobs/s", digits=0)]
    for kind, words in (("backlog", "a million queued"), ("history", "a million finished")):
        ratios = [100 * a / b for a, b in zip(rates[kind], rates["empty"], strict=True)]
        figures.append(Figure(f"{words}: of the empty store's throughput", ratios, "%", 90, False, 1))
        ratios = [100 * a / b for a, b in zip(bulk[kind], bulk["empty"], strict=True)]
        figures.append(Figure(f"{words}: of its bulk enqueue", ratios, "%", digits=1))
    return figures


if __name__ == "__main__":
    report.main(measure, __doc__)
