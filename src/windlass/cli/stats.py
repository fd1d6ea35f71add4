"""`windlass stats`: counts, how long the oldest has waited, and how the tasks fare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from windlass.cli.common import Place, places
from windlass.core import document
from windlass.core.words import count, instant, span

if TYPE_CHECKING:
    from windlass.cli.output import Output
    from windlass.core.flow import Bounds
    from windlass.core.latency import Spread, TaskLatency
    from windlass.ports.store import QueueStats, Stats, WorkerInfo


@click.command()
@click.option("--exact", is_flag=True, help="Count all; otherwise large counts stop at 10,000.")
@click.option(
    "--sample", type=click.IntRange(0, 1_000_000), default=10_000, show_default=True, metavar="N",
    help="Tell how tasks fare from so many ended jobs, those enqueued last.",
)
@places
def stats(place: Place, exact: bool, sample: int) -> None:
    """Count jobs by state and by queue; of each task the share that died, how long its jobs took from enqueue to end,
    and how long they waited once due."""
    with place.app() as app:
        found, workers = app.client.stats(exact=exact), app.client.workers()
        tasks = app.client.latencies(sample=sample) if sample else []
    if place.as_json:
        place.document(
            {
                "states": found.states,
                "queues": queues_document(found, workers),
                "workers": len(alive(workers, found.now)),
                "tasks": [document.latency(each) for each in tasks],
                "sample": sample,
                "now": instant(found.now),
                "exact": found.exact,
            }
        )
        return
    place.table(("state", "jobs"), [(name, number) for name, number in found.states.items() if number], "no jobs")
    place.say()
    queue_rows(place, found, workers)
    if tasks:
        place.say()
        task_rows(place, tasks)
        looked = sum(each.jobs for each in tasks)
        place.say(f"of the {count(looked, 'ended job')} enqueued last" if looked == sample else "of all ended jobs")


def task_rows(out: Output, tasks: Sequence[TaskLatency]) -> None:
    """How tasks fare, as a table."""
    rows = [
        (each.task, each.completed, each.dead, f"{each.dead_ratio:.1%}", *_spans(each.total), *_spans(each.waiting))
        for each in tasks
    ]
    spans = ("p50", "p95", "p99", "waits p50", "p95", "p99")
    out.table(("task", "completed", "dead", "ratio", *spans), rows, "no job has ended")


def _spans(spread: Spread | None) -> tuple[str | None, ...]:
    return (None,) * 3 if spread is None else tuple(span(each) for each in (spread.p50, spread.p95, spread.p99))


def alive(workers: Sequence[WorkerInfo], now: int) -> list[WorkerInfo]:
    """Those whose lease holds."""
    return [each for each in workers if not each.taken and each.lease_until >= now]


def queues_document(found: Stats, workers: Sequence[WorkerInfo]) -> list[dict[str, Any]]:
    """The queues that hold jobs, were paused, or are served; with how many workers serve them."""
    served: dict[str, int] = {}
    for worker in alive(workers, found.now):
        for name in worker.queues:
            if worker.state != "quarantine":
                served[name] = served.get(name, 0) + 1
    documents = [
        {
            "queue": each.queue,
            "paused": each.paused,
            "queued": each.queued,
            "waiting": each.waiting,
            "running": each.running,
            "blocked": each.blocked,
            "limit": each.limit,
            "bounds": bounds_document(each.bounds),
            "oldest_due": None if each.oldest_due is None else each.oldest_due / 1e6,
            "workers": served.pop(each.queue, 0),
        }
        for each in found.queues
        if each.queue in served or is_known(each) or is_ruled(each)
    ]
    empty = {
        "paused": False,
        "queued": 0,
        "waiting": 0,
        "running": 0,
        "blocked": 0,
        "limit": None,
        "bounds": None,
        "oldest_due": None,
    }
    documents += [{"queue": name, **empty, "workers": number} for name, number in served.items()]
    return sorted(documents, key=lambda each: str(each["queue"]))


def is_known(queue: QueueStats) -> bool:
    """Whether there is a job in it that has not ended."""
    return bool(queue.queued or queue.waiting or queue.running or queue.blocked)


def is_ruled(queue: QueueStats) -> bool:
    """Whether an operator has said something about it that holds."""
    return queue.paused or queue.limit is not None or bounds_document(queue.bounds) is not None


def bounds_document(bounds: Bounds) -> dict[str, Any] | None:
    """How full a queue may get; None where it has no bound."""
    if bounds.depth is None and bounds.age is None:
        return None
    age = None if bounds.age is None else bounds.age / 1e6
    return {"depth": bounds.depth, "age": age, "when_full": "shed" if bounds.shed else "reject"}


def _bounds(said: dict[str, Any] | None) -> str | None:
    if said is None:
        return None
    parts = [] if said["depth"] is None else [count(said["depth"], "job")]
    parts += [] if said["age"] is None else [span(said["age"] * 1e6)]
    return f"{' or '.join(parts)}, then {said['when_full']}s"


def queue_rows(out: Output, found: Stats, workers: Sequence[WorkerInfo]) -> None:
    """The same as a table."""
    documents = queues_document(found, workers)
    bounded = any(each["bounds"] for each in documents)
    rows = [
        (
            each["queue"] + (" (paused)" if each["paused"] else ""),
            each["queued"],
            each["waiting"] + each["blocked"],
            each["running"] if each["limit"] is None else f"{each['running']} of {each['limit']}",
            None if each["oldest_due"] is None else span(each["oldest_due"] * 1e6),
            each["workers"],
            *((_bounds(each["bounds"]),) if bounded else ()),
        )
        for each in documents
    ]
    head = ("queue", "queued", "waiting", "running", "oldest", "workers", *(("full at",) if bounded else ()))
    out.table(head, rows, "no queues")
