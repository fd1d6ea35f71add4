"""Migrations of a PostgreSQL store that people work on: an index that is built meanwhile, and that fails half-way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.faults.kit import new_job
from tests.stores.postgres_server import PLACES, database
from windlass import stores
from windlass.core.errors import SchemaError, StoreError, StoreTimeout, StoreUnavailable
from windlass.core.job import NewJob
from windlass.core.machine import complete
from windlass.ports.store import ClaimRequest, Opened, Quota
from windlass.stores.named_sql import load_migrations, split
from windlass.stores.postgres import statements
from windlass.stores.postgres.shell import Shell
from windlass.testing.conformance.world import report

COLUMN = "ALTER TABLE windlass.jobs ADD COLUMN later text;"
INDEX = "CREATE UNIQUE INDEX CONCURRENTLY keys_digest ON windlass.keys (digest);"
NOW = len(load_migrations(statements.PACKAGE))


def keyed(digest: str) -> NewJob:
    """One whose key has this digest, which the new index wants to be the only one."""
    return new_job(idempotency_key=str(uuid4()), digest=digest)


class Site:
    """A store of today's version, and hands that look at it from outside."""

    def __init__(self, path: Path) -> None:
        # Named so that it is dropped after the test: what a newer version made must not be in the way of the next one.
        self.url = PLACES.url(path / "fresh")
        self.opened = self.open()
        self.run(self.opened.store.migrate())
        self.schema = str(self.opened.store.schema)  # type: ignore[attr-defined]
        self.connection = psycopg.connect(database(), autocommit=True)

    def open(self, more: str = "") -> Opened:
        return stores.open(self.url + more)

    def run(self, plan: Any) -> Any:
        return self.opened.shell.run(plan)

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(text.replace("windlass.", f'"{self.schema}".'))
        return cursor.fetchall() if cursor.description else []

    def index(self) -> list[tuple[Any, ...]]:
        return self.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('windlass.keys_digest')")

    def version(self) -> int:
        return int(self.sql("SELECT max(version) FROM windlass.schema_version")[0][0])

    def close(self) -> None:
        self.sql(f'DROP SCHEMA "{self.schema}" CASCADE')
        self.connection.close()
        self.opened.close()

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Somebody whose transaction has written: who builds an index waits for its end."""
        with psycopg.connect(database()) as connection:
            connection.execute(f'LOCK TABLE "{self.schema}".keys IN ROW EXCLUSIVE MODE')
            yield

    def builders(self) -> list[int]:
        """Who builds, or removes, once the index is there and is not complete."""
        words = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
        rows = self.sql(f"{words} AND query ~ '^(CREATE UNIQUE|DROP) INDEX CONCURRENTLY'")
        return [row[0] for row in rows] if self.index() == [(False,)] else []

    def works(self) -> None:
        """A job goes its way, over connections that were opened before."""
        run, store = self.run, self.opened.store
        job = keyed(str(time.monotonic_ns()))
        run(store.enqueue([job]))
        run(store.beat([report("w")]))
        self.seq = getattr(self, "seq", 0) + 1
        held = run(store.claim("w", self.seq, ClaimRequest(5, (Quota("default", 5),)))).jobs
        assert [each.id for each in held] == [job.id]
        assert run(store.settle("w", [complete(held[0].token, "1", 10**9)])) == ["applied"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.close()
    PLACES.recycle()


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """From here on the code knows these migrations as well."""

    def set_to(*texts: str) -> None:
        known = load_migrations(statements.PACKAGE)
        monkeypatch.setattr(statements, "load_migrations", lambda _: [*known, *texts])

    return set_to


@pytest.fixture
def aside(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was run outside of transactions."""
    found: list[str] = []
    real = Shell._aside

    def noted(self: Shell, sql: str, deadline: float) -> None:
        found.append(sql.partition(" INDEX")[0])
        real(self, sql, deadline)

    monkeypatch.setattr(Shell, "_aside", noted)
    return found


