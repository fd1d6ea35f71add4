"""What can be read off a PostgreSQL store: the server, what "enqueued" survives there, and who stands in its way."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from windlass.core.errors import SchemaError, StoreError
from windlass.core.health import Reading
from windlass.core.words import span
from windlass.ports.plan import NOW, Plan, Rows, Statement, Steps
from windlass.stores.postgres.rights import MAY, TO, Rights, asking, listed
from windlass.stores.postgres.scripts import made
from windlass.stores.postgres.shell import RAW
from windlass.stores.postgres.statements import load_scripts, migrations_of, quoted
from windlass.stores.postgres.store import OLDEST_SERVER

if TYPE_CHECKING:
    from windlass.stores.postgres import OpenedPostgres

PINNED_LONG = 600
"""Seconds after which an open transaction is in the way: nothing that was deleted since can be cleaned up."""
PINNED_FAR = 1_000_000
"""Transactions by which a slot, or a standby that reads, may be behind; none of the two says since when."""
DEAD_MANY = 500_000
DEADLINE = 5_000
"""Milliseconds: a statement_timeout below ends what Windlass has patience for."""
CHECKPOINTS_FEW = 10
"""Asked for by people and tools, and no sign of a log that is too small."""
BUSY_SECONDS, BUSY_JOBS = 10, 10_000
NAPTIME = 10
"""Seconds, for a store that is as busy as that."""
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
_SETTINGS = """SELECT (SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout'),
    (SELECT setting::bigint FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'),
    current_setting('max_wal_size'), {requested}, {timed} FROM {checkpoints}"""
_CHECKPOINTS = {"requested": "checkpoints_req", "timed": "checkpoints_timed", "checkpoints": "pg_stat_bgwriter"}
_CHECKPOINTS_17 = {"requested": "num_requested", "timed": "num_timed", "checkpoints": "pg_stat_checkpointer"}
_ROLE_TIMEOUTS = """SELECT DISTINCT ON (r.rolname) r.rolname::text, split_part(c, '=', 2)
    FROM pg_roles r JOIN pg_db_role_setting s ON s.setrole IN (r.oid, 0)
    JOIN pg_database d ON d.datname = current_database() AND s.setdatabase IN (d.oid, 0),
    unnest(s.setconfig) c
    WHERE r.rolcanlogin AND NOT r.rolsuper AND c LIKE 'statement_timeout=%'
        AND has_table_privilege(r.oid, (SELECT oid FROM pg_class WHERE relname = 'jobs'
                                        AND relnamespace = '{schema}'::regnamespace), 'INSERT')
    ORDER BY r.rolname, s.setrole = 0, s.setdatabase = 0"""
_BUSY = """SELECT count(*) FROM (SELECT 1 FROM {schema}.jobs WHERE id > '{since}' LIMIT {many}) recent"""


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
    if opened.deaf:
        yield Reading("listen", "is not named", "warning", DEAF)
    schema = _schema(version, len(migrations_of(opened.schema)))
    if schema.verdict == "ok" and (problem := _misfit(opened)):
        schema = Reading("schema", version, "bad", problem)
    yield schema
    yield from _settings(opened, server[1], in_use=schema.verdict == "ok")
    yield from _pinned(opened.shell.run(_asking(_PINNED)), opened.shell.run(_asking(_HIDDEN))[0][0])
    if schema.verdict == "ok":
        name = opened.schema.replace("'", "''")
        rights = _rights(opened.shell.run(asking(opened.schema)))
        yield rights
        if rights.verdict == "bad":
            return
        yield from _naptime(opened)
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
        off = "off" if vacuum != "on" else "track_counts is off"
        yield Reading("autovacuum", off, "bad", "what is deleted is never cleaned up")
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


DEAF = "no supervisor can listen through pooler=transaction, so each looks once a second: add listen=URL to the URL"
MISFIT = (
    "counts as this version, but is not what it makes ({}): a development version made it, or somebody changed it; "
    "make it anew, or copy what is in it by the Windlass that made it"
)


def _misfit(opened: OpenedPostgres) -> str:
    """Whether every statement of ours fits the schema: the server reads each, and runs none. Empty: all do."""
    try:
        opened.shell.run(_asking(_reading_all(opened.schema)))
        name = opened.schema.replace("'", "''")
        there = {row[0] for row in opened.shell.run(_asking(_FUNCTIONS.format(schema=name)))}
    except SchemaError as error:
        return MISFIT.format(str(error).rpartition("): ")[2])
    missing = [each for each in made().functions if each not in there]
    return MISFIT.format(f"function {missing[0]} does not exist") if missing else ""


_FUNCTIONS = """SELECT p.proname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = '{schema}'"""


def _reading_all(schema: str) -> str:
    """In one go: a server far away would take its time over each."""
    texts = [part.sql.decode() for script in load_scripts(schema).values() for part in script.parts]
    verbs = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
    literals = ", ".join("'" + text.replace("'", "''") + "'" for text in texts if _bare(text).startswith(verbs))
    return f"""DO $windlass_reads$
        DECLARE each text;
        BEGIN
            FOREACH each IN ARRAY ARRAY[{literals}] LOOP
                EXECUTE 'PREPARE windlass_reads AS ' || each;
                EXECUTE 'DEALLOCATE windlass_reads';
            END LOOP;
        END
        $windlass_reads$"""


def _bare(text: str) -> str:
    """A statement without the comments before it."""
    lines = text.split("\n")
    while lines and lines[0].lstrip().startswith("--"):
        lines.pop(0)
    return "\n".join(lines).lstrip()


FORGOTTEN = "a transaction that somebody forgets stays open: 10min for the roles of people and reports"


def _settings(opened: OpenedPostgres, number: int, *, in_use: bool) -> Iterator[Reading]:
    """Those that are as they should be for most; only what is not is worth a line."""
    asked = _SETTINGS.format(**_CHECKPOINTS_17 if number >= 170_000 else _CHECKPOINTS)
    limit, idle, wal, requested, timed = opened.shell.run(_asking(asked))[0]
    if 0 < limit <= DEADLINE:
        yield _too_short(f"{limit}ms", "this login")
    if not idle:
        yield Reading("idle_in_transaction_session_timeout", "none", "ok", FORGOTTEN)
    if requested > max(timed, CHECKPOINTS_FEW):
        words = f"{requested:,} of {requested + timed:,} checkpoints came as the log was full: make it larger"
        yield Reading("max_wal_size", wal, "warning", words)
    if not in_use:
        return
    for role, text in opened.shell.run(_asking(_ROLE_TIMEOUTS.format(schema=quoted(opened.schema).replace("'", "''")))):
        if 0 < milliseconds(text) <= DEADLINE:
            yield _too_short(text, role)


def _too_short(limit: str, whose: str) -> Reading:
    words = f"of {whose}: ends statements that may take longer, as those of ctx.transaction(); 0, or more than 5s"
    return Reading("statement_timeout", limit, "warning", words)


def milliseconds(text: str) -> float:
    """A span as settings of PostgreSQL spell it: 1500, 5s, 1min."""
    found = re.fullmatch(r"\s*([\d.]+)\s*(\w*)\s*", text)
    units = {"us": 0.001, "": 1, "ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
    return float(found[1]) * units.get(found[2], 1) if found else 0.0


def _naptime(opened: OpenedPostgres) -> Iterator[Reading]:
    asked = "SELECT setting::bigint FROM pg_settings WHERE name = 'autovacuum_naptime'"
    seconds = opened.shell.run(_asking(asked))[0][0]
    if seconds > NAPTIME and _is_busy(opened):
        yield Reading("autovacuum_naptime", f"{seconds}s", "warning", "10s for more than a thousand jobs a second")


def _is_busy(opened: OpenedPostgres) -> bool:
    """Whether more than a thousand jobs a second came of late, by the time in their ids."""
    now = opened.shell.run(Plan(_now, "now", write=False))
    since = f"{now // 1_000 - BUSY_SECONDS * 1_000:012x}"
    asked = _BUSY.format(schema=quoted(opened.schema), since=f"{since[:8]}-{since[8:]}-7", many=BUSY_JOBS + 1)
    return bool(opened.shell.run(_asking(asked))[0][0] > BUSY_JOBS)


def _now() -> Steps[int]:
    return int((yield NOW)[0][0])


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


def _rights(rights: Rights) -> Reading:
    login, role, aim = rights.login, rights.role, rights.aim
    if not role:
        words = f"may not even read: it lacks {listed(rights.lacks('reader'))}; see `windlass store roles`"
        return Reading("rights", login, "bad", words)
    if role == "worker" and not rights.empties:
        return Reading("rights", login, "warning", "may work, but not empty the parts of the tables of jobs (TRUNCATE)")
    if aim:
        words = f"{MAY[role]}; {TO[aim]} it lacks {listed(rights.lacks(aim))}: see `windlass store roles`"
        return Reading("rights", login, "warning", words)
    return Reading("rights", login, "ok", MAY[role])


def _dead(rows: Rows) -> Iterator[Reading]:
    for table, count in rows:
        if count > DEAD_MANY:
            yield Reading("dead_rows", count, "warning", f"in {table}: vacuum does not keep up, or cannot")
        else:
            yield Reading("dead_rows", count)
