"""`windlass workers`: who is there to do the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from windlass.cli.common import Place, places
from windlass.core.words import instant, span

if TYPE_CHECKING:
    from windlass.ports.store import WorkerInfo


@click.command()
@places
def workers(place: Place) -> None:
    """List the workers that beat, and those that fell silent and were not taken over yet."""
    with place.app() as app:
        found, now = app.client.workers(), app.client.stats().now
    if place.as_json:
        place.document({"workers": [_document(each, now) for each in found], "now": instant(now)})
        return
    rows = [
        (
            each.id,
            each.state if each.lease_until >= now else f"silent for {span(now - each.lease_until)}",
            f"{each.busy}/{each.slots}",
            each.host,
            str(each.pid),
            span(now - each.started_at),
            ",".join(each.queues),
        )
        for each in found
    ]
    place.table(("worker", "state", "busy", "host", "pid", "up", "queues"), rows, "no workers are alive")


def _document(worker: WorkerInfo, now: int) -> dict[str, Any]:
    return {
        "id": worker.id,
        "supervisor": worker.supervisor,
        "host": worker.host,
        "pid": worker.pid,
        "state": worker.state,
        "alive": worker.lease_until >= now and not worker.taken,
        "slots": worker.slots,
        "busy": worker.busy,
        "queues": list(worker.queues),
        "tasks": list(worker.tasks),
        "started_at": instant(worker.started_at),
        "beat_at": instant(worker.beat_at),
        "lease_until": instant(worker.lease_until),
    }
