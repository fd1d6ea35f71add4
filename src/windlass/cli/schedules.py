"""`windlass schedules`: what ticks, when, and what came of it."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import msgspec

from windlass.cli.common import Place, moment, places
from windlass.cli.enqueue import arguments, header
from windlass.cli.exits import OK, explain, tell
from windlass.cli.show import limits
from windlass.cli.stats import alive
from windlass.core.errors import InvalidSchedule, ScheduleNotFound, WindlassError
from windlass.core.job import PRIORITY
from windlass.core.words import count, instant, span
from windlass.runtime import zones

if TYPE_CHECKING:
    from windlass import Windlass
    from windlass.schedule import ScheduleInfo

Function = Callable[..., Any]
NEVER = ("none", "never")
ZONE = "in the schedule's own zone where it names none"


@click.group()
def schedules() -> None:
    """Schedules: list, add, edit, pause and run them; backfill the past."""


def rules(function: Function) -> Function:
    """Give a command the options that say when a schedule ticks and what its jobs are like, as the argument `rule`."""

    @click.option("--cron", metavar="TEXT", help='Five fields, or six with seconds first: "0 3 * * *".')
    @click.option("--every", metavar="TIME", help='Instead of --cron: "10m", at least 1s.')
    @click.option("--timezone", metavar="NAME", help="In which --cron is read; UTC unless said otherwise.")
    @click.option("--overlap", metavar="HOW", help="skip (the default), queue or cancel-previous.")
    @click.option("--catch-up", metavar="HOW", help="latest (the default), none or all.")
    @click.option("--catch-up-limit", type=int, metavar="N", help="With all: at most this many; 100.")
    @click.option("--jitter", metavar="TIME", help="Each job is due up to this much later.")
    @click.option("--start", metavar="TIME", help=f"No tick before 2026-11-22T10:00; {ZONE}; none takes it away.")
    @click.option("--end", metavar="TIME", help="No tick after it; likewise.")
    @click.option("--queue", metavar="NAME", help="Instead of the task's own.")
    @click.option("--priority", type=int, metavar="0..100", help="Larger first.")
    @click.option("--expires", metavar="TIME", help="A job that has not started by then never will; or none.")
    @click.option("--timeout", metavar="TIME", help="Limit of one attempt; none takes it away.")
    @click.option("--max-attempts", type=int, metavar="N", help="How often a job is tried.")
    @click.option("--tag", "tags", multiple=True, metavar="TAG", help="May be repeated.")
    @click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
    @functools.wraps(function)
    def with_rule(**options: Any) -> Any:
        names = (*_RULE, "tags", "headers")
        rule = {name: value for name in names if (value := options.pop(name)) not in (None, ())}
        for name in ("start", "end", "expires", "timeout"):
            if rule.get(name) in NEVER:
                rule[name] = None
        if "headers" in rule:
            rule["headers"] = dict(header(each) for each in rule["headers"])
        return function(rule=rule, **options)

    return with_rule


NOBODY = "nobody fires schedules: no supervisor is alive"
_RULE = (
    "cron",
    "every",
    "timezone",
    "overlap",
    "catch_up",
    "catch_up_limit",
    "jitter",
    "start",
    "end",
    "queue",
    "priority",
    "expires",
    "timeout",
    "max_attempts",
)


_OPTIONS = {name: "--" + name.replace("_", "-") for name in (*_RULE, "arguments")}


# --- looking ---------------------------------------------------------------------------------------------------------


@schedules.command("list")
@places
def list_schedules(place: Place) -> None:
    """List the schedules, each with its next tick and what came of its last."""
    from windlass.schedule import document

    with place.app() as app:
        found = app.client.schedules.list()
        fired = _is_fired(app)
    if place.as_json:
        place.document({"schedules": [document(info) for info in found]})
        return
    head = ("name", "task", "when", "zone", "state", "next", "last")
    place.table(head, [_row(info) for info in found], "there are no schedules")
    if not fired and any(document(info)["state"] == "open" for info in found):
        place.say(NOBODY)


@schedules.command()
@click.argument("name")
@click.option("--next", "ticks", type=click.IntRange(0, 1_000), default=5, show_default=True, help="Ticks to list.")
@places
def show(place: Place, name: str, ticks: int) -> None:
    """Show everything about a schedule, and its next ticks."""
    with place.app() as app:
        _tell(place, app, app.client.schedules.show(name, ticks), ticks)


@schedules.command("next")
@click.argument("name", required=False)
@click.option("--count", "most", type=click.IntRange(1, 1_000), default=10, show_default=True, help="At most so many.")
@places
def next_ticks(place: Place, name: str | None, most: int) -> None:
    """List the next ticks, of one schedule or of all that are not paused."""
    with place.app() as app:
        client = app.client.schedules
        names = [name] if name else [info.name for info in client.list() if not info.paused]
        found = sorted((tick, each) for each in names for tick in client.show(each, most).next)[:most]
    if place.as_json:
        place.document({"next": [{"at": instant(_micros(tick)), "schedule": each} for tick, each in found]})
        return
    rows = [(instant(_micros(tick)), f"{tick:%a %d %b %H:%M:%S %Z}", each) for tick, each in found]
    place.table(("at", "in its zone", "schedule"), rows, "there is no tick to come")


# --- changing --------------------------------------------------------------------------------------------------------


@schedules.command()
@click.argument("name")
@click.argument("task")
@click.argument("args", default="[]")
@rules
@places
def add(place: Place, name: str, task: str, args: str, rule: dict[str, Any]) -> None:
    """Make a schedule called NAME for TASK. ARGS is JSON: a list of arguments, or an object of named ones.

    With --app the task must be one of the application's, and ARGS fit its types.
    """
    from windlass.core.errors import UnknownTask

    values = arguments(args, "ARGS")
    with place.app(fresh=True) as app:
        if place.target is not None and task not in app.tasks:
            raise UnknownTask(f"{place.target} has no task {task!r}; it has {', '.join(sorted(app.tasks)) or 'none'}")
        _place(rule, rule.get("timezone", "UTC"))
        with _by_option(_OPTIONS):
            info = app.client.schedules.create(name, task, values, **rule)
        place.tell_of_new_store()
        _tell(place, app, info)


@schedules.command()
@click.argument("name")
@click.option("--arguments", "args", metavar="JSON", help="Other arguments: a list, or an object of named ones.")
@rules
@places
def edit(place: Place, name: str, args: str | None, rule: dict[str, Any]) -> None:
    """Change what is given, and nothing else. A schedule of the code stays as edited until the code defines another."""
    if args is None and not rule:
        raise click.UsageError("say what to change")
    values = None if args is None else arguments(args, "--arguments")
    with place.app() as app:
        if {"start", "end"} & rule.keys():
            _place(rule, rule.get("timezone") or _zone(app.client.schedules.show(name, 0)))
        with _by_option(_OPTIONS):
            info = app.client.schedules.edit(name, values, **rule)
        _tell(place, app, info)


@schedules.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@places
def pause(place: Place, names: tuple[str, ...]) -> int:
    """Let these schedules fire nothing until they are resumed."""
    return _each(place, names, "pause")


@schedules.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@places
def resume(place: Place, names: tuple[str, ...]) -> int:
    """Let these schedules fire again, from now on: what was paused is not caught up."""
    return _each(place, names, "resume")


@schedules.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@places
def delete(place: Place, names: tuple[str, ...]) -> int:
    """Remove these schedules; their jobs stay. One that running code defines would come back, and is refused."""
    deleted, problems = [], []
    with place.app() as app:
        for name in dict.fromkeys(names):
            try:
                app.client.schedules.delete(name)
            except (ScheduleNotFound, InvalidSchedule) as error:
                problems.append(error)
            else:
                deleted.append(name)
                place.say(f"schedule {name!r} is deleted")
    if place.as_json and (deleted or not problems):
        place.document({"deleted": deleted})
    return _complain(place, problems)


@schedules.command()
@click.argument("name")
@places
def run(place: Place, name: str) -> None:
    """Enqueue a schedule's job now, beside its ticks; prints the id."""
    with place.app() as app:
        job = app.client.schedules.run(name)
    place.say(job.id)
    if place.as_json:
        place.document({"id": job.id})


