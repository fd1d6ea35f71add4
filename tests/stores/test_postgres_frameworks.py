"""Enqueueing in the transactions of those who bring their own: asyncpg, SQLAlchemy and Django."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.stores.postgres_server import PLACES, database
from windlass import IdempotencyConflict, Unique, Windlass
from windlass.core.errors import StoreError, StoreTimeout


@pytest.fixture
def app(tmp_path: Any) -> Iterator[Windlass]:
    app = Windlass(PLACES.url(tmp_path), enqueue_timeout=1.0)
    app.client.stats()
    with psycopg.connect(database()) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY)")
        connection.execute("DELETE FROM orders")
    yield app
    app.close()
    PLACES.recycle()


def seen(app: Windlass) -> tuple[int, int]:
    with psycopg.connect(database()) as connection:
        (orders,) = connection.execute("SELECT count(*) FROM orders").fetchone()
    return orders, len(app.client.search().jobs)


def test_asyncpg(app: Windlass) -> None:
    import asyncpg

    async def scenario() -> None:
        connection = await asyncpg.connect(database())
        async with connection.transaction():
            await connection.execute("INSERT INTO orders VALUES (1)")
            with app.transaction(connection):
                await app.aenqueue("pay", [1], idempotency_key="k")
                await app.aenqueue("pay", [2], unique=Unique(policy="keep-last"), expires="1h")
                with pytest.raises(IdempotencyConflict):
                    await app.aenqueue("pay", [3], idempotency_key="k")
                with pytest.raises(StoreError, match="aenqueue"):
                    app.enqueue("pay", [1])
            assert seen(app) == (0, 0)
        assert seen(app) == (1, 2)
        transaction = connection.transaction()
        await transaction.start()
        with app.transaction(connection):
            await app.aenqueue("pay", [4])
        await transaction.rollback()
        with app.transaction(connection):
            await app.aenqueue("pay", [5])  # a transaction of its own
        assert seen(app) == (1, 3)
        other = await asyncpg.connect(database())
        async with connection.transaction():
            with app.transaction(connection):
                await app.aenqueue("pay", [6], idempotency_key="late")
            async with other.transaction():
                with app.transaction(other), pytest.raises(StoreTimeout):
                    await app.aenqueue("pay", [6], idempotency_key="late")
        await other.close()
        await connection.close()

    asyncio.run(scenario())
    assert seen(app) == (1, 4)
    assert app.engine.run(app.opened.store.audit()) == []


def test_a_pool_of_asyncpg(app: Windlass) -> None:
    """What a pool lends is a connection too."""
    import asyncpg

    async def scenario() -> None:
        async with asyncpg.create_pool(database(), min_size=1) as pool, pool.acquire() as connection:
            with app.transaction(connection):
                await app.aenqueue("pay", [1])

    asyncio.run(scenario())
    assert seen(app) == (0, 1)


def test_a_session_of_sqlalchemy(app: Windlass) -> None:
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import Session

    engine = create_engine(database().replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session:
        with app.transaction(session):
            app.enqueue("pay", [1])
        session.execute(text("INSERT INTO orders VALUES (1)"))
        assert seen(app) == (0, 0)
        session.commit()
        assert seen(app) == (1, 1)
        session.execute(text("INSERT INTO orders VALUES (2)"))
        with app.transaction(session):
            app.enqueue("pay", [2])
        session.rollback()
    with engine.begin() as connection, app.transaction(connection):
        app.enqueue("pay", [3])
    with engine.connect() as connection:
        with app.transaction(connection):
            app.enqueue("pay", [4])
        connection.commit()
    engine.dispose()
    assert seen(app) == (1, 3)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_async_session_of_sqlalchemy(app: Windlass, driver: str) -> None:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    async def scenario() -> None:
        engine = create_async_engine(database().replace("postgresql://", f"postgresql+{driver}://"))
        async with AsyncSession(engine) as session:
            await session.execute(text("INSERT INTO orders VALUES (1)"))
            with app.transaction(session):
                await app.aenqueue("pay", [1])
            assert seen(app) == (0, 0)
            await session.commit()
            await session.execute(text("INSERT INTO orders VALUES (2)"))
            with app.transaction(session):
                await app.aenqueue("pay", [2])
            await session.rollback()
        async with engine.begin() as connection:
            with app.transaction(connection):
                await app.aenqueue("pay", [3])
        await engine.dispose()

    asyncio.run(scenario())
    assert seen(app) == (1, 2)


def test_djangos_connection(app: Windlass) -> None:
    import django
    from django.conf import settings

    info = psycopg.conninfo.conninfo_to_dict(database())
    if not settings.configured:
        names = {"HOST": "host", "PORT": "port", "USER": "user", "NAME": "dbname"}
        default = {name: info.get(field, "") for name, field in names.items()}
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **default}}, USE_TZ=True)
        django.setup()
    from django.db import connection, transaction

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO orders VALUES (1)")
        with app.transaction(connection):
            app.enqueue("pay", [1])
        assert seen(app) == (0, 0)
    assert seen(app) == (1, 1)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        with app.transaction(connection):
            app.enqueue("pay", [2])
        raise ZeroDivisionError
    with app.transaction(connection):
        app.enqueue("pay", [3])  # Django's autocommit
    connection.close()
    assert seen(app) == (1, 2)
