"""A small shop, and its jobs on each store that a test may use."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from windlass import Backoff, Context, Windlass, provided
from windlass.testing import Jobs, engine

URLS = {"memory": "memory://", "sqlite": "sqlite:///{}/jobs.db", "stdlib": "sqlite+stdlib:///{}/jobs.db"}
NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


class Mailer:
    """A resource of the shop's start hook."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, to: str) -> None:
        self.sent.append(to)


class Shop:
    """An application whose own store must never be opened, and what its handlers did."""

    def __init__(self) -> None:
        self.app = Windlass("sqlite:////nowhere/shop.db")
        self.did: list[Any] = []
        self.mailer = Mailer()
        app = self.app

        @app.on_worker_start
        def mailer() -> Iterator[Mailer]:
            self.did.append("start")
            yield self.mailer
            self.did.append("stop")

        @app.task(name="charge", max_attempts=3, backoff=Backoff(base="1m", jitter=0.0))
        def charge(ctx: Context, card: str, cents: int = 100) -> str:
            self.did.append(("charge", ctx.attempt))
            return f"{card}:{cents}"

        @app.task(name="mail", queue="mail")
        async def mail(to: str, mailer: Mailer = provided()) -> None:
            mailer.send(to)

        @app.task(name="resize", executor="process")
        def resize(path: str) -> str:
            self.did.append(("resize", path))
            return path.upper()

        @app.task(name="order")
        def order(ctx: Context, number: int) -> None:
            self.did.append(("order", number))
            ctx.enqueue(charge, "4242", cents=number)
            mail.enqueue("ada")

        self.charge, self.mail, self.resize, self.order = charge, mail, resize, order


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return URLS[request.param].format(tmp_path)


@pytest.fixture
def jobs(shop: Shop, url: str) -> Iterator[Jobs]:
    with engine(shop.app, url=url, now=NOON) as found:
        yield found
