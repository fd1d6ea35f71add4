"""`windlass queues`: what waits in each line, and stopping one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from windlass.cli.common import Place, places
from windlass.cli.stats import queue_rows, queues_document
from windlass.core.words import span

if TYPE_CHECKING:
    from windlass import Windlass


@click.group()
def queues() -> None:
    """List, pause, resume, limit and bound queues."""


@queues.command("list")
@places
def list_queues(place: Place) -> None:
    """List the queues that hold jobs, were ever paused, or are served by a worker."""
    with place.app() as app:
        found, workers = app.client.stats(), app.client.workers()
    if place.as_json:
        place.document({"queues": queues_document(found, workers)})
    else:
        queue_rows(place, found, workers)


@queues.command()
@click.argument("names", nargs=-1, required=True, metavar="QUEUE...")
@places
def pause(place: Place, names: tuple[str, ...]) -> None:
    """Let no worker claim from these queues; what runs goes on."""
    with place.app() as app:
        _say(place, app, app.client.pause(*names), names)


@queues.command()
@click.argument("names", nargs=-1, required=True, metavar="QUEUE...")
@places
def resume(place: Place, names: tuple[str, ...]) -> None:
    """Let workers claim from these queues again."""
    with place.app() as app:
        _say(place, app, app.client.resume(*names), names)


@queues.command()
@click.argument("name", metavar="QUEUE")
@click.argument("most", metavar="N|none")
@places
def limit(place: Place, name: str, most: str) -> None:
    """Let at most N jobs of a queue run at once, over all workers; none lifts the limit."""
    if most != "none" and not (most.isascii() and most.isdigit() and int(most[:12])):
        raise click.UsageError(f"{most!r} must be a whole number from 1, or none")
    with place.app() as app:
        rules = app.client.limit(name, None if most == "none" else int(most))
    if place.as_json:
        place.document({"queue": name, "limit": rules.limit})
    else:
        place.say(f"queue {name!r} has {'no limit' if rules.limit is None else f'a limit of {rules.limit}'}")


@queues.command()
@click.argument("name", metavar="QUEUE")
@click.option("--depth", type=int, metavar="N", help="It is full once N due jobs wait in it.")
@click.option("--age", metavar="TIME", help='It is full once the first in line has been due this long: "10m".')
@click.option(
    "--when-full",
    type=click.Choice(["reject", "shed"]),
    default="reject",
    help="Refuse what comes, or store it as cancelled.",
)
@places
def bound(place: Place, name: str, depth: int | None, age: str | None, when_full: Any) -> None:
    """Bound how full a queue may get; without --depth and --age it is unbounded again."""
    with place.app() as app:
        bounds = app.client.bound(name, depth=depth, age=age, when_full=when_full).bounds
    seconds = None if bounds.age is None else bounds.age / 1e6
    if place.as_json:
        place.document({"queue": name, "depth": bounds.depth, "age": seconds, "when_full": when_full})
        return
    said = [] if bounds.depth is None else [f"with {bounds.depth} jobs in line"]
    said += [] if bounds.age is None else [f"once the first has waited {span(bounds.age)}"]
    then = "sheds what comes then" if bounds.shed else "rejects what comes then"
    place.say(f"queue {name!r} is full {' or '.join(said)}, and {then}" if said else f"queue {name!r} is unbounded")


def _say(place: Place, app: Windlass, paused: dict[str, bool], names: tuple[str, ...]) -> None:
    if place.as_json:
        place.document({"queues": {name: {"paused": paused.get(name, False)} for name in names}})
        return
    known = {each.queue for each in app.client.stats().queues}
    for name in names:
        empty = "" if name in known else " (no job has been seen in it)"
        place.say(f"queue {name!r} is {'paused' if paused.get(name) else 'open'}{empty}")
