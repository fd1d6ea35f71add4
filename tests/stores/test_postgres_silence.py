"""A handler's own statements, when nobody answers them: one that was lost on the way ends within seconds, and one that the
server is at work on is waited for, however long that takes."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.stores.postgres_server import PLACES, database
from tests.stores.proxy import Proxy
from windlass import stores
from windlass.core.errors import StoreError, StoreTimeout, StoreUnavailable
from windlass.ports.store import Opened
from windlass.stores.postgres import watched
from windlass.stores.postgres.connection import Connector
from windlass.stores.postgres.session import Session


@pytest.fixture
def url(tmp_path: Any) -> Iterator[str]:
    yield PLACES.url(tmp_path)
    PLACES.recycle()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """Where a handler waits. It ends after the route, which lets go of whoever still waits."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def route(url: str, thread: ThreadPoolExecutor) -> Iterator[Proxy]:
    proxy = Proxy(url)
    yield proxy
    proxy.close()


@pytest.fixture
def away(route: Proxy, monkeypatch: Any) -> Iterator[Opened]:
    """A store behind the route, of whose silence one is soon tired."""
    monkeypatch.setattr(watched, "QUIET", 0.2)
    monkeypatch.setattr("windlass.stores.postgres.shell.GLANCE", 0.3)
    away = stores.open(route.url)
    away.shell.run(away.store.migrate())
    yield away
    away.close()


@pytest.fixture
def glances(away: Opened, monkeypatch: Any) -> list[str]:
    """What was asked about backends so far."""
    asked: list[str] = []
    real = away.shell._glance

    def glance(plan: Any) -> Any:
        answer = real(plan)
        asked.append(plan.name)
        return answer

    monkeypatch.setattr(away.shell, "_glance", glance)
    return asked


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def asked(sql: str, *parameters: Any) -> Any:
    with psycopg.connect(database(), autocommit=True) as connection:
        cursor = connection.execute(sql, parameters)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def backend_of(session: Session) -> int:
    return int(session.connection.psycopg.info.backend_pid)


def at(pid: int) -> Any:
    return asked("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", pid)


# --- lost on the way --------------------------------------------------------------------------------------------------


