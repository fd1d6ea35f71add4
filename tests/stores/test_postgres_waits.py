"""Who waits for whom: nobody who works for a transaction of an application's, however long that takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from tests.stores.postgres_server import PLACES, database
from windlass import Windlass, stores
from windlass.core.errors import StoreError
from windlass.core.job import Held, Meta, NewJob, Progress, State, Succeeded, UniqueKey
from windlass.core.machine import complete
from windlass.ports.plan import Plan, Steps
from windlass.ports.store import Death, Enqueued, Filter, Opened, PruneRules, Selection
from windlass.stores.postgres import caller_shell
from windlass.task import new_ids
from windlass.testing import ManualClock
from windlass.testing.conformance.world import DAY, SECOND, World, report

SOON = 1.0
"""Seconds within which what is not waited for is done, on a busy machine."""


class Site(World):
    """A store, and an application with a transaction of its own."""

    def __init__(self, path: Path) -> None:
        clock = ManualClock(20_000 * DAY)
        super().__init__(lambda place, clock: stores.open(PLACES.url(place), clock=clock), path, clock, "sync")
        self.run(self.store.migrate())
        self.beat("w1")

    @contextmanager
    def transaction(self, *jobs: NewJob) -> Iterator[tuple[psycopg.Connection[Any], list[Enqueued]]]:
        """In which these are enqueued; rolled back unless it is committed."""
        mine = stores.open(PLACES.url(self._path), clock=self.clock)
        with psycopg.connect(database()) as connection:
            yield connection, mine.own(connection).run(mine.store.enqueue(jobs))
            connection.rollback()
        mine.close()

    def unique(self, policy: str = "keep-last", **given: Any) -> NewJob:
        return self.job(meta=meta(policy), **given)

    def owner(self) -> Held:
        """A job that runs, and has the key."""
        return self.running(meta=meta())

    def tend(self) -> None:
        for chore in self.store.chores(PruneRules()):
            self.run(chore)

    @contextmanager
    def soon(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        assert time.monotonic() - began < SOON


def meta(policy: str = "keep-last", parent: str = "") -> str:
    unique = None if parent else UniqueKey("u", policy, window=10 * SECOND)
    return msgspec.json.encode(Meta(unique=unique, parent_id=parent)).decode()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.tend()
    assert found.run(found.store.audit()) == []
    found.close()
    PLACES.recycle()


@pytest.mark.parametrize("committed", [True, False])
def test_a_job_ends_whoever_has_its_key_in_hand(site: Site, committed: bool) -> None:
    """I8, I10: its end waits for nobody; the key goes to whoever is next, as soon as it is known who that is."""
    owner, other = site.owner(), site.running()
    after = site.unique()
    with site.transaction(after) as (connection, answers):
        assert answers == [Enqueued(after.id, inserted=True)]
        with site.soon():
            moves = [complete(each.token, "1", 10**12) for each in (owner, other)]
            assert site.run(site.store.settle("w1", moves)) == ["applied", "applied"]
        with site.soon():
            site.claim()
        site.tend()
        if committed:
            connection.commit()
    site.tend()
    if committed:
        assert site.fetch(after.id).state is State.QUEUED
        assert [job.id for job in site.claim().jobs] == [after.id]
    else:
        fresh = site.unique()
        assert site.enqueue(fresh) == [Enqueued(fresh.id, inserted=True)]
        assert site.fetch(fresh.id).state is State.QUEUED


def test_the_dead_are_taken_over_whoever_has_a_key_in_hand(site: Site) -> None:
    """I8."""
    site.owner()
    with site.transaction(site.unique()), site.soon():
        (reaped,) = site.run(site.store.reap([Death(worker="w1", observed=True)]))
    assert reaped.taken and reaped.jobs == 1


def test_who_is_told_that_a_key_is_taken_keeps_nobody(site: Site) -> None:
    """Also in a transaction that goes on."""
    owner = site.owner()
    with site.transaction(site.unique("reject")) as (_, answers):
        assert answers == [Enqueued(owner.id, inserted=False, refused=True)]
        with site.soon():
            assert site.end(owner, Succeeded("1")) == "applied"
        fresh = site.unique()
        with site.soon():
            assert site.enqueue(fresh) == [Enqueued(fresh.id, inserted=True)]


def test_an_operator_who_comes_upon_a_key_in_hand_keeps_nobody(site: Site) -> None:
    """He is told so in the end; but whoever works meanwhile waits for him for no more than an instant."""
    waiting, free = site.put(meta=meta()), site.put()
    other = site.another()
    failures: list[StoreError] = []

    def cancel() -> None:
        try:
            other.shell.run(other.store.cancel(Selection((waiting,))), 2.0)
        except StoreError as problem:
            failures.append(problem)

    with site.transaction(site.unique("replace")):
        operator = threading.Thread(target=cancel)
        operator.start()
        while operator.is_alive():
            with site.soon():
                site.claim(limit=0)
            threading.Event().wait(0.05)
        assert len(failures) == 1
    assert site.run(site.store.cancel(Selection((waiting, free)))).changed == (waiting, free)


def test_prune_waits_for_no_key_in_hand(site: Site) -> None:
    """A throttle's window that is over, taken again in a transaction: whoever prunes leaves it."""
    throttled = site.running(meta=meta("throttle"))
    site.end(throttled, Succeeded("1"))
    keyed = site.running(idempotency_key="k", digest="d")
    site.end(keyed, Succeeded("1"))
    site.clock.advance("8d")
    with site.transaction(site.unique("throttle"), site.job(idempotency_key="k", digest="e")) as (connection, answers):
        assert all(answer.inserted for answer in answers)
        with site.soon():
            site.run(site.store.prune(PruneRules(), 100))
        connection.commit()
    site.run(site.store.prune(PruneRules(), 100))
    assert site.run(site.store.fetch([throttled.id, keyed.id])) == [None, None]
    assert [answer.id for answer in site.enqueue(site.job(idempotency_key="k", digest="e"))] == [answers[1].id]


