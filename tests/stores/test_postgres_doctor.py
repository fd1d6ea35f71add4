"""`windlass store doctor` on PostgreSQL: each thing that docs/reference/postgresql.md asks of a server is looked at."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from tests.faults.kit import new_job
from tests.stores.postgres_server import PLACES, Server, database
from windlass import stores
from windlass.cli import run
from windlass.core.errors import SchemaError
from windlass.core.health import Reading
from windlass.core.placement import job_id
from windlass.stores import pool
from windlass.stores.postgres import connection, diagnosis, statements

Look = Callable[..., dict[str, Reading]]


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Look]:
    """The readings of the store, by name."""
    url = PLACES.url(tmp_path)
    opened = stores.open(url)
    opened.shell.run(opened.store.migrate())
    opened.close()

    def readings(more: str = "", url: str = url) -> dict[str, Reading]:
        opened = stores.open(url + more)
        try:
            return {each.name: each for each in opened.diagnose()}  # type: ignore[attr-defined]
        finally:
            opened.close()

    yield readings
    PLACES.recycle()


def test_a_server_that_is_well(look: Look, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = look()
    names = ["server", "durability", "autovacuum", "clock", "connections", "schema", "rights", "dead_rows"]
    beside = {"oldest_transaction", "sessions_hidden", "listen", "max_wal_size", "idle_in_transaction_session_timeout"}
    assert [name for name in found if name not in beside] == names
    assert {found[name].verdict for name in names} == {"ok"}
    assert found["rights"].note == "may work, operate and enqueue"
    assert run(["store", "doctor", "--url", PLACES.url(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["healthy"]


def test_commits_that_are_not_waited_for(look: Look) -> None:
    found = look("&options=-c%20synchronous_commit%3Doff")["durability"]
    assert (found.verdict, found.value) == ("warning", "synchronous_commit off")


def test_it_names_who_pins_the_horizon(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who only reads, and one who has written and holds no snapshot, with name, pid, user and age."""
    assert "oldest_transaction" not in look()
    monkeypatch.setattr(diagnosis, "PINNED_LONG", 1)
    for begin in ("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1", "BEGIN; SELECT pg_current_xact_id()"):
        with psycopg.connect(database(), autocommit=True, application_name="monthly report") as session:
            session.execute(begin)
            deadline = time.monotonic() + 20
            while "oldest_transaction" not in (found := look()):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            pin = found["oldest_transaction"]
            assert pin.value == f"monthly report (pid {session.info.backend_pid}, user {session.info.user})"
            assert pin.verdict == "warning"
            assert pin.note.startswith("is open for ")


def test_slots_and_standbys_that_are_far_behind() -> None:
    near, far = diagnosis.PINNED_FAR - 1, diagnosis.PINNED_FAR
    rows = [
        *[("slot", "near", None, near), ("standby", "b (pid 7)", None, far), ("slot", "old", None, far)],
        *[("session", "a", 10**6, 5), ("session", "second", 10**6, 4)],
    ]
    found = list(diagnosis._pinned(rows, 0))
    assert [(each.name, each.value) for each in found] == [
        ("standby_reads", "b (pid 7)"),
        ("slot", "old"),
        ("oldest_transaction", "a"),
    ]
    assert found[1].note.startswith("is 1,000,000 transactions behind")


@pytest.mark.parametrize(
    ("role", "verdict", "note"),
    [
        ("worker", "ok", "may work, operate and enqueue"),
        ("producer", "ok", "may enqueue and read"),
        ("reader", "ok", "may read"),
        (None, "bad", "may not even read"),
    ],
)
def test_what_the_role_may_do(look: Look, tmp_path: Path, role: str | None, verdict: str, note: str) -> None:
    """And that it does not see the sessions of others, where it does not."""
    opened = stores.open(PLACES.url(tmp_path))
    schema, script = opened.schema, opened.roles_sql()  # type: ignore[attr-defined]
    opened.close()
    name = f"doctor_{schema}_{os.getpid()}"
    roles = [f"{schema}_{each}" for each in ("migrator", "worker", "producer", "reader")]
    with psycopg.connect(database(), autocommit=True) as admin:
        admin.execute(script)
        admin.execute(f"CREATE ROLE {name} LOGIN" + (f" IN ROLE {schema}_{role}" if role else ""))
        if role is None:
            admin.execute(f'GRANT USAGE ON SCHEMA "{schema}" TO {name}; GRANT SELECT ON "{schema}".schema_version TO {name}')
        try:
            place = database().split("://")[1].rpartition("@")[2]
            found = look(url=f"postgresql://{name}@{place}?schema={schema}")
            assert (found["rights"].verdict, found["rights"].value) == (verdict, name)
            assert found["rights"].note.startswith(note)
            assert found["sessions_hidden"].value >= 1
        finally:
            for each in (name, *roles):
                admin.execute(f"REASSIGN OWNED BY {each} TO CURRENT_USER; DROP OWNED BY {each}; DROP ROLE {each}")


