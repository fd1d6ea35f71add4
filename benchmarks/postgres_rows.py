"""Throughput on PostgreSQL with a million jobs queued, or ten million finished, against that of an empty database."""

from __future__ import annotations

from benchmarks import report, stores
from benchmarks.peers import run as peers
from benchmarks.postgres_server import postgres_server, within
from benchmarks.report import Figure

ROWS = {"backlog": 1_000_000, "history": 10_000_000}
JOBS = 150_000


def measure(rounds: int, quick: bool) -> list[Figure]:
    """Three databases on one server, in turn; what is added to two of them is little beside what is there."""
    rates: dict[str, list[float]] = {kind: [] for kind in ("empty", *ROWS)}
    with postgres_server():
        for kind, rows in ROWS.items():
            report.say(f"making {rows // 10 if quick else rows:,} jobs of {kind}")
            with within(f"bench_{kind}"):
                _make(kind, rows // 10 if quick else rows)
        for number in range(rounds):
            for kind, taken in rates.items():
                with within(f"bench_{kind}"):
                    if kind == "empty":
                        peers.call("windlass", "postgres", "reset")
                    # so many that are enqueued now, or as many of those that wait already
                    peers.call("windlass", "postgres", "many", JOBS)
                    taken.append(stores.rate("postgres", JOBS))
                report.say(f"round {number + 1}: {kind} {taken[-1]:,.0f} jobs/s")
    figures = [Figure("PostgreSQL: no-op jobs, empty database", rates["empty"], "jobs/s", digits=0)]
    for kind, words in (("backlog", "a million queued"), ("history", "ten million finished")):
        ratios = [100 * a / b for a, b in zip(rates[kind], rates["empty"], strict=True)]
        figures.append(Figure(f"PostgreSQL, {words}: of the empty one's throughput", ratios, "%", 90, False, 1))
    return figures


def _make(kind: str, rows: int) -> None:
    peers.call("windlass", "postgres", "reset")
    peers.clear_ticks()
    peers.call("windlass", "postgres", "single", 1)
    if kind == "history":
        worker = peers.Worker("windlass", "postgres")
        try:
            peers.drain(worker, 1, 20)
        finally:
            worker.stop()
    peers.call("windlass", "postgres", "clone", kind, rows, timeout=1_800)


if __name__ == "__main__":
    report.main(measure, __doc__ or "")
