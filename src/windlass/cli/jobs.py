"""`windlass jobs`: look at jobs, and act on them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click
import msgspec

from windlass.cli import acts
from windlass.cli.common import Place, filters, is_given, places, states
from windlass.cli.show import head, history, page, searched
from windlass.core import document
from windlass.core.words import instant

if TYPE_CHECKING:
    from windlass import Filter
    from windlass.core.job import State

ENDED = ("completed", "dead", "cancelled", "expired")


@click.group()
def jobs() -> None:
    """Look at jobs; retry, cancel, delete them; ask why one does not run."""


@jobs.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most this many.")
@click.option("--after", metavar="ID", help="Go on after this job: the `next` of the page before.")
@states
@filters
@places
def list_jobs(place: Place, states: tuple[State, ...], chosen: Filter, limit: int, after: str | None) -> None:
    """List jobs, the newest first."""
    with place.app() as app:
        wanted = msgspec.structs.replace(chosen, states=states)
        page(place, searched(app, wanted, limit, after), "no such jobs")


@jobs.command()
@click.argument("id")
@places
def show(place: Place, id: str) -> None:
    """Show everything about a job, and every attempt."""
    with place.app() as app:
        job, attempts = app.client.fetch(id), app.client.attempts(id)
    if place.as_json:
        place.document({**document.full(job), "attempts": [document.attempt(each) for each in attempts]})
        return
    place.facts(head(job, attempts))
    history(place, attempts)


@jobs.command()
@click.argument("id")
@places
def why(place: Place, id: str) -> None:
    """Say in one sentence why a job is not running, and with which facts."""
    from windlass.core.why import explain

    with place.app() as app:
        cause = explain(app.client.why(id))
    if place.as_json:
        place.document({"id": id, "cause": cause.code, "sentence": cause.sentence, "facts": cause.facts})
        return
    place.say(cause.sentence)
    place.facts([(f"  {name}", _fact(value)) for name, value in cause.facts.items()])


@jobs.command()
@click.argument("id")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@places
def logs(place: Place, id: str, follow: bool) -> None:
    """Print what a job's handler logged."""
    with place.app() as app:
        job, seen = app.client.fetch(id), 0
        while True:
            lines = app.client.logs(id, seen)
            seen += len(lines)
            for line in lines:
                if place.as_json:
                    place.document(document.line(line))  # one document per line: a log has no end to wait for
                else:
                    place.say(" ".join([str(instant(line.at)), f"{line.level:7}", line.message]))
            if not follow or job.state in ENDED:
                break
            time.sleep(0.2)
            job = app.client.fetch(id)  # first the state, then the lines: none that came before the end is missed
    if not seen:
        place.say("nothing was logged")


@jobs.command()
@states
@filters
@acts.options
@places
def retry(place: Place, states: tuple[State, ...], chosen: Filter, **how: Any) -> int:
    """Queue jobs again: ended ones with fresh attempts, waiting ones at once."""
    return _act(place, acts.RETRY, states, chosen, **how)


@jobs.command()
@states
@filters
@acts.options
@click.option("--children", is_flag=True, help="And all that these jobs have enqueued or will, down the family.")
@places
def cancel(place: Place, states: tuple[State, ...], chosen: Filter, children: bool, **how: Any) -> int:
    """Cancel jobs: waiting ones at once; running ones are told, and reported as asked."""
    return _act(place, acts.CANCEL, states, chosen, children=children, **how)


@jobs.command()
@states
@filters
@acts.options
@click.option("--yes", is_flag=True, help="Do not ask.")
@places
def delete(place: Place, states: tuple[State, ...], chosen: Filter, yes: bool, **how: Any) -> int:
    """Delete jobs that are not running, with their history, logs, results and idempotency keys."""
    return _act(place, acts.DELETE, states, chosen, confirmed=yes, **how)


def _act(place: Place, act: acts.Act, states: tuple[State, ...], chosen: Filter, **how: Any) -> int:
    wanted = msgspec.structs.replace(chosen, states=states) if is_given(chosen, states) else None
    return acts.run(place, act, wanted, **how)


def _fact(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