@contextmanager
def login(path: Path, role: str) -> Iterator[tuple[psycopg.Connection[Any], str, str, str]]:
    """Hands of an administrator; the name of a login that has a role, its URL, and the schema."""
    opened = stores.open(PLACES.url(path))
    schema, script = opened.schema, opened.roles_sql()  # type: ignore[attr-defined]
    opened.close()
    name = f"doctor_{schema}_{os.getpid()}"
    roles = [f"{schema}_{each}" for each in ("migrator", "worker", "producer", "reader")]
    with psycopg.connect(database(), autocommit=True) as admin:
        admin.execute(script)
        admin.execute(f"CREATE ROLE {name} LOGIN IN ROLE {schema}_{role}")
        try:
            place = database().split("://")[1].rpartition("@")[2]
            yield admin, name, f"postgresql://{name}@{place}?schema={schema}", schema
        finally:
            for each in (name, *roles):
                admin.execute(f"REASSIGN OWNED BY {each} TO CURRENT_USER; DROP OWNED BY {each}; DROP ROLE {each}")


def test_rights_between_two_roles(look: Look, tmp_path: Path) -> None:
    """Each that is missing is named; a table of somebody else's, in the same schema, is nobody's business."""
    with login(tmp_path, "worker") as (admin, name, url, schema):
        admin.execute(f"CREATE TABLE {schema}.of_my_own (n int)")
        try:
            assert (look(url=url)["rights"].verdict, look(url=url)["rights"].note) == ("ok", "may work, operate and enqueue")
            admin.execute(f"REVOKE USAGE ON SEQUENCE {schema}.jobs_seq FROM {schema}_worker")
            found = look(url=url)["rights"]
            assert (found.verdict, found.value) == ("warning", name)
            assert found.note.startswith("may read; to work it lacks USAGE on jobs_seq: ")
            admin.execute(f"GRANT USAGE ON SEQUENCE {schema}.jobs_seq TO {schema}_worker")
            admin.execute(f"REVOKE DELETE ON {schema}.workers FROM {schema}_worker")
            found = look(url=url)["rights"]
            assert found.verdict == "warning"
            assert found.note.startswith("may enqueue and read; to work it lacks DELETE on workers: ")
        finally:
            admin.execute(f"DROP TABLE {schema}.of_my_own")
    with login(tmp_path, "reader") as (admin, _, url, schema):
        admin.execute(f"GRANT INSERT ON {schema}.jobs TO {schema}_reader")
        found = look(url=url)["rights"]
        assert (found.verdict, found.note[:23]) == ("warning", "may read; to enqueue it")


def test_a_timeout_that_ends_statements_of_windlass(look: Look, tmp_path: Path) -> None:
    """Of the login that asks, and of another that works; not of one that only reads."""
    assert "statement_timeout" not in look()
    found = look("&options=-c%20statement_timeout%3D1s")["statement_timeout"]
    assert (found.verdict, found.value) == ("warning", "1000ms")
    with login(tmp_path, "worker") as (admin, name, _, _):
        admin.execute(f"ALTER ROLE {name} SET statement_timeout = '1s'")
        found = look()["statement_timeout"]
        assert (found.verdict, found.value) == ("warning", "1s")
        assert found.note.startswith(f"of {name}: ends statements that may take longer")
        admin.execute(f"ALTER ROLE {name} SET statement_timeout = '1min'")
        assert "statement_timeout" not in look()
    with login(tmp_path, "reader") as (admin, name, _, _):
        admin.execute(f"ALTER ROLE {name} SET statement_timeout = '1s'")
        assert "statement_timeout" not in look()


