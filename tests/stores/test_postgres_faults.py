"""What becomes of an operation when the server, the route to it, or another transaction is in the way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.faults.kit import new_job
from tests.stores.postgres_server import PLACES, database
from tests.stores.proxy import Proxy
from windlass import Windlass, stores
from windlass.core.errors import OutcomeUnknown, StoreError, StoreTimeout, StoreUnavailable
from windlass.ports.plan import NOW, Plan, Statement, Steps, chain
from windlass.ports.store import ClaimRequest, Death, Opened, QueueChange, Quota
from windlass.stores import pool
from windlass.stores.postgres import hints
from windlass.testing.conformance.world import report

RAW = "raw"


@pytest.fixture
def url(tmp_path: Any) -> Iterator[str]:
    yield PLACES.url(tmp_path)
    PLACES.recycle()


@pytest.fixture
def opened(url: str) -> Iterator[Opened]:
    opened = stores.open(url)
    opened.shell.run(opened.store.migrate())
    yield opened
    opened.close()


@pytest.fixture
def route(url: str, opened: Opened) -> Iterator[Proxy]:
    proxy = Proxy(url)
    yield proxy
    proxy.close()


@pytest.fixture
def away(route: Proxy) -> Iterator[Opened]:
    """The same store, behind the route."""
    away = stores.open(route.url)
    away.shell.run(away.store.version())
    yield away
    away.close()


def saying(*texts: str, hook: Callable[[], object] = lambda: None) -> Plan[None]:
    def steps() -> Steps[None]:
        hook()
        yield NOW
        for text in texts:
            yield Statement(RAW, (text,))

    return Plan(steps, "saying", write=True)


def saying_what(text: str) -> Plan[Any]:
    def steps() -> Steps[Any]:
        return (yield Statement(RAW, (text,)))

    return Plan(steps, "saying", write=False)


def terminate_others() -> None:
    with psycopg.connect(database(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = %s",
            (connection.info.dbname,),
        )


def count(opened: Opened) -> int:
    return sum(opened.shell.run(opened.store.stats(exact=True)).states.values())


# --- connections ------------------------------------------------------------------------------------------------------


def test_a_connection_that_died_while_idle_bothers_nobody(opened: Opened) -> None:
    for _ in range(5):
        terminate_others()
        assert opened.shell.run(opened.store.enqueue([new_job()]))[0].inserted
    terminate_others()
    assert opened.shell.changed() is not None
    assert count(opened) == 5


def test_a_backend_that_is_terminated_in_the_middle(opened: Opened) -> None:
    """Nothing was committed, so the plan can begin again; but not for ever."""
    runs: list[None] = []

    def steps() -> Steps[None]:
        runs.append(None)
        yield from opened.store.enqueue([job])
        if len(runs) <= dying:
            terminate_others()
        yield Statement(RAW, ("SELECT 1",))

    job, dying = new_job(), 1
    opened.shell.run(Plan(steps, "dies once", write=True))
    assert (len(runs), count(opened)) == (2, 1)
    job, dying = new_job(), 9
    with pytest.raises(StoreUnavailable, match="nothing was applied"):
        opened.shell.run(Plan(steps, "dies always", write=True))
    assert count(opened) == 1


def test_a_server_that_is_not_there(url: str) -> None:
    opened = stores.open("postgresql://127.0.0.1:1/none")
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        opened.shell.run(opened.store.version())
    assert time.monotonic() - began < 2
    listener = opened.shell.listen()  # it goes on trying
    opened.shell.hint()
    listener.close()
    opened.close()


def test_a_database_that_only_reads(opened: Opened) -> None:
    with pytest.raises(StoreUnavailable, match="only reads"):
        opened.shell.run(chain(saying("SET TRANSACTION READ ONLY"), opened.store.enqueue([new_job()])))
    assert opened.shell.run(opened.store.enqueue([new_job()]))[0].inserted


def test_a_forked_child_is_refused(opened: Opened) -> None:
    """I28: and its end does not say goodbye to the server in its parent's name."""
    opened.shell.run(opened.store.enqueue([new_job()]))
    child = os.fork()
    if not child:
        try:
            opened.shell.run(opened.store.stats())
        except StoreError as error:
            os._exit(0 if "forked child" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert opened.shell.run(opened.store.enqueue([new_job()]))[0].inserted


def test_no_more_connections_than_were_said(url: str, opened: Opened) -> None:
    narrow = stores.open(f"{url}&pool=2")
    inside, leave = threading.Barrier(3), threading.Event()

    def wait() -> None:
        inside.wait(10)
        leave.wait(10)

    threads = [threading.Thread(target=narrow.shell.run, args=(saying(hook=wait),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    with pytest.raises(StoreTimeout, match="2 connections"):
        narrow.shell.run(narrow.store.stats(), 0.1)
    leave.set()
    for thread in threads:
        thread.join()
    narrow.shell.run(narrow.store.stats(), 1.0)
    narrow.close()


@pytest.fixture
def preparing(url: str, opened: Opened) -> Iterator[Opened]:
    """The same store with no pooler in between, so that statements are prepared."""
    preparing = stores.open(f"{url}&pooler=session")
    yield preparing
    preparing.close()


def change_the_type_of_versions(opened: Opened, kind: str) -> None:
    """What a prepared statement answers is another type from now on."""
    with psycopg.connect(database(), autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {opened.store.schema}.schema_version ALTER version TYPE {kind}")  # type: ignore[attr-defined]


def forget_what_was_prepared(opened: Opened, _: str) -> None:
    """As a pooler does that has lent the connection to somebody else."""
    opened.shell.run(saying("DEALLOCATE schema_version_0"))


@pytest.mark.parametrize("happens", [change_the_type_of_versions, forget_what_was_prepared])
def test_a_connection_that_remembers_what_is_no_longer_so(preparing: Opened, happens: Any) -> None:
    """It would be refused each time until the deadline, and after it."""
    run, store = preparing.shell.run, preparing.store
    version = run(store.version())
    try:
        happens(preparing, "integer")
        assert run(store.version(), 2.0) == version
    finally:
        happens(preparing, "bigint")
    assert run(store.version(), 2.0) == version


def test_whoever_looks_for_changes_on_such_a_connection_sees_them_again(preparing: Opened) -> None:
    """Else each look would say that there may have been one."""
    preparing.shell.run(preparing.store.enqueue([new_job()]))
    seen = preparing.shell.changed()
    assert preparing.shell.changed() == seen >= 0
    preparing.shell.run(saying("DEALLOCATE changed_0"))
    assert preparing.shell.changed() == -1
    assert preparing.shell.changed() == seen


def test_what_is_refused_on_a_new_connection_too_is_told(opened: Opened) -> None:
    starts: list[None] = []
    failure = "DO $$ BEGIN RAISE EXCEPTION 'not that' USING ERRCODE = '0A000'; END $$"
    with pytest.raises(StoreUnavailable, match="not that; nothing was applied"):
        opened.shell.run(saying(failure, hook=lambda: starts.append(None)))
    assert len(starts) == 2


# --- the route --------------------------------------------------------------------------------------------------------


def test_the_answer_to_a_commit_is_lost(opened: Opened, route: Proxy, away: Opened) -> None:
    """It was applied, nobody was told; sent again it is answered as the first time, and stored once."""
    job = new_job()
    route.mode = "lose"
    with pytest.raises(OutcomeUnknown):
        away.shell.run(away.store.enqueue([job]))
    assert count(opened) == 1
    assert away.shell.run(away.store.enqueue([job]))[0].inserted
    assert count(opened) == 1


def test_a_commit_that_never_arrived(opened: Opened, route: Proxy, away: Opened) -> None:
    job = new_job()
    route.mode = "drop"
    with pytest.raises(OutcomeUnknown):
        away.shell.run(away.store.enqueue([job]))
    assert count(opened) == 0
    assert away.shell.run(away.store.enqueue([job]))[0].inserted
    assert count(opened) == 1


def test_an_application_finds_out_by_itself(opened: Opened, route: Proxy) -> None:
    app = Windlass(route.url)
    for mode in ("lose", "drop"):
        app.client.stats()
        route.mode = mode
        app.enqueue("t", [mode])
    app.close()
    assert count(opened) == 2


def test_a_read_whose_answer_was_lost_is_read_again(route: Proxy, away: Opened) -> None:
    for _ in range(3):
        route.cut()
        assert away.shell.run(away.store.stats()) is not None


def test_a_server_that_falls_silent(opened: Opened, route: Proxy, away: Opened) -> None:
    """I1b: within the deadline, and saying what may have happened."""
    route.mode = "freeze"
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(StoreTimeout):
            away.shell.run(away.store.enqueue([new_job()]), 0.3)
        assert 0.2 < time.monotonic() - began < 0.6
    route.mode = "pass"
    assert away.shell.run(away.store.enqueue([new_job()]))[0].inserted
    assert count(opened) == 1

    def falls_silent() -> Steps[None]:
        yield from away.store.enqueue([new_job()])
        yield Statement(RAW, ("SELECT 1",))
        route.mode = "freeze"

    with pytest.raises(OutcomeUnknown):
        away.shell.run(Plan(falls_silent, "silent", write=True), 0.3)


def test_connections_whose_peers_are_gone_cost_one_answer(route: Proxy, away: Opened, monkeypatch: Any) -> None:
    """I27: whoever waits in vain on one throws away the others, and one that was not used for a while is asked first."""
    def idle(connections: int) -> None:
        met = threading.Barrier(connections)
        plans = [saying("SELECT 1", hook=met.wait) for _ in range(connections)]
        threads = [threading.Thread(target=away.shell.run, args=(plan,)) for plan in plans]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    idle(3)
    route.lose_peers()
    with pytest.raises(StoreTimeout):
        away.shell.run(away.store.stats(), 0.2)
    assert away.shell.run(away.store.stats(), 2.0) is not None
    idle(3)
    monkeypatch.setattr(pool, "DOUBT", 0.0)
    monkeypatch.setattr(pool, "PROBE", 0.1)
    route.lose_peers()
    before = route.connections
    assert away.shell.run(away.store.stats(), 2.0) is not None
    assert away.shell.run(away.store.stats(), 2.0) is not None
    assert route.connections == before + 1


def test_the_server_finds_out_soon_that_a_client_is_gone(opened: Opened) -> None:
    """Else a network that forgets connections would use up the server's."""
    asked = opened.shell.run(saying_what("SELECT current_setting('tcp_keepalives_idle')"))
    assert asked == [("30",)]


def test_a_listener_finds_out_that_nobody_is_there(
    opened: Opened, route: Proxy, away: Opened, monkeypatch: Any
) -> None:
    monkeypatch.setattr(hints, "QUIET", 0.1)
    monkeypatch.setattr(hints, "ANSWER", 0.1)
    listener = away.shell.listen()
    route.lose_peers()
    deadline = time.monotonic() + 10
    while not _told(listener, 0.05):
        opened.shell.hint()
        assert time.monotonic() < deadline
    listener.close()


def test_a_listener_comes_back(opened: Opened, route: Proxy, away: Opened) -> None:
    listener = away.shell.listen()
    for _ in range(3):
        route.cut()
        deadline = time.monotonic() + 10
        while not _told(listener, 0.05):
            opened.shell.hint()
            assert time.monotonic() < deadline
    listener.close()


def _told(listener: Any, wait: float) -> bool:
    import select

    found = bool(select.select([listener.fileno()], [], [], wait)[0])
    listener.drain()
    return found


# --- other transactions -----------------------------------------------------------------------------------------------


def test_deadlocked_plans_begin_again(opened: Opened) -> None:
    met = threading.Barrier(2)
    starts: list[int] = []
    answers: list[Any] = []

    def act(first: int, second: int) -> None:
        def steps() -> Steps[int]:
            starts.append(first)
            yield NOW
            yield Statement(RAW, (f"SELECT pg_advisory_xact_lock({first})",))
            if starts.count(first) == 1:
                met.wait(10)
            yield Statement(RAW, (f"SELECT pg_advisory_xact_lock({second})",))
            return first

        answers.append(opened.shell.run(Plan(steps, "locks", write=True), 10.0))

    threads = [threading.Thread(target=act, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [1, 2]
    assert len(starts) == 3, "one of the two was begun again"


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_what_can_be_tried_again_is_until_the_deadline(opened: Opened, state: str) -> None:
    failure = f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$"
    starts: list[None] = []
    with pytest.raises(StoreTimeout, match="nothing was applied"):
        opened.shell.run(chain(opened.store.enqueue([new_job()]), saying(failure, hook=lambda: starts.append(None))), 0.5)
    assert len(starts) > 5
    assert count(opened) == 0


def test_a_value_that_cannot_be_stored(opened: Opened) -> None:
    for field in ("task", "queue", "payload"):
        with pytest.raises(StoreError):
            opened.shell.run(opened.store.enqueue([new_job(**{field: "a\0b"})]))
    assert opened.shell.run(opened.store.enqueue([new_job()]))[0].inserted


def test_a_process_that_was_stopped_in_the_middle_stops_nobody_for_long(opened: Opened) -> None:
    """I8: it holds what a takeover needs alone. The server throws it out; until then the others work on."""
    other = stores.open(opened.url)
    leave, inside = threading.Event(), threading.Event()
    failures: list[Exception] = []

    def stopped() -> Steps[None]:
        if not inside.is_set():
            yield Statement("moves_share")
            yield NOW
            yield Statement(RAW, ("SELECT 1",))
            inside.set()
            leave.wait(20)
        yield Statement(RAW, ("SELECT 1",))

    def stop() -> None:
        try:
            opened.shell.run(Plan(stopped, "stopped", write=True), 30.0)
        except StoreError as error:
            failures.append(error)

    def take_over() -> None:
        opened.shell.run(opened.store.reap([Death(worker="w", observed=True)]), 20.0)

    other.shell.run(other.store.beat([report("w"), report("v")]))
    threads = [threading.Thread(target=stop)]
    threads[0].start()
    assert inside.wait(10)
    began = time.monotonic()
    threads.append(threading.Thread(target=take_over))
    threads[1].start()
    waits = []
    for seq in range(1, 200):
        asked = time.monotonic()
        other.shell.run(other.store.claim("v", seq, ClaimRequest(1, (Quota("default", 1),))))
        waits.append(time.monotonic() - asked)
        if not threads[1].is_alive():
            break
        time.sleep(0.02)
    threads[1].join()
    assert 4.0 < time.monotonic() - began < 8.0, "the server waits 5 s for a transaction that does nothing"
    assert max(waits) < 0.5
    leave.set()
    threads[0].join()
    assert failures == [], "it was begun again"
    other.close()


def test_a_pause_is_answered_when_no_claim_goes_by_the_rules_of_before(opened: Opened) -> None:
    """Or what is enqueued after the answer might be started. Found by the simulated life 1061."""
    other = stores.open(opened.url)
    read, go_on = threading.Event(), threading.Event()
    claimed: list[Any] = []
    request = ClaimRequest(1, (Quota("default", 1),))
    pause = other.store.queues([QueueChange(queue="default", paused=True)])

    def slowly() -> Steps[Any]:
        steps, rows = iter(opened.store.claim("w", 1, request)), None
        while True:
            try:
                wanted = steps.send(rows)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value
            rows = yield wanted
            if wanted.name == "claim_gate":
                read.set()
                go_on.wait(10)

    other.shell.run(other.store.beat([report("w")]))
    thread = threading.Thread(target=lambda: claimed.append(opened.shell.run(Plan(slowly, "claim", write=True))))
    thread.start()
    assert read.wait(10)
    with pytest.raises(StoreTimeout):
        other.shell.run(pause, 0.5)
    other.shell.run(other.store.enqueue([new_job()]))
    go_on.set()
    thread.join()
    assert len(claimed[0].jobs) == 1, "nobody was told of a pause"
    other.shell.run(pause)
    other.shell.run(other.store.enqueue([new_job()]))
    assert other.shell.run(other.store.claim("w", 2, request)).jobs == []
    other.close()
