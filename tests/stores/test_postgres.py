"""The PostgreSQL store."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.stores.postgres_server import PLACES, database
from windlass import stores
from windlass.core.job import NewJob
from windlass.ports.plan import Plan, Rows, Statement, Steps
from windlass.ports.store import Opened
from windlass.stores.postgres.wire import Wire
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


def test_children_whose_numbers_are_large(tmp_path: Path) -> None:
    """I23: a sequence that has come far is no reason to fail."""
    opened = stores.open(PLACES.url(tmp_path))
    run, store = opened.shell.run, opened.store
    run(store.migrate())
    with psycopg.connect(database()) as connection:
        connection.execute(f"SELECT setval('{store.schema}.jobs_seq', {2**53 - 10})")  # type: ignore[attr-defined]
    family = [NewJob(id=f"child-{n:02}", task="t", payload="[[],{}]", meta='{"parent_id":"p"}') for n in range(20)]
    run(store.enqueue(family))
    page = run(store.children(["p"], 3))
    found = list(page.ids)
    while page.next is not None:
        page = run(store.children(["p"], 3, page.next))
        found += page.ids
    assert found == [job.id for job in family]
    opened.close()
    PLACES.recycle()


def test_parameters_of_libpq_arrive_as_they_were_written(tmp_path: Path) -> None:
    """To libpq a plus is a plus, and a space is `%20`."""
    opened = stores.open(f"{PLACES.url(tmp_path)}&options=-c%20search_path%3Delsewhere&application_name=a+b%20c")

    def steps() -> Steps[object]:
        return (yield Statement("raw", ("SELECT current_setting('search_path'), current_setting('application_name')",)))

    assert opened.shell.run(Plan(steps, "settings", write=False)) == [("elsewhere", "a+b c")]
    opened.close()
    PLACES.recycle()


def test_an_enqueue_goes_to_the_server_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once to ask, once to write; the hint goes by itself, in a thread of its own."""
    opened = stores.open(PLACES.url(tmp_path))
    opened.shell.run(opened.store.migrate())
    ways: Counter[int] = Counter()
    exchange = Wire.exchange

    def counted(wire: Wire, deadline: float) -> Rows:
        ways[threading.get_ident()] += 1
        return exchange(wire, deadline)

    monkeypatch.setattr(Wire, "exchange", counted)
    for number in range(1, 4):
        opened.shell.run(opened.store.enqueue([NewJob(id=f"job-{number}", task="t", payload="[[],{}]")]))
        assert ways[threading.get_ident()] == 2 * number
    assert opened.shell.run(opened.store.stats(exact=True)).states["queued"] == 3
    opened.close()
    PLACES.recycle()
