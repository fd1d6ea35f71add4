"""What an administrator runs by hand: migrations as SQL, and roles that may do just what they are for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.kit import new_job
from tests.stores.postgres_server import database, server
from windlass import stores
from windlass.core.errors import SchemaError, StoreError
from windlass.core.job import State
from windlass.core.machine import complete
from windlass.ports.store import ClaimRequest, Opened, Quota, Selection
from windlass.stores.named_sql import load_migrations
from windlass.stores.postgres import statements
from windlass.stores.postgres.statements import migrations_of
from windlass.testing.conformance.world import report

SCHEMA = f"dba {os.getpid()}"


@pytest.fixture(scope="module")
def schema() -> Iterator[str]:
    """Made by hand, from what is printed."""
    opened = stores.open(f"{database()}?schema={SCHEMA}")
    with psycopg.connect(database(), autocommit=True) as connection:
        connection.execute(opened.migration_sql(0))  # type: ignore[attr-defined]
        connection.execute(opened.roles_sql())  # type: ignore[attr-defined]
        for role in ("worker", "producer", "reader"):
            connection.execute(f'CREATE ROLE "login {role} {os.getpid()}" LOGIN IN ROLE "{SCHEMA}_{role}"')
        yield SCHEMA
        opened.close()
        names = [f"login {role} {os.getpid()}" for role in ("worker", "producer", "reader")]
        names += [f"{SCHEMA}_{role}" for role in ("migrator", "worker", "producer", "reader")]
        connection.execute(f'DROP SCHEMA "{SCHEMA}" CASCADE')
        for name in names:
            connection.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')


@pytest.fixture
def as_role(schema: str) -> Iterator[Any]:
    made: list[Opened] = []

    def open_as(role: str) -> Opened:
        parts = database().split("://")[1]
        place = parts.rpartition("@")[2]
        opened = stores.open(f"postgresql://login%20{role}%20{os.getpid()}@{place}?schema={schema}")
        made.append(opened)
        return opened

    yield open_as
    for opened in made:
        opened.close()


def test_each_role_can_do_what_it_is_for_and_no_more(as_role: Any) -> None:
    worker, producer, reader = (as_role(role) for role in ("worker", "producer", "reader"))
    for opened in (worker, producer, reader):
        assert opened.shell.run(opened.store.migrate()) == len(migrations_of(SCHEMA))
    jobs = [
        new_job(),
        new_job(idempotency_key="k"),
        new_job(after=1_000_000, expires_after=2_000_000),
        new_job(meta='{"unique":["u","replace"]}', queue="other"),
        new_job(meta='{"unique":["u","replace"]}', queue="other"),
    ]
    for job in jobs:
        producer.shell.run(producer.store.enqueue([job]))
    assert producer.shell.run(producer.store.cancel(Selection((jobs[2].id,)))).changed == (jobs[2].id,)
    assert producer.shell.run(producer.store.lead("lock", "a", 1_000_000)).leading
    run, store = worker.shell.run, worker.store
    run(store.beat([report("w")]))
    held = run(store.claim("w", 1, ClaimRequest(5, (Quota("default", 5),)))).jobs
    assert len(held) == 2
    run(store.settle("w", [complete(each.token, "1", 10**9) for each in held]))
    run(store.promote(10))
    assert run(store.audit()) == []
    states = reader.shell.run(reader.store.stats(exact=True)).states
    assert (states["completed"], states["cancelled"], states["queued"]) == (2, 1, 1)
    assert reader.shell.run(reader.store.fetch([jobs[0].id]))[0].state is State.COMPLETED
    reader.shell.changed()
    with pytest.raises(StoreError, match="permission denied"):
        reader.shell.run(reader.store.enqueue([new_job()]))
    with pytest.raises(StoreError, match="permission denied"):
        producer.shell.run(producer.store.beat([report("p")]))


def test_the_door_for_sql_in_a_schema_of_this_name(schema: str, as_role: Any) -> None:
    """Made by hand, and hints and locks are those of the client."""
    producer = as_role("producer")
    parts = database().split("://")[1].rpartition("@")[2]
    with (
        psycopg.connect(f"postgresql://login%20producer%20{os.getpid()}@{parts}", autocommit=True) as theirs,
        psycopg.connect(database(), autocommit=True) as listening,
    ):
        listening.execute(f'LISTEN "windlass:{schema}"')
        call = f'SELECT "{schema}".enqueue(%s, idempotency_key => %s)'
        ((id,),) = theirs.execute(call, ("by sql", "k")).fetchall()
        assert theirs.execute(call, ("by sql", "k")).fetchall() == [(id,)]
        assert [each.channel for each in listening.notifies(timeout=10, stop_after=1)] == [f"windlass:{schema}"]
        assert theirs.execute(f'SELECT state FROM "{schema}".job(%s)', (id,)).fetchall() == [("queued",)]
    (job,) = producer.shell.run(producer.store.fetch([id]))
    assert (job.task, job.state) == ("by sql", "queued")
    producer.shell.run(producer.store.cancel(Selection((id,))))


class Estate:
    """A schema with its roles, and logins of them, that can be had anew in each test."""

    def __init__(self) -> None:
        self.schema = f"estate_{os.getpid()}"
        self.admin = psycopg.connect(database(), autocommit=True)
        self.roles = [f"{self.schema}_{each}" for each in ("migrator", "worker", "producer", "reader")]
        self.opened: list[Opened] = []
        self.logins: list[str] = []

    def open(self, login: str = "", more: str = "") -> Opened:
        place = database().split("://")[1].rpartition("@")[2]
        url = f"postgresql://{login}@{place}" if login else database()
        self.opened.append(stores.open(f"{url}?schema={self.schema}{more}"))
        return self.opened[-1]

    def url(self, login: str) -> str:
        return f"postgresql://{login}@{database().split('://')[1].rpartition('@')[2]}?schema={self.schema}"

    def login(self, role: str = "") -> str:
        name = f"{self.schema}_login_{role or 'nobody'}"
        self.admin.execute(f"CREATE ROLE {name} LOGIN" + (f" IN ROLE {self.schema}_{role}" if role else ""))
        self.logins.append(name)
        return name

    def settle(self) -> None:
        """As the page says: migrate, then the roles; which may be done again."""
        opened = self.open()
        opened.shell.run(opened.store.migrate())
        self.admin.execute(opened.roles_sql())  # type: ignore[attr-defined]

    def owners(self) -> set[str]:
        asked = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind <> 'i'"
        return {row[0] for row in self.admin.execute(asked, (self.schema,))}

    def close(self) -> None:
        for opened in self.opened:
            opened.close()
        self.admin.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")
        for name in [*self.logins, *self.roles]:
            if self.admin.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,)).rowcount:
                self.admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        self.admin.close()


@pytest.fixture
def estate() -> Iterator[Estate]:
    found = Estate()
    yield found
    found.close()


LATER = "CREATE TABLE windlass.later (n int); ALTER TABLE windlass.jobs ADD COLUMN later text; CREATE SEQUENCE windlass.later_seq;"


@pytest.mark.parametrize("way", ["login", "url"])
def test_what_a_later_migration_makes_is_everybodys(estate: Estate, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """By a login that is a member of the migrator and acts as it, as it logs in or as the URL says."""
    estate.settle()
    assert estate.owners() == {f"{estate.schema}_migrator"}
    name, worker, reader = estate.login("migrator"), estate.login("worker"), estate.login("reader")
    more = f"&options=-crole%3D{estate.schema}_migrator"
    if way == "login":
        estate.admin.execute(f"ALTER ROLE {name} SET role = {estate.schema}_migrator")
        more = ""
    known = load_migrations(statements.PACKAGE)
    monkeypatch.setattr(statements, "load_migrations", lambda _: [*known, LATER])
    opened = estate.open(name, more)
    assert opened.shell.run(opened.store.migrate()) == len(known) + 1
    assert estate.owners() == {f"{estate.schema}_migrator"}
    asked = f"SELECT has_table_privilege(%s, '{estate.schema}.later', %s)"
    for login, right, has in ((worker, "DELETE", True), (reader, "SELECT", True), (reader, "DELETE", False)):
        assert estate.admin.execute(asked, (login, right)).fetchall() == [(has,)]
    # For what default rights cannot say, the script is run again; also by who migrated with a login of its own.
    estate.settle()
    estate.admin.execute(f"ALTER TABLE {estate.schema}.later OWNER TO {name}")
    estate.settle()
    assert estate.owners() == {f"{estate.schema}_migrator"}


def test_an_administrator_who_is_no_superuser(estate: Estate) -> None:
    """As those of managed services: makes the schema and the roles, and runs both again."""
    name = estate.login()
    base = database().rpartition("/")[2]
    estate.admin.execute(f"ALTER ROLE {name} CREATEROLE; GRANT CREATE ON DATABASE {base} TO {name}")
    opened = estate.open(name)
    opened.shell.run(opened.store.migrate())
    with psycopg.connect(estate.url(name).partition("?")[0], autocommit=True) as theirs:
        for _ in range(2):
            theirs.execute(opened.roles_sql())  # type: ignore[attr-defined]
    assert estate.owners() == {f"{estate.schema}_migrator"}
    worker = estate.open(estate.login("worker"))
    assert worker.missing_for_work() == ""  # type: ignore[attr-defined]


def test_who_may_not_migrate_is_told_who_is_to(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    name = estate.login()
    nothing = rf"no schema '{estate.schema}' yet, and this Windlass wants version \d+: run `windlass store migrate` by a login"
    opened = estate.open(name)
    with pytest.raises(SchemaError, match=nothing):
        opened.shell.run(opened.store.migrate())
    estate.settle()
    worker = estate.login("worker")
    opened = estate.open(worker)
    now = opened.shell.run(opened.store.migrate())
    known = load_migrations(statements.PACKAGE)
    monkeypatch.setattr(statements, "load_migrations", lambda _: [*known, LATER])
    older = f"is version {now}, and this Windlass wants version {now + 1}: run `windlass store migrate` by a login that may"
    with pytest.raises(SchemaError, match=older):
        opened.shell.run(opened.store.migrate())


@pytest.mark.parametrize("processes", ["0", "1"])
@pytest.mark.parametrize("role", ["producer", "reader"])
def test_a_worker_that_may_not_work_ends_and_says_why(estate: Estate, tmp_path: Path, role: str, processes: str) -> None:
    estate.settle()
    url = estate.url(estate.login(role))
    (tmp_path / "tasks.py").write_text(f"from windlass import Windlass\napp = Windlass({url!r})\n")
    typed = [sys.executable, "-m", "windlass", "worker", "tasks:app", "--processes", processes]
    ran = subprocess.run(typed, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    last = ran.stderr.splitlines()[-1]
    assert last.startswith(f"windlass: url: '{estate.logins[-1]}' may not work here: it lacks DELETE on "), ran.stderr
    assert "Traceback" not in ran.stderr


def test_printed_and_made_schemas_are_the_same(schema: str, tmp_path: Path) -> None:
    made = stores.open(f"{database()}?schema=made here")
    made.shell.run(made.store.migrate())
    nothing = made.migration_sql(len(migrations_of(SCHEMA)))  # type: ignore[attr-defined]
    assert nothing.startswith("--")
    assert "CREATE" not in nothing
    made.close()
    columns = "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
    indexes = "SELECT tablename, indexname FROM pg_indexes"
    with psycopg.connect(database()) as connection:
        for text, where in ((columns, "table_schema"), (indexes, "schemaname")):
            found = [
                sorted(connection.execute(f"{text} WHERE {where} = %s", (name,)).fetchall()) for name in (schema, "made here")
            ]
            assert found[0] == found[1] != []
        connection.execute('DROP SCHEMA "made here" CASCADE')
    assert server()
