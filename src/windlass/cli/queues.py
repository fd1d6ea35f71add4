"""`windlass queues`: what waits in each line, and stopping one."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click

from windlass.cli.common import Place, places
from windlass.cli.exits import USAGE, Refused
from windlass.cli.stats import alive, is_known, queue_rows, queues_document
from windlass.core.duration import micros
from windlass.core.flow import Bounds
from windlass.core.words import count, near, span

if TYPE_CHECKING:
    from windlass import Windlass
    from windlass.ports.store import QueueRules


@click.group()
def queues() -> None:
    """List, pause, resume, limit and bound queues."""


@queues.command("list")
@places
def list_queues(place: Place) -> None:
    """List the queues that hold jobs, have rules (paused, limited, bounded), or are served by a worker."""
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
        _question(place, app, (name,))
    if place.as_json:
        place.document({"queue": name, "limit": rules.limit})
    else:
        place.say(f"queue {name!r} has {'no limit' if rules.limit is None else f'a limit of {rules.limit}'}")


@queues.command()
@click.argument("name", metavar="QUEUE")
@click.argument("none", type=click.Choice(["none"]), required=False)
@click.option("--depth", metavar="N", help="It is full once N due jobs wait in it; none takes that away.")
@click.option("--age", metavar="TIME", help='Or once the first in line has been due this long: "10m"; or none.')
@click.option(
    "--when-full",
    type=click.Choice(["reject", "shed"]),
    help="Then refuse what comes, as at first, or store it as cancelled.",
)
@places
def bound(place: Place, name: str, none: str | None, depth: str | None, age: str | None, when_full: str | None) -> None:
    """Bound how full a queue may get. What is not said stays as it is; none takes all bounds away."""
    if none is not None and (depth, age, when_full) != (None, None, None):
        raise click.UsageError("none takes all bounds away; say it alone")
    if (none, depth, age, when_full) == (None,) * 4:
        raise click.UsageError(f"say --depth or --age, or `{_none(name)}` to take the bounds away")
    with place.app() as app:
        said = Bounds() if none else _changed(name, app.client.rules().get(name), depth, age, when_full)
        past = None if said.age is None else dt.timedelta(microseconds=said.age)
        policy: Any = "shed" if said.shed else "reject"
        bounds = app.client.bound(name, depth=said.depth, age=past, when_full=policy).bounds
        _question(place, app, (name,))
    seconds = None if bounds.age is None else bounds.age / 1e6
    if place.as_json:
        place.document({"queue": name, "depth": bounds.depth, "age": seconds, "when_full": policy})
        return
    said_of = [] if bounds.depth is None else [f"with {count(bounds.depth, 'job')} in line"]
    said_of += [] if bounds.age is None else [f"once the first has waited {span(bounds.age)}"]
    then = "sheds what comes then" if bounds.shed else "rejects what comes then"
    full = f"is full {' or '.join(said_of)}, and {then}" if said_of else "is unbounded"
    place.say(f"queue {name!r} {full}")


def _none(name: str) -> str:
    return f"windlass queues bound {name} none"


def _changed(
    name: str, rules: QueueRules | None, depth: str | None, age: str | None, when_full: str | None
) -> Bounds:
    """The bounds of a queue, with what was said about them instead of what held."""
    old = rules.bounds if rules is not None else Bounds()
    if (depth, age) == (None, None) and (old.depth, old.age) == (None, None):
        raise Refused(f"queue {name!r} has no bound: say --depth or --age with --when-full", USAGE)
    if depth not in (None, "none") and not str(depth).isdecimal():
        raise click.UsageError(f"--depth: {depth!r} must be a whole number from 1, or none")
    try:
        past = None if age in (None, "none") else micros(age, "--age")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if past == 0:
        raise click.UsageError(f"--age: {age!r} is no time at all; none takes that bound away")
    deep = old.depth if depth is None else None if depth == "none" else int(depth[:12])
    late = old.age if age is None else past
    if (deep, late) == (None, None):
        return Bounds()
    return Bounds(deep, late, old.shed if when_full is None else when_full == "shed")


def _say(place: Place, app: Windlass, paused: dict[str, bool], names: tuple[str, ...]) -> None:
    if place.as_json:
        place.document({"queues": {name: {"paused": paused.get(name, False)} for name in names}})
        return
    for name in names:
        place.say(f"queue {name!r} is {'paused' if paused.get(name) else 'open'}")
    _question(place, app, names)


def _question(place: Place, app: Windlass, names: tuple[str, ...]) -> None:
    """What is said of a queue that nobody knows may be meant for another."""
    found = app.client.stats()
    known = {each.queue for each in found.queues if is_known(each)}
    known |= {name for worker in alive(app.client.workers(), found.now) for name in worker.queues}
    for name in names:
        if name not in known:
            place.notice(f"no job waits or runs in queue {name!r}, and no live worker serves it.{near(name, known)}")