def until(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def begun(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """A thread, and what became of it."""
    told: list[Any] = []

    def act() -> None:
        try:
            told.append(work())
        except StoreError as error:
            told.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    return thread, told


def test_ten_at_once_build_it_once(site: Site, newer: Callable[..., None], aside: list[str]) -> None:
    newer(COLUMN, INDEX)
    for n in range(200):
        site.run(site.opened.store.enqueue([keyed(str(n))]))
    stores_ = [site.open("&pooler=transaction" if n % 2 else "") for n in range(10)]
    threads = [begun(lambda each=each: each.shell.run(each.store.migrate(), 30)) for each in stores_]  # type: ignore[misc]
    for thread, _ in threads:
        thread.join()
    for each in stores_:
        each.close()
    assert [told for _, told in threads] == [[NOW + 2]] * 10
    assert aside == ["CREATE UNIQUE"]
    assert (site.index(), site.version()) == ([(True,)], NOW + 2)
    assert site.sql("SELECT count(*) FROM windlass.schema_version") == [(NOW + 2,)]


def test_a_new_store_gets_it_too(tmp_path: Path, newer: Callable[..., None]) -> None:
    newer(COLUMN, INDEX, "ALTER TABLE windlass.jobs ADD COLUMN latest text;")
    site = Site(tmp_path)
    assert (site.index(), site.version()) == ([(True,)], NOW + 3)
    site.works()
    site.close()
    PLACES.recycle()


def test_what_fails_is_built_again(site: Site, newer: Callable[..., None], aside: list[str]) -> None:
    """The version does not count before the index is whole."""
    newer(INDEX)
    site.run(site.opened.store.enqueue([keyed("twice"), keyed("twice")]))
    for _ in range(2):
        with pytest.raises(StoreError, match="could not create unique index"):
            site.run(site.opened.store.migrate())
        assert (site.index(), site.version()) == ([(False,)], NOW)
    site.sql("DELETE FROM windlass.keys")
    assert site.run(site.opened.store.migrate()) == NOW + 1
    assert (site.index(), site.version()) == ([(True,)], NOW + 1)
    assert aside == ["CREATE UNIQUE", "DROP", "CREATE UNIQUE", "DROP", "CREATE UNIQUE"]


@pytest.mark.parametrize("pooler", ["session", "transaction"])
def test_a_builder_that_is_killed(site: Site, newer: Callable[..., None], pooler: str) -> None:
    """In the middle, and then as it removes what that left: the first time it goes on by itself. Jobs come and go."""
    newer(INDEX)
    other = site.open(f"&pooler={pooler}")
    with site.writer():
        thread, told = begun(lambda: other.shell.run(other.store.migrate(), 30))
        killed: set[int] = set()
        while len(killed) < 2:
            (pid,) = until(lambda: set(site.builders()) - killed)
            site.works()
            killed.add(pid)
            site.sql(f"SELECT pg_terminate_backend({pid})")
        thread.join()
        assert isinstance(told[0], StoreUnavailable), told
        assert (site.index(), site.version()) == ([(False,)], NOW)
    site.works()
    assert other.shell.run(other.store.migrate()) == NOW + 1
    assert (site.index(), site.version()) == ([(True,)], NOW + 1)
    site.works()
    other.close()


def test_what_the_server_still_builds_is_waited_for(site: Site, newer: Callable[..., None], aside: list[str]) -> None:
    """Of a process that died: the server goes on, and nobody takes it away."""
    newer(INDEX)
    with site.writer():
        thread, _ = begun(lambda: build_by_hand(site))
        until(site.builders)
        with pytest.raises(StoreTimeout):
            site.opened.shell.run(site.opened.store.migrate(), 0.5)
        assert site.builders()
    thread.join()
    assert site.run(site.opened.store.migrate()) == NOW + 1
    assert (aside, site.index()) == ([], [(True,)])


def build_by_hand(site: Site) -> None:
    with psycopg.connect(database(), autocommit=True) as connection:
        connection.execute(INDEX.replace("windlass.", f'"{site.schema}".'))


def test_one_process_changes_the_schema_at_a_time(site: Site, newer: Callable[..., None], aside: list[str]) -> None:
    newer(INDEX)
    with site.writer():
        thread, told = begun(lambda: site.opened.shell.run(site.opened.store.migrate(), 30))
        until(site.builders)
        other = site.open()
        with pytest.raises(StoreTimeout):
            other.shell.run(other.store.migrate(), 0.5)
        other.close()
    thread.join()
    assert (told, aside) == ([NOW + 1], ["CREATE UNIQUE"])


def test_a_callers_transaction_cannot(site: Site, newer: Callable[..., None]) -> None:
    newer(INDEX)
    with psycopg.connect(database()) as connection, pytest.raises(SchemaError, match="windlass store migrate"):
        connection.execute("SELECT 1")
        site.opened.own(connection).run(site.opened.store.migrate())
    assert (site.index(), site.version()) == ([], NOW)


def test_a_migration_does_one_or_the_other(newer: Callable[..., None]) -> None:
    newer(COLUMN + INDEX)
    with pytest.raises(ValueError, match="nothing else"):
        statements.migrations_of("windlass")


def test_printed_for_a_person(site: Site, newer: Callable[..., None]) -> None:
    """In the order in which it must run, outside of transactions where it must; and after an error it counts nothing."""
    newer(COLUMN, INDEX, "ALTER TABLE windlass.jobs ADD COLUMN latest text;")
    script = site.opened.migration_sql(NOW)  # type: ignore[attr-defined]
    words = [line.split(" (")[0].split(" ON")[0] for line in script.splitlines()]
    name = f'"{site.schema}"'
    assert words == [
        f"-- Windlass: the schema {name}, from version {NOW} to {NOW + 3}.",
        *("BEGIN;", f"ALTER TABLE {name}.jobs ADD COLUMN later text;", f"INSERT INTO {name}.schema_version", "COMMIT;"),
        "-- In no transaction, and while everybody works:",
        *(f"DROP INDEX CONCURRENTLY IF EXISTS {name}.keys_digest;", "CREATE UNIQUE INDEX CONCURRENTLY keys_digest"),
        *(f"INSERT INTO {name}.schema_version", "    WHERE"),
        *("BEGIN;", f"ALTER TABLE {name}.jobs ADD COLUMN latest text;", f"INSERT INTO {name}.schema_version", "COMMIT;"),
    ]
    newer(COLUMN, INDEX)
    site.run(site.opened.store.enqueue([keyed("twice"), keyed("twice")]))
    assert by_hand(site, site.opened.migration_sql(NOW)) == [psycopg.errors.UniqueViolation]  # type: ignore[attr-defined]
    assert (site.index(), site.version()) == ([(False,)], NOW + 1)
    site.sql("DELETE FROM windlass.keys")
    assert by_hand(site, site.opened.migration_sql(NOW + 1)) == []  # type: ignore[attr-defined]
    assert (site.index(), site.version()) == ([(True,)], NOW + 2)
    assert site.run(site.opened.store.migrate()) == NOW + 2


def by_hand(site: Site, script: str) -> list[type[Exception]]:
    """As psql runs a file: whatever becomes of one statement, the next one comes. Answers the errors."""
    found: list[type[Exception]] = []
    for text in split(script):
        try:
            site.sql(text)
        except psycopg.Error as error:
            found.append(type(error))
    return found


def test_old_code_works_on_beside_a_schema_that_was_expanded(site: Site, newer: Callable[..., None]) -> None:
    """I25: whoever is at work goes on, prepared statements and all; whoever opens the store anew is refused."""
    site.works()
    newer(COLUMN, INDEX, "ALTER TABLE windlass.held ADD COLUMN more bigint NOT NULL DEFAULT 7;")
    new = site.open()
    assert new.shell.run(new.store.migrate()) == NOW + 3
    new.close()
    newer()
    for _ in range(3):
        site.works()
    assert site.run(site.opened.store.audit()) == []
    with pytest.raises(SchemaError, match=f"is version {NOW + 3}, this Windlass knows up to {NOW}: upgrade Windlass"):
        site.run(site.opened.store.migrate())
