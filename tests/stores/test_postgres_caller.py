"""Enqueueing on the caller's own psycopg connection, and completing a job together with its writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.stores.postgres_server import PLACES, database
from windlass import Backoff, Context, IdempotencyConflict, Unique, Windlass
from windlass.core.errors import CapabilityMissing, StoreError, StoreTimeout, StoreUnavailable
from windlass.core.job import NewJob
from windlass.ports.store import Enqueued
from windlass.testing.conformance.world import report

WAITS_FOR = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"


@pytest.fixture
def app(tmp_path: Any) -> Iterator[Windlass]:
    app = Windlass(PLACES.url(tmp_path), enqueue_timeout=2.0)
    app.client.stats()
    with psycopg.connect(database()) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY)")
        connection.execute("DELETE FROM orders")
    yield app
    app.close()
    PLACES.recycle()


@pytest.fixture
def conn(app: Windlass) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database()) as connection:
        yield connection
        if not connection.closed:
            connection.rollback()


def seen(app: Windlass) -> tuple[int, int]:
    """What another connection sees: orders, and jobs."""
    with psycopg.connect(database()) as connection:
        (orders,) = connection.execute("SELECT count(*) FROM orders").fetchone()
    assert app.engine.run(app.opened.store.audit()) == []
    return orders, len(app.client.search().jobs)


@pytest.mark.parametrize("autocommit", [False, True])
def test_jobs_are_committed_with_the_callers_writes(app: Windlass, conn: Any, autocommit: bool) -> None:
    conn.autocommit = autocommit
    with conn.transaction():
        conn.execute("INSERT INTO orders VALUES (1)")
        with app.transaction(conn):
            app.enqueue("pay", [1])
            app.enqueue("pay", [2], unique=Unique())
            app.enqueue("pay", [3], idempotency_key="k")
        assert seen(app) == (0, 0)
    assert seen(app) == (1, 3)


def test_jobs_are_rolled_back_with_the_callers_writes(app: Windlass, conn: Any) -> None:
    with app.transaction(conn):
        app.enqueue("pay", [1])
    conn.execute("INSERT INTO orders VALUES (1)")
    conn.rollback()
    assert seen(app) == (0, 0)


def test_the_first_enqueue_begins_the_transaction_that_psycopg_would(app: Windlass, conn: Any) -> None:
    with app.transaction(conn):
        app.enqueue("pay", [1])
    assert conn.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert seen(app) == (0, 0)
    conn.commit()
    assert seen(app) == (0, 1)


def test_in_autocommit_it_is_committed_at_once(app: Windlass, conn: Any) -> None:
    conn.autocommit = True
    with app.transaction(conn):
        app.enqueue("pay", [1])
        assert seen(app) == (0, 1)


def test_a_conflict_undoes_its_own_work_only(app: Windlass, conn: Any) -> None:
    app.enqueue("pay", [1], idempotency_key="k")
    conn.execute("INSERT INTO orders VALUES (1)")
    conn.execute("SET LOCAL lock_timeout = '77s'")
    with app.transaction(conn):
        with pytest.raises(IdempotencyConflict):
            app.enqueue("pay", [2], idempotency_key="k")
        app.enqueue("pay", [3])
    assert conn.execute("SHOW lock_timeout").fetchone() == ("77s",)
    conn.commit()
    assert seen(app) == (1, 2)


def test_a_lock_is_waited_for_no_longer_than_the_deadline(app: Windlass, conn: Any) -> None:
    with app.transaction(conn):
        app.enqueue("pay", [1], idempotency_key="k")
    with psycopg.connect(database()) as other:
        other.execute("INSERT INTO orders VALUES (1)")
        with app.transaction(other), pytest.raises(StoreTimeout):
            app.enqueue("pay", [1], idempotency_key="k")
        conn.commit()
        with app.transaction(other):
            assert app.enqueue("pay", [1], idempotency_key="k")
        other.commit()
    assert seen(app) == (1, 1)


def test_a_job_sent_again_waits_for_its_first_sending(app: Windlass, conn: Any) -> None:
    """I1: as when the server is still at a commit of which nobody heard any more."""
    job, store = NewJob(id=str(uuid4()), task="pay", payload="[[],{}]"), app.opened.store
    first = app.opened.own(conn)
    first.run(store.enqueue([job]))
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(app.engine.run, store.enqueue([job]))
        with psycopg.connect(database(), autocommit=True) as watcher:
            while not watcher.execute(WAITS_FOR, [conn.info.backend_pid]).fetchone():
                assert not second.done()
        conn.commit()
        assert second.result() == [Enqueued(job.id, inserted=True)]
    assert seen(app) == (0, 1)


def test_what_a_serializable_transaction_cannot_know_it_is_told(app: Windlass, conn: Any) -> None:
    """Its snapshot is older than the key that another has taken since: it must begin again, not store a second job."""
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    conn.execute("SELECT 1 FROM orders")
    app.enqueue("pay", [1], idempotency_key="k")
    with app.transaction(conn), pytest.raises(StoreUnavailable, match="begin it again"):
        app.enqueue("pay", [1], idempotency_key="k")
    conn.rollback()
    assert seen(app) == (0, 1)


def test_on_an_event_loop(app: Windlass) -> None:
    async def scenario() -> None:
        async with await psycopg.AsyncConnection.connect(database()) as connection:
            await connection.execute("INSERT INTO orders VALUES (1)")
            with app.transaction(connection):
                await app.aenqueue("pay", [1])
                await asyncio.gather(*(app.aenqueue("pay", [n]) for n in range(5)))
                with pytest.raises(StoreError, match="aenqueue"):
                    app.enqueue("pay", [1])
            assert seen(app) == (0, 0)
            await connection.commit()
            with app.transaction(connection):
                await app.aenqueue("pay", [2])
            await connection.rollback()

    asyncio.run(scenario())
    assert seen(app) == (1, 6)


def test_what_cannot_be_joined(app: Windlass, conn: Any) -> None:
    with pytest.raises(CapabilityMissing, match="object"), app.transaction(object()):
        pass
    with conn.pipeline(), pytest.raises(CapabilityMissing, match="pipeline"), app.transaction(conn):
        pass
    conn.close()
    with pytest.raises(CapabilityMissing, match="closed"), app.transaction(conn):
        pass


# --- ctx.transaction() ------------------------------------------------------------------------------------------------


def test_a_completion_is_committed_with_the_handlers_writes(app: Windlass) -> None:
    @app.task(max_attempts=2, backoff=Backoff(base="1ms"))
    def pay(order: int, fail: bool, ctx: Context) -> str:
        tx = ctx.transaction()
        tx.execute("INSERT INTO orders VALUES (%s)", (order,))
        tx.executemany("INSERT INTO orders VALUES (%s)", [(order + 1,), (order + 2,)])
        app.enqueue("later", [order])
        if fail and ctx.attempt == 1:
            raise ValueError("no")
        return "paid"

    embedded = app.run_embedded()
    try:
        assert pay.enqueue(10, False).result(timeout=10) == "paid"
        assert seen(app) == (3, 2)
        assert pay.enqueue(20, True).result(timeout=10) == "paid"
    finally:
        embedded.stop()
    assert seen(app) == (6, 4)


def test_a_handler_cannot_commit_by_itself(app: Windlass) -> None:
    session = app.opened.shell.session()  # type: ignore[attr-defined]
    session.connection.execute("INSERT INTO orders VALUES (1)")
    session.connection.psycopg.commit()
    with pytest.raises(StoreError, match="ended by somebody else"):
        session.run(app.opened.store.beat([report("w")]))
    session.rollback()
    session = app.opened.shell.session()  # type: ignore[attr-defined]
    session.connection.psycopg.commit()
    session.connection.execute("INSERT INTO orders VALUES (2)")
    with pytest.raises(StoreError, match="ended by somebody else"):
        session.commit()
    assert seen(app)[0] == 1
