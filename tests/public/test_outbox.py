"""`app.outbox(conn)`: what commits in the application's database runs on another store, once."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from windlass import Windlass
from windlass.core.errors import CapabilityMissing, ConfigError, JobNotFound, StoreUnavailable
from windlass.core.flow import Bounds
from windlass.core.job import NewJob
from windlass.ports.envelope import TASK, envelopes
from windlass.ports.store import Filter, PruneRules, QueueChange, Selection
from windlass.runtime.relay import Relay
from windlass.stores import open as open_store


class Site:
    """An application with a database of its own, whose jobs run elsewhere."""

    def __init__(self, path: Path) -> None:
        self.path = path / "app.db"
        self.outbox = f"sqlite+stdlib:///{self.path}"
        self.app = Windlass(f"sqlite:///{path}/jobs.db", outbox=self.outbox)
        self.ran: list[Any] = []
        site = self

        @self.app.task(name="note")
        async def note(what: Any) -> Any:
            site.ran.append(what)
            return what

        self.note = note
        self.connection = sqlite3.connect(self.path)
        self.connection.execute("CREATE TABLE orders (id)")
        self.connection.commit()

    def relay(self) -> Relay:
        """One that is turned by hand."""
        return Relay(self.app.opened, self.app.engine.open_outbox, "me")

    def deliver(self, relay: Relay | None = None) -> None:
        """Until nothing is left."""
        found = relay or self.relay()
        while found.tick() == 0.0:
            pass
        if relay is None:
            found.stop()

    def jobs(self) -> list[str]:
        """What waits in the store."""
        return sorted(job.payload for job in self.app.client.search().jobs)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.connection.close()
    site.app.close()


def test_it_comes_with_the_commit_and_goes_with_the_rollback(site: Site) -> None:
    """I7: the rows and the jobs, or neither."""
    relay = site.relay()
    with site.app.outbox(site.connection):
        site.connection.execute("INSERT INTO orders VALUES (1)")
        kept = site.note.enqueue(1)
        site.note.enqueue_many([(2,), (3,)])
    assert site.jobs() == []
    site.connection.commit()
    site.deliver(relay)
    with site.app.outbox(site.connection):
        site.connection.execute("INSERT INTO orders VALUES (2)")
        site.note.enqueue(4)
    site.connection.rollback()
    site.deliver(relay)
    relay.stop()
    assert site.jobs() == ["[[1],{}]", "[[2],{}]", "[[3],{}]"]
    assert site.connection.execute("SELECT id FROM orders").fetchall() == [(1,)]
    assert kept.state() == "queued"


def test_a_worker_hands_it_on(site: Site) -> None:
    """Embedded, as a supervisor does; all options of the job come along."""
    with site.app.outbox(site.connection):
        job = site.note.using(queue="q", priority=90, tags=["t"]).enqueue("soon")
        later = site.note.using(delay="1h").enqueue("later")
    site.connection.commit()
    embedded = site.app.run_embedded(queues="default,q")
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                assert job.result(timeout=20) == "soon"
                break
            except JobNotFound:  # it lies in the outbox yet
                assert time.monotonic() < deadline
                time.sleep(0.01)
        while later.id not in {each.id for each in site.app.client.search().jobs}:
            assert time.monotonic() < deadline
    finally:
        embedded.stop(10)
    assert site.ran == ["soon"]
    assert later.state() == "scheduled"
    found = site.app.client.fetch(job.id)
    assert (found.queue, found.priority, '"t"' in found.meta) == ("q", 90, True)


def test_from_an_event_loop(site: Site) -> None:
    async def enqueue() -> str:
        with site.app.outbox(site.connection):
            return (await site.note.aenqueue(1)).id

    id = asyncio.run(enqueue())
    site.connection.commit()
    site.deliver()
    assert site.app.job(id).state() == "queued"


def test_keys_are_the_stores(site: Site) -> None:
    """Not the outbox's, which would keep them for ever: the same key goes again when its job has ended."""
    keyed = site.note.using(idempotency_key="k")
    with site.app.outbox(site.connection):
        first, second = keyed.enqueue(1), keyed.enqueue(1)
    site.connection.commit()
    site.deliver()
    assert site.jobs() == ["[[1],{}]"]
    assert {first.id, second.id} != {first.id}, "nobody could know yet"
    outbox = open_store(site.outbox)
    with closing(outbox):
        assert outbox.shell.run(outbox.store.standing(None, 10)).keys == ()


