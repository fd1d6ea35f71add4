"""`windlass bench`: what this machine and its disk make of it."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

import click

from windlass.cli.children import worker
from windlass.cli.common import answers
from windlass.cli.output import Output

if TYPE_CHECKING:
    from windlass import Windlass

SINGLE, TRIPS = 200, 100
BULK = 1_000


@click.command()
@click.option(
    "--jobs", type=click.IntRange(100, 1_000_000), default=20_000, show_default=True, help="No-op jobs to run."
)
@click.option("--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker processes.")
@click.option("--directory", default=None, metavar="DIR", help="On the disk to measure; a temporary one here.")
@answers
def bench(jobs: int, processes: int, directory: str | None, as_json: bool) -> None:
    """Measure enqueue, throughput and latency with a store of its own, in about half a minute.

    A look, not a comparison: `make bench` in the repository has rounds, spreads and peers.
    """
    from windlass import Windlass

    out = Output(as_json=as_json)
    base = os.path.abspath(directory or ".")
    with (
        tempfile.TemporaryDirectory(prefix="windlass-bench-", dir=base) as place,
        Windlass(f"sqlite:///{place}/bench.db") as app,
    ):
        found = _machine(app) | _measure(app, jobs, processes, place, out)
    if as_json:
        out.document(found)
        return
    out.facts([(name.replace("_", " "), value) for name, value in found.items()])


def _machine(app: Windlass) -> dict[str, Any]:
    library = next(each for each in app.opened.diagnose() if each.name == "library")  # type: ignore[attr-defined]
    return {
        "python": platform.python_version(),
        "library": library.value,
        "system": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores",
        "durability": app.settings.durability,
    }


def _measure(app: Windlass, jobs: int, processes: int, directory: str, out: Output) -> dict[str, Any]:
    task = app.named("windlass.cli.bench_tasks.nothing")
    out.say(f"enqueueing {SINGLE} jobs one by one, and {jobs:,} in thousands")
    singles = [_timed(task.enqueue) for _ in range(SINGLE)]
    began = time.perf_counter()
    for start in range(0, jobs, BULK):
        task.enqueue_many([()] * min(BULK, jobs - start))
    bulk = jobs / (time.perf_counter() - began)
    out.say(f"running them with {processes} worker processes")
    with worker(app, "windlass.cli.bench_tasks:app", processes, directory):
        throughput = _drained(app)
        out.say(f"timing {TRIPS} jobs from enqueue to result")
        trips = [_timed(lambda: task.enqueue().result(timeout=30)) for _ in range(TRIPS)]
    return {
        "enqueue_ms": _ms(statistics.median(singles)),
        "enqueue_p99_ms": _ms(_p99(singles)),
        "bulk_enqueue_per_second": round(bulk),
        "jobs_per_second": round(throughput),
        "round_trip_ms": _ms(statistics.median(trips)),
        "round_trip_p99_ms": _ms(_p99(trips)),
    }


def _drained(app: Windlass) -> float:
    """Jobs a second, between two looks: from the first once workers run, to the last."""
    began, start = time.perf_counter(), _left(app)
    while _left(app):
        time.sleep(0.02)
    return start / (time.perf_counter() - began)


def _left(app: Windlass) -> int:
    states = app.client.stats(exact=True).states
    return states["queued"] + states["running"]


def _timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 2)
