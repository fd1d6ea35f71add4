"""Enqueueing inside the caller's own transaction."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.public.by_hand import Hand
from tests.public.conftest import URLS, Make
from windlass import IdempotencyConflict, Task, Windlass
from windlass.core.errors import CapabilityMissing


@pytest.fixture
def shop(make: Make) -> Windlass:
    return make(URLS["stdlib"])


@pytest.fixture
def pay(shop: Windlass) -> Task[[int], None]:
    @shop.task(name="pay")
    def pay(order: int) -> None: ...

    return pay


@pytest.fixture
def conn(shop: Windlass, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    shop.client.stats()  # makes the file and the schema
    connection = sqlite3.connect(tmp_path / "jobs.db", timeout=1)
    connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    yield connection
    connection.close()


def stored(app: Windlass) -> list[str]:
    return sorted(job.payload for job in app.client.search().jobs)


def orders(tmp_path: Path) -> int:
    reader = sqlite3.connect(tmp_path / "jobs.db")
    (count,) = reader.execute("SELECT count(*) FROM orders").fetchone()
    reader.close()
    return int(count)


def test_jobs_are_committed_with_the_callers_writes(shop: Windlass, pay: Any, conn: Any, tmp_path: Path) -> None:
    with conn:
        conn.execute("INSERT INTO orders VALUES (1)")
        with shop.transaction(conn):
            job = pay.enqueue(1)
            pay.enqueue_many([(2,), (3,)])
            shop.enqueue("elsewhere", [4])
            asyncio.run(pay.aenqueue(5))
            asyncio.run(pay.aenqueue_many([(6,)]))
        assert stored(shop) == [] and orders(tmp_path) == 0  # another connection sees nothing yet
    assert stored(shop) == [f"[[{n}],{{}}]" for n in range(1, 7)] and orders(tmp_path) == 1
    assert job.refresh().task == "pay"
    assert Hand(shop).work()


def test_jobs_are_rolled_back_with_the_callers_writes(shop: Windlass, pay: Any, conn: Any, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), conn:
        conn.execute("INSERT INTO orders VALUES (1)")
        with shop.transaction(conn):
            pay.enqueue(1)
            raise ZeroDivisionError
    assert stored(shop) == [] and orders(tmp_path) == 0
    with shop.transaction(conn):
        pay.enqueue(2)
        conn.rollback()
        pay.enqueue(3)
        conn.commit()
    assert stored(shop) == ["[[3],{}]"]


def test_a_refused_job_undoes_itself_only(shop: Windlass, pay: Any, conn: Any, tmp_path: Path) -> None:
    pay.using(idempotency_key="k").enqueue(0)
    with conn, shop.transaction(conn):
        conn.execute("INSERT INTO orders VALUES (1)")
        pay.enqueue(1)
        with pytest.raises(IdempotencyConflict):
            pay.using(idempotency_key="k").enqueue_many([(7,), (8,)])
        assert not pay.using(idempotency_key="k").enqueue(0).created
        pay.enqueue(2)
    assert stored(shop) == ["[[0],{}]", "[[1],{}]", "[[2],{}]"] and orders(tmp_path) == 1


def test_the_block_neither_commits_nor_reaches_beyond_itself(shop: Windlass, pay: Any, conn: Any) -> None:
    with shop.transaction(conn):
        pay.enqueue(1)
    assert conn.in_transaction and stored(shop) == []
    conn.commit()
    pay.enqueue(2)
    assert not conn.in_transaction and len(stored(shop)) == 2


def test_what_outlives_the_block_is_enqueued_for_itself(shop: Windlass, pay: Any, conn: Any) -> None:
    """A task that was started in the block has a copy of its context variables for ever."""

    async def main() -> None:
        ended = asyncio.Event()

        async def later() -> None:
            await ended.wait()
            await pay.aenqueue(2)

        with conn, shop.transaction(conn):
            await pay.aenqueue(1)
            waiting = asyncio.create_task(later())
            await asyncio.sleep(0)
        ended.set()
        await waiting

    asyncio.run(main())
    assert not conn.in_transaction and stored(shop) == ["[[1],{}]", "[[2],{}]"]


def test_another_application_in_the_block_keeps_its_own_store(shop: Windlass, pay: Any, conn: Any, make: Make) -> None:
    other = make("memory://")
    other.task(name="t")(lambda: None)
    with shop.transaction(conn):
        job = other.enqueue("t")
        pay.enqueue(1)
    conn.rollback()
    assert job.state() == "queued" and stored(shop) == []


def test_blocks_may_be_nested(shop: Windlass, pay: Any, conn: Any, make: Make, tmp_path: Path) -> None:
    second = sqlite3.connect(tmp_path / "jobs.db", timeout=1)
    with shop.transaction(conn):
        with shop.transaction(conn):
            pay.enqueue(1)
        pay.enqueue(2)
        conn.commit()
        with second, shop.transaction(second):
            pay.enqueue(3)
        pay.enqueue(4)
    conn.rollback()
    second.close()
    assert stored(shop) == ["[[1],{}]", "[[2],{}]", "[[3],{}]"]


def test_workers_are_told_after_a_commit_inside_the_block(shop: Windlass, pay: Any, conn: Any, monkeypatch: Any) -> None:
    hints: list[bool] = []
    monkeypatch.setattr(shop.opened.shell, "hint", lambda: hints.append(conn.in_transaction))
    with shop.transaction(conn):
        pay.enqueue(1)
        conn.commit()
    assert hints == [False]
    with shop.transaction(conn):
        pay.enqueue(1)
    assert hints == [False]  # not committed yet: a hint now would find nothing
    conn.rollback()


def test_what_cannot_be_joined_is_refused_with_the_capability(make: Make, shop: Windlass, tmp_path: Path) -> None:
    shop.client.stats()
    elsewhere = sqlite3.connect(tmp_path / "other.db")
    elsewhere.execute("CREATE TABLE t (x)")
    here = sqlite3.connect(tmp_path / "jobs.db")
    for app, connection in [
        (shop, elsewhere), (shop, object()), (make("memory://"), here), (make(f"sqlite:///{tmp_path}/own.db"), here),
    ]:  # fmt: skip
        with pytest.raises(CapabilityMissing, match="^caller_transaction"), app.transaction(connection):
            raise AssertionError
    elsewhere.close()
    here.close()
    shop.task(name="t")(lambda: None)
    assert shop.enqueue("t").state() == "queued"  # a refused block leaves nothing behind
