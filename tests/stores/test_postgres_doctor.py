"""`windlass store doctor` on PostgreSQL: each thing that docs/reference/postgresql.md asks of a server is looked at."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.stores.postgres_server import PLACES, Server, database
from windlass import stores
from windlass.cli import run
from windlass.core.health import Reading
from windlass.stores.postgres import diagnosis

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
    assert [name for name in found if name not in {"oldest_transaction", "sessions_hidden"}] == names
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
                admin.execute(f"DROP OWNED BY {each}; DROP ROLE {each}")


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
