"""Enqueueing in the transactions of those who bring their own: SQLAlchemy and Django, over psycopg."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.stores.postgres_server import PLACES, database
from windlass import Windlass


@pytest.fixture
def app(tmp_path: Any) -> Iterator[Windlass]:
    app = Windlass(PLACES.url(tmp_path))
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


def test_an_async_session_of_sqlalchemy(app: Windlass) -> None:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    async def scenario() -> None:
        engine = create_async_engine(database().replace("postgresql://", "postgresql+psycopg://"))
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
