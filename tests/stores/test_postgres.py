"""The PostgreSQL store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.stores.postgres_server import PLACES, database
from windlass import stores
from windlass.ports.plan import Plan, Statement, Steps
from windlass.ports.store import Opened
from windlass.testing import ManualClock
from windlass.testing.conformance import Suite


class TestPostgres(Suite):
    @pytest.fixture(autouse=True)
    def places(self) -> Iterator[None]:
        yield
        PLACES.recycle()

    @staticmethod
    def open(path: Path, clock: ManualClock) -> Opened:
        return stores.open(PLACES.url(path), clock=clock)

    @staticmethod
    def make_newer(opened: Opened) -> None:
        def steps() -> Steps[None]:
            yield Statement("schema_applied", (999, 0))

        opened.shell.run(Plan(steps, "newer", write=True))

    @staticmethod
    @contextmanager
    def hold_up(opened: Opened) -> Iterator[None]:
        with psycopg.connect(database()) as connection:
            connection.execute(f"LOCK TABLE {opened.store.schema}.jobs")
            yield
