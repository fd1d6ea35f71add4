"""`windlass dead`: the dead letters, to be read, mended and sent again."""

from __future__ import annotations

import sys
import tempfile
from typing import TYPE_CHECKING, Any

import click
import msgspec

from windlass.cli import acts
from windlass.cli.common import Function, Place, filters, is_given, places
from windlass.cli.exits import FAILED, NOT_FOUND, OK, USAGE, Refused
from windlass.cli.show import head, history, page, searched, short
from windlass.core import document
from windlass.core.duration import micros
from windlass.core.errors import InvalidValue
from windlass.core.fingerprint import is_beginning
from windlass.core.job import State
from windlass.core.words import count, instant

if TYPE_CHECKING:
    from windlass import Filter, Windlass
    from windlass.core.job import Job
    from windlass.ports.store import DeadGroup, Selected

IDS_SHOWN = 10
"""Ids of a group that are shown; `dead list --group` has all."""
GROUPS_MOST = 10_000
"""Groups among which one is looked for."""


@click.group()
def dead() -> None:
    """Dead letters: jobs that failed for good. Read, edit, redrive, purge them."""


def grouped(function: Function) -> Function:
    """Give a command --group."""
    told = "Of this group, as `windlass dead groups` names it, or its beginning."
    return click.option("--group", metavar="GROUP", help=told)(function)


@dead.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most this many.")
@places
def groups(place: Place, limit: int) -> None:
    """Count dead letters by their cause: task, class of exception, and place in your code; the most frequent first."""
    with place.app() as app:
        found = app.client.dead_groups(limit=limit)
    if place.as_json:
        place.document({"groups": [_document(each) for each in found]})
        return
    rows = [(each.fingerprint or None, each.count, each.latest.task, *_cause(each), *_seen(each)) for each in found]
    place.table(("group", "jobs", "task", "error", "place", "first died", "last died"), rows, "no dead letters")


@dead.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most this many.")
@click.option("--after", metavar="ID", help="Go on after this job: the `next` of the page before.")
@grouped
@filters
@places
def list_dead(place: Place, chosen: Filter, group: str | None, limit: int, after: str | None) -> None:
    """List dead letters, the newest first."""
    with place.app() as app:
        wanted = _dead(chosen, _whole(app, group))
        page(place, searched(app, wanted, limit, after), "no dead letters")


@dead.command()
@click.argument("id", metavar="ID|GROUP")
@places
def show(place: Place, id: str) -> None:
    """Show a dead letter with its payload and every attempt: worker, times, outcome, error and trace. Of a group, its
    counts, its latest ids, and the letter that died last."""
    with place.app() as app:
        group, ids = _group(app, _whole(app, id) or id) if is_beginning(id) else (None, [])
        job = _letter(app, id) if group is None else group.latest
        attempts = app.client.attempts(job.id)
    letter = {**document.full(job), "attempts": [document.attempt(each) for each in attempts]}
    if place.as_json:
        place.document(letter if group is None else {**_document(group), "ids": ids, "letter": letter})
        return
    if group is not None:
        first, last = _seen(group)
        more = " ..." if group.count > len(ids) else ""
        whole = group.fingerprint
        place.facts([("group", whole), ("jobs", f"{group.count:,}"), ("first died", first), ("last died", last)])
        place.facts([("ids", "\n".join(["", *ids]) + more)])
        place.say()
    place.facts(head(job, attempts))
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
        typed = payload is None
        if payload is None:
            payload = _edited(job.payload)
        elif payload == "-":
            payload = sys.stdin.read()
        if place.target is not None and job.task not in app.tasks:
            raise Refused(f"{place.target} has no task {job.task!r}, so its types cannot be checked", USAGE)
        try:
            changed = app.client.edit(id, arguments(payload, "--payload")).changed
        except InvalidValue as error:
            if not typed:
                raise
            raise Refused(f"{error}; what you wrote is kept in {_kept(id, payload)}", USAGE) from error
        again = app.client.revive(id).changed if changed and redrive else ()
    if place.as_json:
        place.document({"id": id, "edited": bool(changed), "redriven": bool(again)})
    elif not changed:
        place.say(f"job {id} is running; left as it was")
    else:
        place.say(f"job {id} has a new payload" + (" and is queued again" if again else ""))
    return OK if changed and (again or not redrive) else FAILED


@dead.command()
@click.option("--rate", metavar="N/s", callback=lambda _, __, text: _pace(text), help="So many at most: 50/s, 10/m.")
@grouped
@filters
@acts.options
@places
def redrive(place: Place, chosen: Filter, group: str | None, rate: int, **how: Any) -> int:
    """Queue dead letters again, with fresh attempts and all their history.

    With --rate each has a due time of its own, so the rate holds after this command has ended.
    """
    return _act(place, acts.REDRIVE, chosen, group, pace=rate, **how)


@dead.command()
@click.option("--older-than", metavar="AGE", help='What died before that: "30d".')
@click.option("--keep", type=click.IntRange(0), metavar="N", help="All but the N that were enqueued last.")
@grouped
@filters
@acts.options
@click.option("--yes", is_flag=True, help="Do not ask.")
@places
def purge(
    place: Place, chosen: Filter, group: str | None, older_than: str | None, keep: int | None, yes: bool, **how: Any
) -> int:
    """Delete dead letters with all they own.

    --older-than and --keep are bounds: of what the filter finds, whatever is past either of them goes.
    """
    if older_than is None and keep is None:
        return _act(place, acts.PURGE, chosen, group, confirmed=yes, **how)
    if how["ids"]:
        raise click.UsageError("--older-than and --keep choose by themselves; name no ids with them")
    try:
        age = None if older_than is None else micros(older_than, "--older-than")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    group = _named(place, group)
    return _bound(place, _dead(chosen, group), age, keep, dry_run=how["dry_run"], confirmed=yes)


