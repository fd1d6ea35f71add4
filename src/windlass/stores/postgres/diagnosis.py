"""What can be read off a PostgreSQL store: the server, what "enqueued" survives there, and who stands in its way."""

from __future__ import annotations

import time
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
PINNED_FAR = 1_000_000
"""Transactions by which a slot, or a standby that reads, may be behind; none of the two says since when."""
DEAD_MANY = 500_000
CLOCK_FAR = 2_000_000
"""Microseconds between the server's clock and this machine's, about which somebody should be told."""

_SERVER = """SELECT current_setting('server_version'), current_setting('server_version_num')::int,
    current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes'),
    pg_is_in_recovery(), current_setting('autovacuum'), current_setting('track_counts'),
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"""
_CONNECTIONS = """SELECT
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
    count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"""
_PINNED = """
    SELECT 'session', coalesce(nullif(application_name, '') || ' ', '') || format('(pid %s, user %s)', pid, usename),
           extract(epoch FROM clock_timestamp() - xact_start)::bigint,
           greatest(age(backend_xmin), age(backend_xid))::bigint
    FROM pg_stat_activity
    WHERE coalesce(backend_xmin, backend_xid) IS NOT NULL AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
          AND backend_type = 'client backend'
    UNION ALL
    SELECT 'prepared', format('%s (user %s)', gid, owner), extract(epoch FROM clock_timestamp() - prepared)::bigint,
           age(transaction)::bigint FROM pg_prepared_xacts
    UNION ALL
    SELECT 'slot', slot_name, NULL, age(xmin)::bigint FROM pg_replication_slots WHERE xmin IS NOT NULL
    UNION ALL
    SELECT 'standby', format('%s (pid %s)', coalesce(nullif(application_name, ''), 'a standby'), pid), NULL,
           age(backend_xmin)::bigint
    FROM pg_stat_replication WHERE backend_xmin IS NOT NULL
    ORDER BY 4 DESC"""
_HIDDEN = """SELECT count(*) FROM pg_stat_activity
    WHERE backend_type IS NULL AND datname = current_database()"""
_DEAD = """SELECT relname, n_dead_tup FROM pg_stat_user_tables WHERE schemaname = '{schema}'
    ORDER BY n_dead_tup DESC LIMIT 1"""
_RIGHTS = """SELECT current_user::text, bool_and(has_table_privilege(c.oid, 'SELECT')),
    bool_and(c.relname NOT IN ('jobs', 'ready', 'keys') OR has_table_privilege(c.oid, 'INSERT')),
    bool_and(c.relname = 'schema_version' OR has_table_privilege(c.oid, 'DELETE')),
    bool_and(c.relname !~ '^(ready|waiting|held|jobs|ended)_[0-7]$' OR has_table_privilege(c.oid, 'TRUNCATE'))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = '{schema}' AND c.relkind IN ('r', 'p')"""


def diagnose(opened: OpenedPostgres) -> Iterator[Reading]:
    """Read everything that needs no knowledge of jobs."""
    try:
        server = opened.shell.run(_asking(_SERVER))[0]
        version = opened.shell.run(opened.store.version())
    except StoreError as error:
        yield Reading("readable", False, "bad", str(error))
        return
    yield from _server(*server)
    yield from _connections(*opened.shell.run(_asking(_CONNECTIONS))[0])
    schema = _schema(version, len(migrations_of(opened.schema)))
    yield schema
    yield from _pinned(opened.shell.run(_asking(_PINNED)), opened.shell.run(_asking(_HIDDEN))[0][0])
    if schema.verdict == "ok":
        name = opened.schema.replace("'", "''")
        rights = _rights(*opened.shell.run(_asking(_RIGHTS.format(schema=name)))[0])
        yield rights
        if rights.verdict == "bad":
            return
        yield from _dead(opened.shell.run(_asking(_DEAD.format(schema=name))))
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
    version: str, number: int, fsync: str, commit: str, pages: str, standby: bool, vacuum: str, counts: str, now: int
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
    if vacuum != "on" or counts != "on":
        yield Reading("autovacuum", "off", "bad", "or track_counts is: what is deleted is never cleaned up")
    else:
        yield Reading("autovacuum", "on")
    yield from _clock(now - time.time_ns() // 1_000)


def _clock(ahead: int) -> Iterator[Reading]:
    """The server's counts. Another one here only shows other times, and so does nothing but mislead."""
    if abs(ahead) > CLOCK_FAR:
        words = f"is {span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this machine's"
        yield Reading("clock", f"{ahead / 1e6:+.1f}s", "warning", words)
    else:
        yield Reading("clock", "ok")


def _connections(most: int, used: int) -> Iterator[Reading]:
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


_PINS = {
    "session": "oldest_transaction",
    "prepared": "prepared_transaction",
    "slot": "slot",
    "standby": "standby_reads",
}


def _pinned(rows: Rows, hidden: int) -> Iterator[Reading]:
    """Of each kind the one that holds back most."""
    said = set()
    for kind, what, seconds, transactions in rows:
        late = transactions >= PINNED_FAR if seconds is None else seconds >= PINNED_LONG
        if late and kind not in said:
            said.add(kind)
            open_for = f"is open for {span((seconds or 0) * 1_000_000)}"
            how = f"is {transactions:,} transactions behind" if seconds is None else open_for
            yield Reading(_PINS[kind], what, "warning", f"{how}; deleted rows pile up behind it")
    if hidden:
        yield Reading("sessions_hidden", hidden, "ok", "of others cannot be seen: GRANT pg_read_all_stats to this role")


def _rights(role: str, reads: bool, enqueues: bool, works: bool, empties: bool) -> Reading:
    if not reads:
        return Reading("rights", role, "bad", "may not even read: see `windlass store roles`")
    if works and not empties:
        return Reading("rights", role, "warning", "may work, but not empty the parts of the tables of jobs (TRUNCATE)")
    if works:
        return Reading("rights", role, "ok", "may work, operate and enqueue")
    return Reading("rights", role, "ok", "may enqueue and read" if enqueues else "may read")


def _dead(rows: Rows) -> Iterator[Reading]:
    for table, count in rows:
        if count > DEAD_MANY:
            yield Reading("dead_rows", count, "warning", f"in {table}: vacuum does not keep up, or cannot")
        else:
            yield Reading("dead_rows", count)