def test_the_other_settings_of_the_page(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A naptime that is long for a busy store, checkpoints that come before their time, transactions nobody ends."""
    name = "idle_in_transaction_session_timeout"
    assert (look()[name].verdict, look()[name].value) == ("ok", "none")
    assert name not in look("&options=-c%20idle_in_transaction_session_timeout%3D10min")
    monkeypatch.setattr(diagnosis, "BUSY_JOBS", 2)
    assert "autovacuum_naptime" not in look()
    opened = stores.open(PLACES.url(tmp_path))
    opened.shell.run(opened.store.enqueue([new_job(id=job_id(time.time_ns() // 1_000, os.urandom(10))) for _ in range(3)]))
    opened.close()
    assert look()["autovacuum_naptime"].verdict == "warning"
    monkeypatch.setattr(diagnosis, "CHECKPOINTS_FEW", -1)
    monkeypatch.setitem(diagnosis._CHECKPOINTS, "timed", "0")
    monkeypatch.setitem(diagnosis._CHECKPOINTS_17, "timed", "0")
    monkeypatch.setitem(diagnosis._CHECKPOINTS, "requested", "7")
    monkeypatch.setitem(diagnosis._CHECKPOINTS_17, "requested", "7")
    found = look()["max_wal_size"]
    assert (found.verdict, found.note[:18]) == ("warning", "7 of 7 checkpoints")


@pytest.mark.parametrize(("text", "many"), [("1500", 1500), ("5s", 5_000), ("1min", 60_000), ("500us", 0.5), ("x", 0)])
def test_spans_as_settings_spell_them(text: str, many: float) -> None:
    assert diagnosis.milliseconds(text) == many


def test_a_pooler_behind_which_nobody_listens(look: Look) -> None:
    found = look("&pooler=transaction")["listen"]
    assert (found.verdict, "listen=URL" in found.note) == ("warning", True)
    assert "listen" not in look(f"&pooler=transaction&listen={quote(database(), safe='')}")


def test_what_libpq_says_is_one_line(look: Look) -> None:
    """And where a pooler does not know what it is told at the start, it says what to do."""
    said = look(url="postgresql://postgres@127.0.0.1:1/nowhere")["readable"].note
    assert said.startswith("the server cannot be reached: connection to server at")
    assert not set("\n\t") & set(said)
    assert str(pool.Lost("server closed\n\tthe connection\n")) == "server closed the connection"
    pooler = str(connection._unreached("FATAL:  unsupported startup parameter: options\n"))
    assert pooler.endswith("unsupported startup parameter: options; behind PgBouncer, say pooler=transaction in the URL")


@pytest.mark.parametrize("change", ["ALTER TABLE {}.jobs DROP COLUMN meta CASCADE", "DROP TABLE {}.merged", "DROP FUNCTION {}.part_walk"])
def test_a_schema_that_is_not_what_its_version_makes(tmp_path: Path, look: Look, change: str) -> None:
    """As one that an older development version made: neither healthy, nor missing."""
    url = PLACES.url(tmp_path / "fresh")
    opened = stores.open(url)
    opened.shell.run(opened.store.migrate())
    with psycopg.connect(database(), autocommit=True) as admin:
        admin.execute(change.format(opened.schema))  # type: ignore[attr-defined]
        try:
            found = look(url=url)["schema"]
            assert (found.verdict, found.value) == ("bad", len(statements.migrations_of("windlass")))
            assert found.note.startswith("counts as this version, but is not what it makes (")
            assert "does not exist" in found.note
            if "FUNCTION" not in change:
                with pytest.raises(SchemaError, match="or one that is not what this Windlass makes"):
                    opened.shell.run(opened.store.enqueue([new_job()]) if "jobs" in change else opened.store.audit())
        finally:
            opened.close()
            admin.execute(f"DROP SCHEMA {opened.schema} CASCADE")  # type: ignore[attr-defined]


def test_dead_rows_are_counted_where_they_lie(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the parts, not in the tables over them, of which nothing is counted."""
    monkeypatch.setattr(diagnosis, "DEAD_MANY", 10)
    schema = PLACES.url(tmp_path).partition("schema=")[2].partition("&")[0]
    with psycopg.connect(database(), autocommit=True) as admin:
        # More than what other tests may have left in the tables of this schema.
        rows = "SELECT 0, 0, 'q', n, n FROM generate_series(1, 10000) n"
        admin.execute(f"INSERT INTO {schema}.ready (part, lane, queue, rank, seq) {rows}")
        admin.execute(f"DELETE FROM {schema}.ready")
        admin.execute("SELECT pg_stat_force_next_flush()")
    deadline = time.monotonic() + 20
    while not (found := look()["dead_rows"]).note.startswith("in ready_0: "):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert found.verdict == "warning"


def test_the_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each.verdict for each in diagnosis._clock(1_000_000)] == ["ok"]
    (far,) = diagnosis._clock(-5_000_000)
    assert (far.verdict, far.value, far.note) == ("warning", "-5.0s", "is 5s behind this machine's")


@pytest.fixture(scope="module")
def careless() -> Iterator[Server]:
    server = Server("fsync=off", "autovacuum=off", "max_connections=12", "max_prepared_transactions=2")
    yield server
    server.remove()


def test_a_server_that_is_not_well(careless: Server, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{careless.url}/postgres"
    opened = stores.open(url)
    opened.shell.run(opened.store.migrate())
    opened.close()
    found: Any = look(url=url)
    assert (found["durability"].verdict, found["autovacuum"].verdict) == ("bad", "bad")
    assert (found["autovacuum"].value, found["autovacuum"].note) == ("off", "what is deleted is never cleaned up")
    (uncounted,) = [each for each in diagnosis._server("15", 150_000, "on", "on", "on", False, "on", "off", 0) if each.name == "autovacuum"]
    assert (uncounted.verdict, uncounted.value) == ("bad", "track_counts is off")
    assert (found["connections"].verdict, found["connections"].note) == ("ok", "of 9")
    monkeypatch.setattr(diagnosis, "PINNED_LONG", 0)
    sessions = [psycopg.connect(url, autocommit=True) for _ in range(8)]
    sessions[0].execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'")
    found = look(url=url)
    assert found["connections"].verdict == "warning"
    assert found["prepared_transaction"].value == "forgotten (user postgres)"
    sessions[0].execute("ROLLBACK PREPARED 'forgotten'")
    for each in sessions:
        each.close()


def test_a_standby_is_no_store(careless: Server, look: Look) -> None:
    standby = Server("hot_standby=on", Server.following(careless.port), "max_connections=12", "max_prepared_transactions=2", of=careless)
    try:
        assert look(url=f"{standby.url}/postgres")["standby"].verdict == "bad"
    finally:
        standby.remove()