def test_a_queue_that_is_full_takes_it(site: Site) -> None:
    """It was promised when it was committed."""
    site.app.engine.run(site.app.opened.store.queues([QueueChange("default", bounds=Bounds(depth=1))]))
    with site.app.outbox(site.connection):
        site.note.enqueue_many([(n,) for n in range(3)])
    site.connection.commit()
    site.deliver()
    assert len(site.jobs()) == 3


@pytest.mark.parametrize("at", range(1, 9))
def test_a_relay_may_die_anywhere(site: Site, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """I1, I2: killed at any of its calls, the next one goes on: none is lost, none comes twice, though the jobs have
    ended and are forgotten meanwhile."""
    with site.app.outbox(site.connection):
        for n in range(3):
            site.note.enqueue(n)
    site.connection.commit()
    calls = 0

    class Died(BaseException):
        pass

    def dying(shell: Any) -> None:
        run = shell.run

        def once(plan: Any, timeout: float | None = None) -> Any:
            nonlocal calls
            answer = run(plan, timeout)
            calls += 1
            if calls == at:
                raise Died
            return answer

        monkeypatch.setattr(shell, "run", once)

    target, outbox = open_store(site.app.settings.url), open_store(site.outbox)
    target.shell.run(target.store.migrate())
    for opened in (target, outbox):
        dying(opened.shell)
    relay = Relay(target, lambda: outbox, "first")
    try:
        while relay.tick() == 0.0:
            pass
    except Died:
        pass
    for opened in (target, outbox):
        opened.close()
    store = site.app.opened.store
    came = site.app.engine.run(store.cancel(Selection(filter=Filter())))
    site.app.engine.run(store.prune(PruneRules(cancelled=0), 100))
    site.app.engine.run(store.resign("relay", "first"))
    site.deliver()
    assert len(came.changed) + len(site.jobs()) == 3


def test_what_is_no_envelope_stays(site: Site) -> None:
    """Somebody enqueued to the outbox itself: it is nobody's to run here, and keeps nothing else."""
    outbox = open_store(site.outbox)
    with closing(outbox):
        outbox.shell.run(outbox.store.migrate())
        stray = NewJob(id="stray", task="other", payload="[[],{}]")
        broken = NewJob(id="broken", task=TASK, queue=TASK, payload='{"id":1}')
        good = envelopes([NewJob(id="good", task="note", payload="[[1],{}]")])
        outbox.shell.run(outbox.store.enqueue([stray, broken, *good]))
        relay = site.relay()
        for _ in range(5):
            relay.tick()
        relay.stop()
        assert site.jobs() == ["[[1],{}]"]
        found = outbox.shell.run(outbox.store.fetch(["stray", "broken", "good"]))
        assert [job and job.id for job in found] == ["stray", "broken", None]


def test_one_relay_at_a_time(site: Site) -> None:
    """The other waits until the first has gone."""
    first, second = site.relay(), Relay(site.app.opened, site.app.engine.open_outbox, "you")
    assert first.tick() < 1.0 < second.tick()
    first.stop()
    assert second.tick() < 1.0
    second.stop()


def test_an_outbox_that_is_away_keeps_nobody_waiting(site: Site) -> None:
    """Jobs that are enqueued to the store itself run meanwhile."""
    away = threading.Event()

    def open_outbox() -> Any:
        away.wait(20)
        raise StoreUnavailable("it is away")

    site.app.engine.open_outbox = open_outbox  # type: ignore[method-assign]
    embedded = site.app.run_embedded()
    try:
        assert site.note.enqueue(1).result(timeout=10) == 1
    finally:
        away.set()
        embedded.stop(10)


def test_without_an_outbox_it_says_how(tmp_path: Path) -> None:
    with closing(Windlass(f"sqlite:///{tmp_path}/jobs.db")) as app, pytest.raises(ConfigError, match="WINDLASS_OUTBOX"):
        app.outbox(object())


def test_a_connection_to_something_else(site: Site, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other, pytest.raises(CapabilityMissing):
        site.app.outbox(other).__enter__()


@pytest.mark.parametrize("url", ["redis://host/0", "memory://", "mysql://host/db", "no url"])
def test_an_outbox_is_in_a_database(url: str) -> None:
    with pytest.raises(ConfigError, match="outbox"):
        Windlass("sqlite:///jobs.db", outbox=url)


