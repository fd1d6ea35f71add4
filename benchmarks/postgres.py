"""No-op jobs, bytes of WAL, enqueueing and the way to a start on PostgreSQL, beside five that live on it."""

from __future__ import annotations

from typing import Any

from benchmarks import report
from benchmarks.peers import run as peers
from benchmarks.postgres_server import postgres_server
from benchmarks.report import Figure

OURS = "windlass"
RIVALS = {"pgqueuer": 1.5, "oban": 2.5, "awa": None, "chancy": None, "procrastinate": None}
"""And how many times its rate Windlass should reach."""
V = "postgres"


def measure(rounds: int, quick: bool) -> list[Figure]:
    """`rounds` times one run of each, in turn, so that a slow minute of the machine hits all of them."""
    contestants = [OURS, *(each for each in RIVALS if peers.installed(each))]
    taken: dict[str, list[dict[str, Any]]] = {each: [] for each in contestants}
    with postgres_server():
        for number in range(rounds):
            for peer in contestants:
                settings = peers.variants(peer)[V]
                found = peers.w1(peer, V, settings, 0.25 if quick else 1.0)
                if not found["complete"]:
                    raise SystemExit(f"{peer}: {found['got']} of {found['n']} jobs ran")
                found |= peers.w2(peer, V, settings, 100 if quick else 500)
                taken[peer].append(found)
                report.say(f"round {number + 1}: {peer} {found['rate']:,.0f} jobs/s, {found['after_p50_ms']:.2f} ms")
    return [*_rates(taken), *_bytes(taken), *_enqueue(taken), *_starts(taken)]


def _rates(taken: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    ours = _of(taken, OURS, "rate")
    figures = [Figure("PostgreSQL: no-op jobs, two workers", ours, "jobs/s", 15_000, False, 0)]
    for peer in list(taken)[1:]:
        theirs = _of(taken, peer, "rate")
        figures.append(Figure(f"{peer}, two workers", theirs, "jobs/s", digits=0))
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        figures.append(Figure(f"windlass : {peer}", ratios, "times", RIVALS[peer], False, 1))
    figures.append(Figure("CPU of supervisor and workers", _of(taken, OURS, "worker_cpu_us_per_job"), "us/job", digits=1))
    figures.append(Figure("CPU of the server", _of(taken, OURS, "server_cpu_us_per_job"), "us/job", digits=1))
    return figures


def _bytes(taken: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """Of a job's whole life, also of the peers'."""
    figures = []
    for peer, found in taken.items():
        whole = [each["enq_wal_bytes"] + each["per_job"]["pg_wal_bytes"] for each in found]
        figures.append(Figure(f"{peer}: WAL, enqueue to end", whole, "bytes/job", 1331 if peer == OURS else None, True, 0))
        run = [each["per_job"]["pg_wal_bytes"] for each in found]
        figures.append(Figure(f"{peer}: of it, claim to end", run, "bytes/job", digits=0))
    return figures


def _enqueue(taken: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    fastest = min(report.median(_of(taken, peer, "enq_p50_ms")) for peer in list(taken)[1:]) if len(taken) > 1 else None
    figures = [Figure("windlass: bulk enqueue, 1,000 at a time", _of(taken, OURS, "enq_bulk"), "jobs/s", 50_000, False, 0)]
    for peer in taken:
        goal = fastest if peer == OURS else None
        figures.append(Figure(f"{peer}: one enqueue, p50", _of(taken, peer, "enq_p50_ms"), "ms", goal))
    return figures


def _starts(taken: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """From the answer of the enqueue, which is after the commit, to the handler; 20 ms apart, and nothing else runs."""
    figures = []
    for peer in taken:
        goals = (3, 10) if peer == OURS else (None, None)
        figures.append(Figure(f"{peer}: enqueued to start, p50", _of(taken, peer, "after_p50_ms"), "ms", goals[0]))
        figures.append(Figure(f"{peer}: the same, p99", _of(taken, peer, "after_p99_ms"), "ms", goals[1]))
    return figures


def _of(taken: dict[str, list[dict[str, Any]]], peer: str, key: str) -> list[float]:
    return [float(found[key]) for found in taken[peer]]


if __name__ == "__main__":
    report.main(measure, __doc__ or "")
