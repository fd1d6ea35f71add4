"""No-op jobs through two workers, beside Huey on SQLite in the same rounds; bulk enqueue on the way."""

from __future__ import annotations

from benchmarks import report
from benchmarks.peers import run as peers
from benchmarks.report import Figure

RIVALS = {"sqlite": 8.0, "sqlite-nosync": 3.0}
"""Variant of Huey, and how many times its rate Windlass should reach."""


def measure(rounds: int, quick: bool) -> list[Figure]:
    """`rounds` times one run of each, in turn, so that a slow minute of the machine hits all of them."""
    contestants = [("windlass", "sqlite"), *(("huey", each) for each in RIVALS if peers.installed("huey"))]
    taken: dict[tuple[str, str], list[dict[str, float]]] = {each: [] for each in contestants}
    for number in range(rounds):
        for peer, variant in contestants:
            settings = peers.variants(peer)[variant]
            found = peers.w1(peer, variant, settings, 0.25 if quick else 1.0)
            if not found["complete"]:
                raise SystemExit(f"{peer}:{variant}: {found['got']} of {found['n']} jobs ran")
            taken[peer, variant].append(found)
            report.say(f"round {number + 1}: {peer}:{variant} {found['rate']:,.0f} jobs/s")
    of = lambda peer, variant, key: [found[key] for found in taken[peer, variant]]
    figures = [Figure("no-op jobs, two workers", of("windlass", "sqlite", "rate"), "jobs/s", 25_000, False, 0)]
    for peer, variant in contestants[1:]:
        figures.append(Figure(f"{peer}:{variant}, two workers", of(peer, variant, "rate"), "jobs/s", digits=0))
        ratios = [a / b for a, b in zip(of("windlass", "sqlite", "rate"), of(peer, variant, "rate"), strict=True)]
        figures.append(Figure(f"windlass : {peer}:{variant}", ratios, "times", RIVALS[variant], False, 1))
    figures += [
        Figure("bulk enqueue, 1,000 at a time", of("windlass", "sqlite", "enq_bulk"), "jobs/s", 60_000, False, 0),
        Figure("enqueue one by one, one process", of("windlass", "sqlite", "enq_single"), "jobs/s", digits=0),
        Figure("CPU of supervisor and workers", of("windlass", "sqlite", "worker_cpu_us_per_job"), "us/job", digits=1),
    ]
    return figures


if __name__ == "__main__":
    report.main(measure, __doc__)
