"""What can be read off a PostgreSQL store: the server, what "enqueued" survives there, and who stands in its way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from windlass.core.errors import StoreError
from windlass.core.health import Reading
from windlass.core.words import span
from windlass.ports.plan import NOW, Plan, Rows, Statement, Steps
from windlass.stores.postgres.shell import RAW
from windlass.stores.postgres.statements import migrations_of
from windlass.stores.postgres.store import OLDEST_SERVER

if TYPE_CHECKING:
    from windlass.stores.postgres import OpenedPostgres

PINNED_LONG = 600
"""Seconds after which an open transaction is in the way: nothing that was deleted since can be cleaned up."""
DEAD_MANY = 500_000

_SERVER = """SELECT current_setting('server_version'), current_setting('server_version_num')::int,
    current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'),
    current_setting('max_connections')::int, (SELECT count(*) FROM pg_stat_activity), pg_is_in_recovery()"""
_PINNED = """SELECT pid, coalesce(application_name, ''), extract(epoch FROM clock_timestamp() - xact_start)::bigint
    FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
    ORDER BY xact_start LIMIT 1"""
_DEAD = """SELECT relname, n_dead_tup FROM pg_stat_user_tables WHERE schemaname = '{schema}'
    AND relname IN ('ready', 'waiting', 'held', 'blocked') ORDER BY n_dead_tup DESC LIMIT 1"""


def diagnose(opened: OpenedPostgres) -> Iterator[Reading]:
    """Read everything that needs no knowledge of jobs."""
    try:
        server = opened.shell.run(_asking(_SERVER))[0]
        version = opened.shell.run(opened.store.version())
    except StoreError as error:
        yield Reading("readable", False, "bad", str(error))
        return
    yield from _server(*server)
    schema = _schema(version, len(migrations_of(opened.schema)))
    yield schema
    yield from _pinned(opened.shell.run(_asking(_PINNED)))
    if schema.verdict == "ok":
        yield from _dead(opened.shell.run(_asking(_DEAD.format(schema=opened.schema.replace("'", "''")))))
        for name, holder, until, now in opened.shell.run(_leads()):
            left = span(until - now)
            yield Reading("lead", name, "warning", f"is held by {holder}, of which no worker lives; free in {left}")


def _asking(sql: str) -> Plan[Rows]:
    def steps() -> Steps[Rows]:
        return (yield Statement(RAW, (sql,)))

    return Plan(steps, "diagnose", write=False)


def _leads() -> Plan[Rows]:
    def steps() -> Steps[Rows]:
        now = (yield NOW)[0][0]
        return (yield Statement("leads_of_nobody", (now,)))

    return Plan(steps, "leads", write=False)


def _server(
    version: str, number: int, fsync: str, commit: str, pages: str, most: int, used: int, standby: bool
) -> Iterator[Reading]:
    if number < OLDEST_SERVER:
        yield Reading("server", f"PostgreSQL {version}", "bad", "is too old: 15 or later is needed")
    else:
        yield Reading("server", f"PostgreSQL {version}")
    if standby:
        yield Reading("standby", True, "bad", "only reads; name the primary")
    if fsync != "on" or pages != "on":
        yield Reading("durability", "fsync or full_page_writes is off", "bad", "a crash may damage the database")
    elif commit in ("off", "local"):
        words = "a crash of the server may take the last commits" if commit == "off" else "standbys are not waited for"
        yield Reading("durability", f"synchronous_commit {commit}", "warning", words)
    else:
        yield Reading("durability", f"synchronous_commit {commit}", "ok", "what is enqueued survives a loss of power")
    if used > most * 0.8:
        yield Reading("connections", used, "warning", f"of {most}: soon there will be none left")
    else:
        yield Reading("connections", used, "ok", f"of {most}")


def _schema(version: int, ours: int) -> Reading:
    if version == ours:
        return Reading("schema", version)
    if version > ours:
        return Reading("schema", version, "bad", f"is newer than this Windlass, which knows {ours}: upgrade Windlass")
    what = "there is none yet" if version == 0 else f"this Windlass wants {ours}"
    return Reading("schema", version, "bad", f"{what}: run `windlass store migrate`")


def _pinned(rows: Rows) -> Iterator[Reading]:
    for pid, name, seconds in rows:
        if seconds >= PINNED_LONG:
            what = f"{name} (pid {pid})" if name else f"pid {pid}"
            since = span(seconds * 1_000_000)
            yield Reading("oldest_transaction", what, "warning", f"is open for {since}; deleted rows pile up behind it")


def _dead(rows: Rows) -> Iterator[Reading]:
    for table, count in rows:
        if count > DEAD_MANY:
            yield Reading("dead_rows", count, "warning", f"in {table}: vacuum does not keep up, or cannot")
        else:
            yield Reading("dead_rows", count)