def _act(place: Place, act: acts.Act, chosen: Filter, group: str | None, **how: Any) -> int:
    group = _named(place, group)
    wanted = _dead(chosen, group) if is_given(chosen) or group is not None else None
    return acts.run(place, act, wanted, default=_dead(chosen, group), **how)


def _bound(
    place: Place, wanted: Filter, age: int | None, keep: int | None, *, dry_run: bool, confirmed: bool
) -> int:
    """Delete what is older than `age` microseconds, and all but the newest `keep`."""
    with place.app() as app:
        parts: list[tuple[Filter, str | None]] = []
        if age is not None:
            before = app.client.stats().now - age  # by the store's clock, which wrote when they died
            parts.append((msgspec.structs.replace(wanted, ended_before=before), None))
        if keep is not None and (last := _last_kept(app, wanted, keep)) is not None:
            parts.append((wanted, last or None))
        found = None
        if dry_run or not confirmed:
            found = _delete(app, parts, dry_run=True)
        if not dry_run:
            if not confirmed:
                acts.may_ask(place, acts.PURGE)
                acts.confirm(acts.PURGE, len(found.changed) if found else 0)
            found = _delete(app, parts, dry_run=False)
    assert found is not None
    return acts.report(place, acts.PURGE, found, dry_run=dry_run, named=False)


def _delete(app: Windlass, parts: list[tuple[Filter, str | None]], *, dry_run: bool) -> Selected:
    from windlass.ports.store import Selected

    changed: dict[str, None] = {}
    for wanted, after in parts:
        some = acts.through(app.client.delete, wanted, dry_run=dry_run, after=after)
        changed.update(dict.fromkeys(some.changed))
    return Selected(tuple(changed))


def _last_kept(app: Windlass, wanted: Filter, keep: int) -> str | None:
    """The id of the last letter to keep; empty where none is kept, None where there are not that many."""
    last, left = "", keep
    while left:
        page = app.client.search(wanted, limit=min(left, acts.BATCH), after=last or None)
        left -= len(page.jobs)
        if page.next is None:
            return None
        last = page.next
    return last


def _pace(text: str | None) -> int:
    """Microseconds between two jobs, from a rate; 0 is none."""
    if text is None:
        return 0
    number, _, unit = text.partition("/")
    try:
        rate = float(number)
        pace = {"": 1e6, "s": 1e6, "m": 60e6, "h": 3_600e6}[unit.strip()] / rate
    except (ValueError, KeyError, ZeroDivisionError):
        pace = 0.0
    if not 1 <= pace <= 86_400e6:
        raise click.BadParameter(f"{text!r} is no rate; write 50/s, 10/m or 100/h, at most a million a second")
    return round(pace)


def _named(place: Place, group: str | None) -> str | None:
    if group is None:
        return None
    with place.app() as app:
        return _whole(app, group) or ""


def _whole(app: Windlass, group: str | None) -> str | None:
    """The fingerprint that `group` is, or begins, of those there are; raises Refused for none, and for several."""
    if not group:  # those that died without an error have no fingerprint
        return group
    found = sorted(
        each.fingerprint for each in app.client.dead_groups(limit=GROUPS_MOST) if each.fingerprint.startswith(group)
    )
    if len(found) > 1:
        raise Refused(f"{group!r} begins {count(len(found), 'group')}: {', '.join(found[:3])} ...", NOT_FOUND)
    if not found:
        raise Refused(f"no dead letters are of group {group}", NOT_FOUND)
    return found[0]


def _group(app: Windlass, fingerprint: str) -> tuple[DeadGroup, list[str]]:
    from windlass import Filter

    ids = [job.id for job in app.client.search(_dead(Filter(), fingerprint), limit=IDS_SHOWN).jobs]
    group = next((each for each in app.client.dead_groups(limit=GROUPS_MOST) if each.fingerprint == fingerprint), None)
    if group is None:
        raise Refused(f"no dead letters are of group {fingerprint}", NOT_FOUND)
    return group, ids


def _document(of: DeadGroup) -> document.Document:
    """The dead letters of one cause."""
    return {
        "group": of.fingerprint,
        "count": of.count,
        "task": of.latest.task,
        "error": document.error(of.latest.error),
        "first_died_at": instant(of.first),
        "last_died_at": instant(of.last),
        "latest": of.latest.id,
    }


def _cause(group: DeadGroup) -> tuple[str | None, str | None]:
    error = document.error(group.latest.error)
    return (short(error), error.get("place")) if error is not None else (group.latest.reason, None)


def _seen(group: DeadGroup) -> tuple[str | None, str | None]:
    return instant(group.first), instant(group.last)


def _dead(chosen: Filter, group: str | None = None) -> Filter:
    return msgspec.structs.replace(chosen, states=(State.DEAD,), fingerprint=group)


def _letter(app: Windlass, id: str) -> Job:
    job = app.client.fetch(id)
    if job.state is not State.DEAD:
        raise Refused(f"job {id} is no dead letter, it is {job.state}; see `windlass jobs show {id}`")
    return job


def _kept(id: str, text: str) -> str:
    """Where a text is that cannot be used as it is, to be mended and given again: --payload - < FILE."""
    handle, path = tempfile.mkstemp(prefix=f"windlass-{id}-", suffix=".json")
    with open(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    return path


def _edited(payload: str) -> str:
    if not sys.stdin.isatty():
        raise Refused("say --payload JSON: there is no terminal for an editor", USAGE)
    text = click.edit(msgspec.json.format(payload, indent=2) + "\n", extension=".json")
    if text is None:
        raise Refused("not saved, so nothing was changed")
    return text