@pytest.mark.parametrize("policy", ["keep-last", "return-existing", "replace"])
@pytest.mark.parametrize("child", [False, True])
def test_ends_and_enqueues_of_one_key_do_not_meet_in_a_circle(site: Site, policy: str, child: bool) -> None:
    """No deadlock, which would cost a second; each job that was stored has ended in the end."""
    over, problems, ended = threading.Event(), [], [0]
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    with psycopg.connect(database(), autocommit=True) as watcher:
        before = watcher.execute(deadlocks).fetchone()
        opened = [site.another() for _ in range(3)]

        def enqueuing(mine: Opened) -> None:
            while not over.is_set():
                mine.shell.run(mine.store.enqueue([NewJob(id=new_ids(1)[0], task="t", payload="[[],{}]", meta=meta(policy))]))

        def working(mine: Opened) -> None:
            while ended[0] < 40:
                held = site.run_on(mine, mine.store.claim("w1", site.next_seq("w1"), _request())).jobs
                made = [NewJob(id=new_ids(1)[0], task="t", payload="[[],{}]", meta=meta(policy)) for _ in held if child]
                moves = [complete(each.token, "1", 10**12, tuple(made[:1])) for each in held]
                assert set(mine.shell.run(mine.store.settle("w1", moves))) <= {"applied"}
                ended[0] += len(held)

        def guarded(work: Any, mine: Opened) -> None:
            try:
                work(mine)
            except BaseException as problem:
                problems.append(problem)
            finally:
                if work is working:
                    over.set()

        threads = [threading.Thread(target=guarded, args=each) for each in zip((working, enqueuing, enqueuing), opened, strict=True)]
        for thread in threads:
            thread.start()
        while not over.wait(0.1):
            site.tend()
        for thread in threads:
            thread.join()
        assert not problems, problems
        assert watcher.execute(deadlocks).fetchone() == before


def _request() -> Any:
    from windlass.ports.store import ClaimRequest, Quota

    return ClaimRequest(5, (Quota("default", 5),))


def test_a_child_that_is_on_its_way_is_cancelled_with_its_family(site: Site) -> None:
    """I13: stored in a transaction that ends while its family is cancelled, it is waited for."""
    parent = site.running()
    child, late = site.job(meta=meta(parent=parent.id)), site.job(meta=meta(parent=parent.id))
    app = Windlass(PLACES.url(site._path))
    with site.transaction(child) as (connection, _):
        told: list[Any] = []
        canceller = threading.Thread(target=lambda: told.append(app.client.cancel(parent.id, children=True)))
        canceller.start()
        while not any(each.cancel for each in site.run(site.store.beat([report("w1")]))):
            threading.Event().wait(0.02)
        assert site.enqueue(late)[0].inserted
        connection.commit()
        canceller.join()
    app.close()
    assert [site.fetch(id).state for id in (child.id, late.id)] == [State.CANCELLED] * 2
    assert told[0].changed == (child.id,)


