"""`windlass store`: what concerns the store as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from windlass.cli.common import Place, answers, places
from windlass.cli.exits import FAILED, OK
from windlass.core.errors import CapabilityMissing, ConfigError
from windlass.core.words import count

if TYPE_CHECKING:
    from windlass.copier import Report
    from windlass.core.health import Reading
    from windlass.ports.parcel import Arrival
    from windlass.ports.store import Opened

SIZES = {"size", "wal", "disk_free"}
UNITS = ("KiB", "MiB", "GiB", "TiB")


@click.group()
def store() -> None:
    """Migrate, examine, prune and copy the store."""


@store.command()
@click.option("--sql", is_flag=True, help="Print what it would do as SQL, and do nothing (PostgreSQL).")
@places
def migrate(place: Place, sql: bool) -> None:
    """Bring the schema up to date; makes the store where there is none. Any number of processes may try at once."""
    with place.app(fresh=True, private=sql) as app:
        opened = app.engine.bare()
        if sql:
            script = _able(opened, "migration_sql")(opened.shell.run(opened.store.version()))
            _print(place, script)
            return
        version = opened.shell.run(opened.store.migrate(), getattr(opened, "longest_migration", None))
        place.say(f"{opened.url} has schema version {version}")
        if place.as_json:
            place.document({"url": opened.url, "version": version})


@store.command()
@places
def roles(place: Place) -> None:
    """Print the SQL that makes one role each for migrating, working, enqueueing and reading (PostgreSQL)."""
    with place.app(fresh=True, private=True) as app:
        _print(place, _able(app.engine.bare(), "roles_sql")())


def _print(place: Place, script: str) -> None:
    if place.as_json:
        place.document({"sql": script})
    else:
        click.echo(script)


def _able(opened: Opened, what: str) -> Callable[..., str]:
    found: Callable[..., str] | None = getattr(opened, what, None)
    if found is None:
        raise CapabilityMissing(f"sql: {opened.url} has no administrator who would want to read its SQL")
    return found


@store.command()
@places
def doctor(place: Place) -> int:
    """Examine the store: library, durability, disk, integrity, workers, queues. Exits with 1 if it is not healthy."""
    from windlass.doctor import examine

    with place.app(fresh=True, private=True) as app:
        readings = examine(app)
    healthy = all(each.verdict != "bad" for each in readings)
    if place.as_json:
        place.document({"healthy": healthy, "readings": readings})
    else:
        marks = {"ok": "ok", "warning": "WARNING", "bad": "BAD"}
        rows = [(marks[each.verdict], each.name, _found(each)) for each in readings]
        place.table(("", "what", "found"), rows, "nothing could be read")
        place.say("healthy" if healthy else "not healthy")
    return OK if healthy else FAILED


@store.command()
@click.option("--completed", metavar="TIME", help="Keep completed jobs this long after their end; none keeps them.")
@click.option("--cancelled", metavar="TIME", help="The same for cancelled ones.")
@click.option("--expired", metavar="TIME", help="The same for expired ones.")
@click.option("--dead", metavar="TIME", help="The same for dead letters.")
@places
def prune(place: Place, **rules: str | None) -> None:
    """Delete ended jobs, results and idempotency keys that were kept long enough. Supervisors do it by themselves."""
    import msgspec

    with place.app() as app:
        keep = app.settings.prune_rules()
        said = {name: _rule(name, text) for name, text in rules.items() if text is not None}
        keep = msgspec.structs.replace(keep, **said)
        jobs = results = keys = workers = 0
        while True:
            part = app.client.prune(keep)
            jobs, results = jobs + part.jobs, results + part.results
            keys, workers = keys + part.keys, workers + part.workers
            if part.done:
                break
    if place.as_json:
        place.document({"jobs": jobs, "results": results, "keys": keys, "workers": workers})
    place.say(
        f"removed {count(jobs, 'job')}, {count(results, 'result')}, {count(keys, 'idempotency key')}, "
        f"{count(workers, 'forgotten worker')}"
    )


@store.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--dry-run", is_flag=True, help="Count what there is to move, and do nothing.")
@click.option(
    "--batch", type=click.IntRange(1, 5_000), default=200, show_default=True, help="Jobs that are moved at a time."
)
@answers
def copy(source: str, target: str, dry_run: bool, batch: int, as_json: bool) -> int:
    """Move all that one store holds to another, both by URL, while workers and clients of either go on.

    A job runs at FROM or at TO, never at both. What runs is left to end; this command moves it when it is run again,
    and goes on where another was killed. Exits with 0 once FROM is empty and all has arrived, with 1 while something is
    left.
    """
    begin, end = Place(source, None, as_json=as_json), Place(target, None, as_json=as_json)
    with begin.app(what="FROM") as one, end.app(what="TO", fresh=True) as other:
        if dry_run:
            return _count(begin, one.engine.bare())
        return _copy(begin, one.engine.bare(), other.engine.bare(), batch)


def _count(place: Place, source: Opened) -> int:
    from contextlib import suppress

    from windlass.core.errors import SchemaError

    states = source.shell.run(source.store.stats(exact=True)).states
    found = {state: number for state, number in states.items() if number}
    schedules = len(source.shell.run(source.store.schedules()))
    with suppress(SchemaError):  # of an older version, which cannot have set anything aside
        departing = source.shell.run(source.store.standing(None, 0)).departing
        found |= {"set aside": departing} if departing else {}
    if place.as_json:
        place.document({"jobs": found, "schedules": schedules})
    place.table(("state", "jobs"), list(found.items()), "there are no jobs")
    place.say(f"{count(sum(found.values()), 'job')} and {count(schedules, 'schedule')} at {source.url}")
    return OK


def _copy(place: Place, source: Opened, target: Opened, batch: int) -> int:
    import time

    from windlass.copier import Copier

    said = [time.monotonic()]

    def tell(report: Report) -> None:
        if time.monotonic() - said[0] >= 1.0:
            said[0] = time.monotonic()
            place.notice(f"{count(report.moved, 'job')} moved so far")

    report = Copier(source, target, batch, tell).run()
    if place.as_json:
        place.document(_as_document(report))
    else:
        _tell(place, report, source.url, target.url)
    return OK if report.done else FAILED


NUMBERS = ("moved", "schedules", "running", "waiting", "ticking", "done", "verified")


def _as_document(report: Report) -> dict[str, object]:
    tallies = {"departed": report.departed, "arrived": report.arrived}
    sums = {name: {"jobs": tally.jobs, "checksum": f"{tally.checksum:032x}"} for name, tally in tallies.items()}
    counts = {name: getattr(report, name) for name in NUMBERS}
    return counts | sums | {"refused": report.refused}


def _tell(place: Place, report: Report, source: str, target: str) -> None:
    place.say(f"moved {count(report.moved, 'job')} and {count(report.schedules, 'schedule')} to {target}")
    gone, come = report.departed, report.arrived
    if report.verified:
        place.say(f"verified: {count(gone.jobs, 'job')} left and arrived, checksum {gone.checksum:032x}")
    else:
        place.say(f"NOT VERIFIED: {gone.jobs:,} left, checksum {gone.checksum:032x}")
        place.say(f"              {come.jobs:,} arrived, checksum {come.checksum:032x}")
    for each in report.refused:
        place.say(_refused(each))
    if report.running or report.waiting:
        place.say(f"{report.running:,} running and {report.waiting:,} other jobs are left at {source}")
        place.say("run this command again until nothing is left; running jobs leave when they have ended")
    if report.ticking:
        place.say(f"{count(report.ticking, 'schedule')} ticks on at {source} until its jobs have ended")
    if report.done:
        place.say(f"nothing is left at {source}: end its workers, and remove it when you like")


def _refused(each: Arrival) -> str:
    match each.word:
        case "conflict":
            return f"job {each.id} stays: job {each.other} at TO has its key; cancel one of them"
        case "keyless":
            return f"job {each.id}, which has ended, left its idempotency key behind: job {each.other} at TO has it"
        case "unfit":
            return f"job {each.id} stays: it holds what TO cannot store, a NUL or an instant out of all bounds"
        case _:
            return f"schedule {each.id} was at TO and has ticked there: it stays as it is there, and is paused at FROM"


def _rule(name: str, text: str) -> int | None:
    from windlass.core.duration import micros

    if text.lower() == "none":
        return None
    try:
        return micros(text, f"--{name}", most=100 * 366 * 86_400.0)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _found(reading: Reading) -> str:
    value = _size(reading.value) if reading.name in SIZES else str(reading.value)
    return f"{value}: {reading.note}" if reading.note else value


def _size(size: int) -> str:
    if size < 1024:
        return f"{size} bytes"
    power = min((size.bit_length() - 1) // 10, len(UNITS))
    return f"{size / 1024**power:.1f} {UNITS[power - 1]}"