@schedules.command()
@click.argument("name")
@click.option("--from", "start", required=True, metavar="TIME", help=f'From this instant, {ZONE}; or "7d" ago.')
@click.option("--to", "end", metavar="TIME", help="Up to, not including, this instant; now unless said otherwise.")
@click.option("--limit", type=int, default=1_000, show_default=True, help="Refuse a range of more ticks.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@places
def backfill(place: Place, name: str, start: str, end: str | None, limit: int, dry_run: bool) -> None:
    """Enqueue a job for each tick of a range of the past, one that runs after the other.

    A tick that has its job already gets no other, so a backfill that was interrupted can simply be repeated.
    """
    with place.app() as app:
        zone = zones.load(_zone(app.client.schedules.show(name, 0)))
        first, last = moment(start, "--from", zone), moment(end or "0s", "--to", zone)
        if first >= last:
            raise click.UsageError(f"--from: {start} does not lie before --to, {end or 'now'}")
        with _by_option({"start": "--from", "end": "--to", "limit": "--limit"}):
            done = app.client.schedules.backfill(name, first, last, dry_run=dry_run, limit=limit)
    if place.as_json:
        ticks = [instant(_micros(tick)) for tick in done.ticks]
        place.document({"ticks": ticks, "enqueued": done.enqueued, "already": done.already, "dry_run": dry_run})
        return
    word = "would be enqueued" if dry_run else "enqueued"
    place.say(f"{count(len(done.ticks), 'tick')}: {count(done.enqueued, 'job')} {word}, {done.already:,} there already")


# --- words -----------------------------------------------------------------------------------------------------------


def _each(place: Place, names: tuple[str, ...], action: str) -> int:
    """Do it to each that is there, whatever becomes of the others, and say both."""
    from windlass.schedule import document

    found: list[ScheduleInfo] = []
    problems: list[WindlassError] = []
    with place.app() as app:
        client = app.client.schedules
        for name in dict.fromkeys(names):
            try:
                found.append(getattr(client, action)(name))
            except ScheduleNotFound as error:
                problems.append(error)
    if place.as_json and (found or not problems):
        place.document({"schedules": [document(info) for info in found]})
    for info in found:
        tick = instant(_micros(info.next[0])) if info.next else "never"
        place.say(f"schedule {info.name!r} is " + ("paused" if info.paused else f"open; its next tick is {tick}"))
    return _complain(place, problems)


def _complain(place: Place, problems: Sequence[WindlassError]) -> int:
    """Say what could not be done, and answer the exit code: that of the first."""
    known = [each for error in problems if (each := explain(error)) is not None]
    if not known:
        return OK
    said = [msgspec.structs.replace(known[0], message="; ".join(each.message for each in known))]
    for each in said if place.as_json else known:
        tell(each, as_json=place.as_json)
    return known[0].code


def _is_fired(app: Windlass) -> bool:
    """Whether somebody is there who fires schedules: every supervisor does, and beats with its workers."""
    return bool(alive(app.client.workers(), app.client.stats().now))


def _zone(info: ScheduleInfo) -> str:
    return info.definition.rule.timezone if info.definition is not None else "UTC"


def _place(rule: dict[str, Any], zone: str) -> None:
    """Make instants of the texts of `start` and `end`."""
    for name in ("start", "end"):
        if rule.get(name) is not None:
            rule[name] = moment(rule[name], f"--{name}", zones.load(zone))


@contextmanager
def _by_option(names: dict[str, str]) -> Iterator[None]:
    """What is wrong is named as it was written."""
    try:
        yield
    except InvalidSchedule as error:
        field, dot, part = error.field.partition(".")
        raise InvalidSchedule(names.get(field, field), f"{part}: {error.problem}" if dot else error.problem) from error


def _tell(place: Place, app: Windlass, info: ScheduleInfo, ticks: int = 1) -> None:
    from windlass.schedule import document

    said = document(info)
    if place.as_json:
        place.document(said)
        return
    span_of = " to ".join(str(said[end] or "...") for end in ("start", "end"))
    place.facts(
        [
            ("name", info.name),
            ("task", said["task"]),
            ("arguments", None if said["arguments"] is None else bytes(said["arguments"]).decode()),
            ("when", _when(info)),
            ("zone", said["timezone"]),
            ("between", span_of if said["start"] or said["end"] else None),
            ("overlap", said["overlap"]),
            ("catch up", said["catch_up"] + (f", {said['catch_up_limit']}" if said["catch_up"] == "all" else "")),
            ("jitter", span(said["jitter"] * 1e6) if said["jitter"] else None),
            ("queue", said["queue"]),
            ("priority", said["priority"] if said["priority"] != PRIORITY else None),
            ("expires", said["expires"] and f"{span(said['expires'] * 1e6)} after it came"),
            ("timeout", said["timeout"] and span(said["timeout"] * 1e6)),
            ("attempts", said["max_attempts"]),
            ("tags", ", ".join(said["tags"]) or None),
            ("headers", ", ".join(f"{name}={value}" for name, value in said["headers"].items()) or None),
            ("limits", limits(said["limits"])),
            ("unique", said["unique"]),
            ("state", said["state"]),
            ("revision", said["revision"]),
            ("origin", said["origin"] + (f", last seen in code {said['seen_at']}" if said["seen_at"] else "")),
            ("last tick", said["last_tick"] and f"{said['last_tick']}, {said['last_outcome']}"),
            ("last job", said["last_job"]),
            ("so far", f"{count(said['fired'], 'job')}, {said['skipped']:,} skipped"),
        ]
    )
    if info.paused:
        place.say(f"\nnothing fires until `windlass schedules resume {info.name}`")
        return
    if ticks:
        place.say()
        rows = [(instant(_micros(tick)), f"{tick:%a %d %b %H:%M:%S %Z}") for tick in info.next]
        place.table(("next", "in its zone"), rows, "there is no tick to come")
    if said["state"] == "open" and not _is_fired(app):
        place.say(NOBODY)


def _row(info: ScheduleInfo) -> tuple[object, ...]:
    from windlass.schedule import document

    said = document(info)
    last = said["last_tick"] and f"{said['last_tick']}, {said['last_outcome']}"
    return (info.name, said["task"], _when(info), said["timezone"], said["state"], said["next_tick"], last)


def _when(info: ScheduleInfo) -> str:
    if info.definition is None:
        return "made by a newer version"
    rule = info.definition.rule
    return rule.cron if rule.cron is not None else f"every {span(rule.every or 0)}"


def _micros(tick: dt.datetime) -> int:
    return round(tick.timestamp() * 1e6)
