"""`windlass stats`: counts, and how long the oldest has waited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from windlass.cli.common import Place, places
from windlass.core.words import instant, span

if TYPE_CHECKING:
    from windlass.cli.output import Output
    from windlass.ports.store import Stats, WorkerInfo


@click.command()
@click.option("--exact", is_flag=True, help="Count all; otherwise large counts stop at 10,000.")
@places
def stats(place: Place, exact: bool) -> None:
    """Count jobs by state and by queue."""
    with place.app() as app:
        found, workers = app.client.stats(exact=exact), app.client.workers()
    if place.as_json:
        place.document(
            {
                "states": found.states,
                "queues": queues_document(found, workers),
                "workers": len(alive(workers, found.now)),
                "now": instant(found.now),
                "exact": found.exact,
            }
        )
        return
    place.table(("state", "jobs"), [(name, number) for name, number in found.states.items() if number], "no jobs")
    place.say()
    queue_rows(place, found, workers)


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
            "oldest_due": None if each.oldest_due is None else each.oldest_due / 1e6,
            "workers": served.pop(each.queue, 0),
        }
        for each in found.queues
    ]
    empty = {
        "paused": False,
        "queued": 0,
        "waiting": 0,
        "running": 0,
        "blocked": 0,
        "limit": None,
        "oldest_due": None,
    }
    documents += [{"queue": name, **empty, "workers": number} for name, number in served.items()]
    return sorted(documents, key=lambda each: str(each["queue"]))


def queue_rows(out: Output, found: Stats, workers: Sequence[WorkerInfo]) -> None:
    """The same as a table."""
    rows = [
        (
            each["queue"] + (" (paused)" if each["paused"] else ""),
            each["queued"],
            each["waiting"] + each["blocked"],
            each["running"] if each["limit"] is None else f"{each['running']} of {each['limit']}",
            None if each["oldest_due"] is None else span(each["oldest_due"] * 1e6),
            each["workers"],
        )
        for each in queues_document(found, workers)
    ]
    out.table(("queue", "queued", "waiting", "running", "oldest", "workers"), rows, "no queues")