def test_a_statement_that_was_lost_on_the_way_ends(away: Opened, route: Proxy) -> None:
    """I27: though what lies between acknowledges every byte. What its backend keeps locked, it lets go of."""
    session = away.shell.session()
    session.connection.execute("SELECT 1")
    pid = backend_of(session)
    route.lose_peers()
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match="fallen silent"):
        session.connection.execute("SELECT 2")
    assert time.monotonic() - began < 4  # less than what a connection costs that is as silent
    with pytest.raises(StoreUnavailable):
        session.run(away.store.stats())
    session.rollback()
    until(lambda: not asked("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid))
    others = [away.shell.session() for _ in range(8)]  # as many as there may be: its place is free again
    for each in others:
        each.rollback()


def test_a_large_statement_that_nobody_takes_ends(away: Opened, route: Proxy) -> None:
    session = away.shell.session()
    route.lose_peers()
    with pytest.raises(psycopg.OperationalError, match="fallen silent"):
        session.connection.execute("SELECT length(%s)", ("x" * (64 << 20),))
    session.rollback()


def test_an_answer_that_was_lost_on_the_way_ends(away: Opened, route: Proxy, thread: ThreadPoolExecutor) -> None:
    session = away.shell.session()
    pid = backend_of(session)
    answer = thread.submit(session.connection.execute, "SELECT pg_advisory_xact_lock(1), pg_sleep(0.5)")
    until(lambda: at(pid) == "Timeout")  # so is pg_sleep booked
    route.lose_peers()
    with pytest.raises(psycopg.OperationalError, match="fallen silent"):
        answer.result(20)
    session.rollback()
    until(lambda: asked("SELECT pg_try_advisory_lock(1)"))


def test_a_backend_that_is_gone_without_a_word(away: Opened, route: Proxy) -> None:
    """As after a failover, when the server that is asked has never heard of it."""
    session = away.shell.session()
    route.lose_peers()
    asked("SELECT pg_terminate_backend(%s)", backend_of(session))
    with pytest.raises(psycopg.OperationalError, match="fallen silent"):
        session.connection.execute("SELECT 1")
    session.rollback()


def test_the_locks_of_a_transaction_that_could_not_be_told_to_roll_back(
    away: Opened, route: Proxy, thread: ThreadPoolExecutor
) -> None:
    """As when its handler thinks while the network forgets it: the next attempt must not wait for the first."""
    session = away.shell.session(0.3)
    session.connection.execute("SELECT pg_advisory_xact_lock(3)")
    next_one = away.shell.session()
    blocked = next_one.connection.psycopg.info.backend_pid
    answer = thread.submit(next_one.connection.execute, "SELECT pg_advisory_xact_lock(3)")
    until(lambda: at(blocked) == "Lock")
    route.lose_peers()  # of those that there are; the next one is at work, so it is waited for
    with pytest.raises(StoreTimeout):
        session.run(away.store.stats())
    session.rollback()
    until(lambda: at(blocked) != "Lock")
    with pytest.raises(psycopg.OperationalError, match="fallen silent"):
        answer.result(20)
    next_one.rollback()


def test_a_handler_that_makes_nothing_of_it_commits_nothing(away: Opened, route: Proxy, url: str) -> None:
    asked("CREATE TABLE IF NOT EXISTS public.silent (n int)")
    session = away.shell.session()
    session.connection.execute("INSERT INTO public.silent VALUES (1)")
    route.lose_peers()
    with pytest.raises(psycopg.OperationalError):
        session.connection.execute("INSERT INTO public.silent VALUES (2)")
    with pytest.raises(StoreError):
        session.commit()
    assert asked("SELECT count(*) FROM public.silent") == 0
    asked("DROP TABLE public.silent")


# --- at work ----------------------------------------------------------------------------------------------------------


def finish(answer: Future[Any], glances: list[str]) -> None:
    """See that it is still waited for after so many glances that it would have been given up."""
    seen = len(glances)
    until(lambda: len(glances) >= seen + 4)
    assert not answer.done()
    assert set(glances) == {"backend_busy"}


def test_a_long_statement_is_waited_for(away: Opened, glances: list[str], thread: ThreadPoolExecutor) -> None:
    session = away.shell.session()
    pid = backend_of(session)
    answer = thread.submit(session.connection.execute, "SELECT 7 FROM pg_sleep(60)")
    finish(answer, glances)
    asked("SELECT pg_cancel_backend(%s)", pid)
    with pytest.raises(psycopg.errors.QueryCanceled):
        answer.result(20)
    session.rollback()


def test_a_statement_that_waits_for_another_transaction_is_waited_for(
    away: Opened, glances: list[str], thread: ThreadPoolExecutor
) -> None:
    session = away.shell.session()
    with psycopg.connect(database()) as other:
        other.execute("SELECT pg_advisory_xact_lock(2)")
        answer = thread.submit(session.connection.execute, "SELECT 7 FROM pg_advisory_xact_lock(2)")
        finish(answer, glances)
    assert answer.result(20).fetchone() == (7,)
    session.commit()


def test_a_route_that_is_frozen_for_a_while_is_waited_for(
    away: Opened, route: Proxy, glances: list[str], thread: ThreadPoolExecutor
) -> None:
    """Nobody can be asked, so nobody knows; what was under way arrives later."""
    session = away.shell.session(1.0)
    away.shell.timeout = 0.2
    route.mode = "freeze"
    answer = thread.submit(session.connection.execute, "SELECT 7")
    finish(answer, glances)
    route.mode = "pass"
    assert answer.result(20).fetchone() == (7,)
    session.commit()


def test_a_slow_line_is_not_silent(
    away: Opened, route: Proxy, glances: list[str], thread: ThreadPoolExecutor, monkeypatch: Any
) -> None:
    """As with a large parameter, of which the kernel has less and less still to send."""
    left = [10_000]

    def unsent(_: Any) -> int:
        left[0] -= left[0] > 9_950
        return left[0]

    monkeypatch.setattr(watched.Watched, "_unsent", unsent)
    session = away.shell.session()
    route.lose_peers()
    answer = thread.submit(session.connection.execute, "SELECT 1")
    until(lambda: left[0] < 9_960)  # a tenth of a second each
    assert not answer.done()
    assert glances == []
    with pytest.raises(psycopg.OperationalError, match="fallen silent"):
        answer.result(20)
    session.rollback()


def test_a_backend_of_which_nothing_is_shown_is_waited_for(url: str, monkeypatch: Any) -> None:
    """Whoever has put on another role sees no more of his own connections than of strangers'."""
    monkeypatch.setattr(watched, "QUIET", 0.1)
    role = f"silent_{os.getpid()}"
    asked(f"CREATE ROLE {role}")
    hidden = stores.open(f"{url}&options=-c%20role%3D{role}")
    session = hidden.shell.session()
    assert session.connection.execute("SELECT 7 FROM pg_sleep(1)").fetchone() == (7,)
    session.rollback()
    hidden.close()
    asked(f"DROP ROLE {role}")


def test_glances_are_taken_one_at_a_time(away: Opened, monkeypatch: Any) -> None:
    """And who cannot have his does not stand in line for it."""
    monkeypatch.setattr("windlass.stores.postgres.shell.GLANCE", 0.05)
    inside, leave = threading.Event(), threading.Event()
    shell = away.shell

    def run(plan: Any, timeout: float) -> Any:
        inside.set()
        return leave.wait(20)

    monkeypatch.setattr(shell, "run", run)
    first = threading.Thread(target=shell._glance, args=(away.store.stats(),))
    first.start()
    assert inside.wait(20)
    assert shell._glance(away.store.stats()) is None
    leave.set()
    first.join()
    assert shell._glance(away.store.stats()) is True


# --- the kernel's share -----------------------------------------------------------------------------------------------


def test_the_kernel_gives_up_in_a_minute_or_when_the_url_says(url: str) -> None:
    """While nobody can be asked: an hour or two would be its own idea."""
    for more, expected in (("", 60_000), ("&tcp_user_timeout=7000", 7_000)):
        wire = Connector(url.partition("?")[0] + "?" + more[1:], pooled=False).connect(time.monotonic() + 5)
        with socket.socket(fileno=os.dup(wire.fileno())) as kernel:
            assert kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == expected
            assert kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        wire.close()
