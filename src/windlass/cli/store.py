"""`windlass store`: what concerns the store as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from windlass.cli.common import Place, places
from windlass.cli.exits import FAILED, OK
from windlass.core.errors import CapabilityMissing, ConfigError
from windlass.core.words import count

if TYPE_CHECKING:
    from windlass.core.health import Reading
    from windlass.ports.store import Opened

SIZES = {"size", "wal", "disk_free"}
UNITS = ("KiB", "MiB", "GiB", "TiB")


@click.group()
def store() -> None:
    """Migrate, examine and prune the store."""


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
        version = opened.shell.run(opened.store.migrate())
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
