"""What an administrator runs by hand: migrations as SQL, and roles that may do just what they are for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.kit import new_job
from tests.stores.postgres_server import database, server
from windlass import stores
from windlass.core.errors import StoreError
from windlass.core.job import State
from windlass.core.machine import complete
from windlass.ports.store import ClaimRequest, Opened, Quota, Selection
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
