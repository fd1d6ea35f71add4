"""`windlass dead`: the dead letters, to be read, mended and sent again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from windlass.cli import acts
from windlass.cli.common import Place, filters, is_given, places
from windlass.cli.exits import FAILED, OK, USAGE, Refused
from windlass.cli.show import head, history, page
from windlass.core import document
from windlass.core.job import State

if TYPE_CHECKING:
    from windlass import Filter, Windlass
    from windlass.core.job import Job


@click.group()
def dead() -> None:
    """Dead letters: jobs that failed for good. Read, edit, redrive, purge them."""


@dead.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most this many.")
@click.option("--after", metavar="ID", help="Go on after this job: the `next` of the page before.")
@filters
@places
def list_dead(place: Place, chosen: Filter, limit: int, after: str | None) -> None:
    """List dead letters, the newest first."""
    with place.app() as app:
        page(place, app.client.search(_dead(chosen), limit=limit, after=after), "no dead letters")


@dead.command()
@click.argument("id")
@places
def show(place: Place, id: str) -> None:
    """Show a dead letter with its payload and every attempt: worker, times, outcome, error and trace."""
    with place.app() as app:
        job, attempts = _letter(app, id), app.client.attempts(id)
    if place.as_json:
        place.document({**document.full(job), "attempts": [document.attempt(each) for each in attempts]})
        return
    place.facts(head(job))
    history(place, attempts)


@dead.command()
@click.argument("id")
@click.option("--payload", metavar="JSON", help="The new arguments; - reads standard input; without it, $EDITOR.")
@click.option("--redrive", is_flag=True, help="Queue it again afterwards.")
@places
def edit(place: Place, id: str, payload: str | None, redrive: bool) -> int:
    """Give a dead letter other arguments: a JSON list of them, an object of named ones, or [list, object].

    With --app they are checked against the task's types.
    """
    from windlass.cli.enqueue import arguments

    with place.app() as app:
        job = _letter(app, id)
        if payload is None:
            payload = _edited(job.payload)
        elif payload == "-":
            payload = sys.stdin.read()
        if place.target is not None and job.task not in app.tasks:
            raise Refused(f"{place.target} has no task {job.task!r}, so its types cannot be checked", USAGE)
        changed = app.client.edit(id, arguments(payload, "--payload")).changed
        again = app.client.revive(id).changed if changed and redrive else ()
    if place.as_json:
        place.document({"id": id, "edited": bool(changed), "redriven": bool(again)})
    elif not changed:
        place.say(f"job {id} is running; left as it was")
    else:
        place.say(f"job {id} has a new payload" + (" and is queued again" if again else ""))
    return OK if changed and (again or not redrive) else FAILED


@dead.command()
@filters
@acts.options
@places
def redrive(place: Place, chosen: Filter, **how: Any) -> int:
    """Queue dead letters again, with fresh attempts and all their history."""
    return _act(place, acts.REDRIVE, chosen, **how)


@dead.command()
@filters
@acts.options
@click.option("--yes", is_flag=True, help="Do not ask.")
@places
def purge(place: Place, chosen: Filter, yes: bool, **how: Any) -> int:
    """Delete dead letters with all they own."""
    return _act(place, acts.PURGE, chosen, confirmed=yes, **how)


def _act(place: Place, act: acts.Act, chosen: Filter, **how: Any) -> int:
    wanted = _dead(chosen) if is_given(chosen) else None
    return acts.run(place, act, wanted, default=_dead(chosen), **how)


def _dead(chosen: Filter) -> Filter:
    return msgspec.structs.replace(chosen, states=(State.DEAD,))


def _letter(app: Windlass, id: str) -> Job:
    job = app.client.fetch(id)
    if job.state is not State.DEAD:
        raise Refused(f"job {id} is no dead letter, it is {job.state}; see `windlass jobs show {id}`")
    return job


def _edited(payload: str) -> str:
    if not sys.stdin.isatty():
        raise Refused("say --payload JSON: there is no terminal for an editor", USAGE)
    text = click.edit(msgspec.json.format(payload, indent=2) + "\n", extension=".json")
    if text is None:
        raise Refused("not saved, so nothing was changed")
    return text