def test_last_words_go_with_their_job(site: Site) -> None:
    """What moves a job to another part does not come between the looking up of its number and the writing."""
    held = site.running()
    site.end(held, Succeeded("1"))
    seen: list[str] = []
    plan = site.store.report([(held.token, Progress(1, 2))], [])

    def noted() -> Steps[Any]:
        steps, rows = iter(plan), None
        try:
            while True:
                statement = steps.send(rows)
                seen.append(statement.name)
                rows = yield statement
        except StopIteration as end:
            return end.value

    assert site.run(Plan(noted, "report", write=True)) == []
    assert seen[0] == "moves_share"


def test_a_cancelled_child_that_is_sent_twice_at_once_is_stored_once(site: Site) -> None:
    parent = site.running()
    site.run(site.store.cancel(Selection((parent.id,), children=True)))
    child = site.job(meta=meta(parent=parent.id))
    with site.transaction(child) as (connection, _):
        again = threading.Thread(target=lambda: site.enqueue(child))
        again.start()
        threading.Event().wait(0.2)
        connection.commit()
        again.join()
    assert site.fetch(child.id).state is State.CANCELLED


def test_a_rare_state_is_found_whatever_else_there_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slice by slice from where such jobs lie, in their order, from any place on."""
    monkeypatch.setattr("windlass.stores.postgres.store.LOOK", 7)
    ids: dict[State, list[str]] = {State.QUEUED: [], State.SCHEDULED: [], State.CANCELLED: []}
    for n in range(30):
        ids[State.QUEUED].append(site.put(queue="a" if n % 3 else "b"))
        ids[State.SCHEDULED].append(site.put(after=DAY))
        ids[State.CANCELLED].append(site.put(task="x" if n % 5 else "y"))
    site.run(site.store.cancel(Selection(tuple(ids[State.CANCELLED]))))
    find = lambda limit, after=None, **given: site.run(site.store.search(Filter(**given), limit, after))
    for state, known in ids.items():
        assert [job.id for job in find(100, states=(state,)).jobs] == known[::-1]
        page = find(10, states=(state,))
        assert [job.id for job in find(100, page.next, states=(state,)).jobs] == known[::-1][10:]
    assert [job.id for job in find(3, states=(State.QUEUED,), queue="b").jobs] == ids[State.QUEUED][27::-3][:3]
    both = sorted((*ids[State.QUEUED], *ids[State.CANCELLED]), reverse=True)
    assert [job.id for job in find(100, states=(State.QUEUED, State.CANCELLED)).jobs] == both
    assert len(find(100, states=(State.CANCELLED,), task="y").jobs) == 6
    assert find(5, states=(State.DEAD,)).jobs == []


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE_READ", "READ_COMMITTED"])
def test_a_transaction_begins_as_its_owner_said(site: Site, level: str) -> None:
    mine = stores.open(PLACES.url(site._path), clock=site.clock)
    with psycopg.connect(database()) as connection:
        connection.isolation_level = psycopg.IsolationLevel[level]
        assert mine.own(connection).run(mine.store.enqueue([site.job()]))[0].inserted
        (said,) = connection.execute("SELECT current_setting('transaction_isolation')").fetchone()
        assert said == level.replace("_", " ").lower()
        connection.commit()
        connection.read_only = True
        with pytest.raises(StoreError):
            mine.own(connection).run(mine.store.enqueue([site.job()]))
    mine.close()


def test_a_snapshot_that_is_too_old_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that has moved to another part since would be stored a second time."""
    monkeypatch.setattr(caller_shell, "SNAPSHOT_MOST", -1)
    mine = stores.open(PLACES.url(site._path), clock=site.clock)
    with psycopg.connect(database()) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(StoreError, match="must be younger"):
            mine.own(connection).run(mine.store.enqueue([site.job()]))
        connection.rollback()
        connection.isolation_level = None
        assert mine.own(connection).run(mine.store.enqueue([site.job()]))[0].inserted
        connection.commit()
    mine.close()
