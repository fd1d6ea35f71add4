"""Between a finished job and its store: opening, deadlines, lost answers, forks."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.public.conftest import URLS, Make
from windlass import ConfigError, StoreUnavailable, Task, Windlass
from windlass.core.errors import OutcomeUnknown, SchemaError, StoreTimeout
from windlass.ports.store import QueueChange
from windlass.stores import REDIS, SCHEMES
from windlass.stores import open as open_store


def declared(app: Windlass) -> Task[[int], int]:
    @app.task(name="t")
    def task(n: int) -> int:
        return n

    return task


def colours(task: Task[[int], Any]) -> list[Callable[[], Any]]:
    """Every way in, each of which must keep every promise."""
    return [
        lambda: task.enqueue(1),
        lambda: task.enqueue_many([(1,), (2,)]),
        lambda: asyncio.run(task.aenqueue(1)),
        lambda: asyncio.run(task.aenqueue_many([(1,), (2,)])),
    ]


# --- opening -------------------------------------------------------------------------------------------------------------


def test_nothing_is_opened_before_the_first_use(make: Make, tmp_path: Path) -> None:
    app = make(URLS["sqlite"])
    task = declared(app)
    task.new_job((1,), {}, None)
    _ = app.registry, repr(app), app.job("x"), app.named("elsewhere")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError):
        task.enqueue("x")  # type: ignore[arg-type]  # refused before the store is asked for
    assert list(tmp_path.iterdir()) == []
    task.enqueue(1)
    assert (tmp_path / "jobs.db").exists()


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("url", URLS.values())
def test_whatever_comes_first_finds_a_schema(make: Make, url: str, first: int) -> None:
    colours(declared(make(url)))[first]()


def test_ten_threads_that_open_at_once_find_one_store(app: Windlass) -> None:
    task = declared(app)
    barrier = threading.Barrier(10)
    failures: list[BaseException] = []

    def go() -> None:
        barrier.wait()
        try:
            task.enqueue(1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=go) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and app.client.stats(exact=True).states["queued"] == 10


def test_threads_may_each_have_their_own_loops_one_after_another(app: Windlass) -> None:
    """Each call finds loops that others have just closed, and gives their shells back."""
    task, problems = declared(app), []
    app.opened  # noqa: B018 - what is asked here is not the opening
    start = threading.Barrier(16)

    def enqueue() -> None:
        start.wait()
        try:
            for n in range(12):
                asyncio.run(task.aenqueue(n))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=enqueue) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert app.client.stats(exact=True).states["queued"] == 16 * 12


def test_a_closed_application_opens_again(make: Make) -> None:
    app = make(URLS["sqlite"])
    job = declared(app).enqueue(1)
    app.close()
    app.close()
    assert job.refresh().id == job.id
    with app:
        pass
    assert asyncio.run(job.arefresh()).id == job.id


def test_a_newer_schema_is_refused(make: Make, tmp_path: Path) -> None:
    """I25: an old program must not write where it does not know what it writes."""
    declared(make(URLS["stdlib"])).enqueue(1)
    connection = sqlite3.connect(tmp_path / "jobs.db")
    with connection:
        connection.execute("INSERT INTO windlass_schema_version SELECT version + 99, applied FROM windlass_schema_version LIMIT 1")
    connection.close()
    for enqueue in colours(declared(make(URLS["stdlib"]))):
        with pytest.raises(SchemaError, match="upgrade Windlass"):
            enqueue()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://host/db", "url: no store is called 'mysql'; there are memory://, postgresql://, redis://, sqlite://, sqlite+stdlib://"),
        ("user:secret@host", "url: it names no store; there are memory://"),
        ("sqlite:///{}/missing/jobs.db", "url: the directory "),
    ],
)
def test_a_url_that_opens_nothing(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_store(url.format(tmp_path))
    assert str(refused.value).startswith(said) and "secret" not in str(refused.value)


def test_every_scheme_opens(tmp_path: Path) -> None:
    here = {url.partition("://")[0] for url in URLS.values()}
    assert set(SCHEMES) == here | {"postgresql", *REDIS}, "which need a server: see tests/stores"
    for name, url in URLS.items():
        opened = open_store(url.format(tmp_path).replace("jobs.db", name))
        opened.shell.run(opened.store.migrate())
        opened.close()


# --- deadlines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("url", [URLS["sqlite"], URLS["stdlib"]])
@pytest.mark.parametrize("way", range(4))
def test_enqueue_is_bounded_whatever_the_store_does(make: Make, tmp_path: Path, url: str, way: int, warm: bool) -> None:
    """I1b: another process holds the write lock and was stopped."""
    app = make(url, enqueue_timeout="300ms")
    task = declared(app)
    if warm:
        task.enqueue(0)
    else:
        declared(other := make(url)).enqueue(0)
        other.close()
    frozen = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None) if "stdlib" in url else _apsw(tmp_path / "jobs.db")
    frozen.execute("BEGIN IMMEDIATE")
    try:
        began = time.monotonic()
        with pytest.raises((StoreTimeout, OutcomeUnknown)):  # the latter if this very process is late
            colours(task)[way]()
        assert 0.2 < time.monotonic() - began < 0.3 * 1.1 + 1.0  # a second for a busy machine
    finally:
        frozen.execute("ROLLBACK")
        frozen.close()
    colours(task)[way]()  # and it goes on when the store does


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("way", [1, 2])
def test_aenqueue_is_bounded_behind_plans_that_wait_longer(make: Make, tmp_path: Path, way: int, warm: bool) -> None:
    """I1b: writers of one event loop stand in one line, and those in front have deadlines of their own."""
    app = make(URLS["sqlite"], enqueue_timeout="300ms")
    task = declared(app)
    task.enqueue(0)
    if not warm:
        app.close()
    asked = [lambda: task.aenqueue(1), lambda: task.aenqueue_many([(1,), (2,)])][way - 1]

    async def main() -> float:
        frozen = _apsw(tmp_path / "jobs.db")
        frozen.execute("BEGIN IMMEDIATE")
        try:
            opened = app.engine.bare()
            in_front = asyncio.ensure_future(opened.async_shell().run(opened.store.queues([QueueChange("q", paused=True)])))
            await asyncio.sleep(0)  # it stands in line now
            began = time.monotonic()
            with pytest.raises((StoreTimeout, OutcomeUnknown)):
                await asked()
            took = time.monotonic() - began
        finally:
            frozen.execute("ROLLBACK")
            frozen.close()
        await in_front
        return took

    assert 0.2 < asyncio.run(main()) < 0.3 * 1.1 + 0.25


def _apsw(path: Path) -> Any:
    import apsw  # two SQLite libraries on one file in one process drop each other's locks

    return apsw.Connection(str(path))


# --- lost answers --------------------------------------------------------------------------------------------------------


class Losing:
    """A shell whose next answers are lost after the commit."""

    def __init__(self, shell: Any, lost: int) -> None:
        self._shell, self.lost, self.sent = shell, lost, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shell, name)

    def run(self, plan: Any, timeout: float | None = None) -> Any:
        answer = self._shell.run(plan, timeout)
        self.sent += plan.name == "enqueue"
        if plan.name == "enqueue" and self.lost:
            self.lost -= 1
            raise OutcomeUnknown("the connection broke after COMMIT")
        return answer


class ByHand:
    """A shell whose `run` is a function of the test's."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run

    def hint(self) -> None: ...


def asynchronous(app: Windlass, run: Callable[..., Any]) -> Any:
    """The same for an event loop."""

    class OnALoop:
        async def run(self, plan: Any, timeout: float | None = None) -> Any:
            return run(plan, timeout)

    return OnALoop()


def test_a_lost_answer_is_asked_for_again_and_stores_nothing_twice(app: Windlass, monkeypatch: pytest.MonkeyPatch) -> None:
    """I1, I10b: the jobs carry their ids."""
    task = declared(app)
    losing = Losing(app.opened.shell, 2)
    monkeypatch.setattr(app.opened, "shell", losing)
    job = task.using(idempotency_key="k").enqueue(1)
    assert (job.created, losing.sent, app.client.stats(exact=True).states["queued"]) == (True, 3, 1)
    losing.lost = 1
    assert len(task.enqueue_many([(1,), (2,)])) == 2
    assert app.client.stats(exact=True).states["queued"] == 3


def test_an_answer_that_stays_lost_is_an_error_in_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make(enqueue_timeout="50ms")
    task = declared(app)
    monkeypatch.setattr(app.opened, "shell", Losing(app.opened.shell, 10**9))
    with pytest.raises(OutcomeUnknown, match="the answer was lost"):
        task.enqueue(1)


@pytest.mark.parametrize("way", range(4))
def test_what_may_be_stored_is_never_called_unavailable(make: Make, monkeypatch: pytest.MonkeyPatch, way: int) -> None:
    """I1: whoever catches StoreUnavailable and enqueues anew must not double the job."""
    app = make(URLS["sqlite"])
    task = declared(app)
    losing = Losing(app.opened.shell, 1)

    def then_away(plan: Any, timeout: float | None = None) -> Any:
        if losing.sent:
            raise StoreUnavailable("away; nothing was applied")
        return losing.run(plan, timeout)

    line = asynchronous(app, then_away) if way >= 2 else None
    monkeypatch.setattr(app.opened, "async_shell" if line else "shell", (lambda: line) if line else ByHand(then_away))
    with pytest.raises(OutcomeUnknown):
        colours(task)[way]()
    monkeypatch.undo()
    assert app.client.stats(exact=True).states["queued"] == 1 + way % 2


def test_a_store_that_refuses_is_not_asked_twice(app: Windlass, monkeypatch: pytest.MonkeyPatch) -> None:
    task, asked = declared(app), []

    def full(plan: Any, timeout: float | None = None) -> Any:
        asked.append(plan.name)
        raise StoreUnavailable("full")

    monkeypatch.setattr(app.opened.shell, "run", full)
    with pytest.raises(StoreUnavailable, match="full"):
        task.enqueue(1)
    assert asked == ["enqueue"]


# --- forks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("url", [URLS["sqlite"], URLS["stdlib"]])
def test_a_connection_does_not_cross_a_fork(make: Make, url: str) -> None:
    """I28."""
    app = make(url)
    task = declared(app)
    task.enqueue(0)
    asyncio.run(task.aenqueue(0))
    before = app.opened
    app.engine._lock.acquire()  # as another thread of the parent may
    children = []
    for n in range(3):
        child = os.fork()
        if child == 0:
            try:
                task.enqueue(n)
                asyncio.run(task.aenqueue(n))
                assert app.opened is not before
                app.close()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    app.engine._lock.release()
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert app.opened is before
    task.enqueue(0)
    assert app.client.stats(exact=True).states["queued"] == 9


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads /proc")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_never_closes_what_it_inherited_not_even_at_its_end(make: Make) -> None:
    app = make(URLS["sqlite"])
    task = declared(app)
    task.enqueue(0)

    def connections() -> set[int]:
        found = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in map(int, os.listdir("/proc/self/fd")) if _is_open(fd)}
        return {fd for fd, target in found.items() if target.endswith("jobs.db")}

    inherited = connections()
    child = os.fork()
    if child == 0:
        try:
            task.enqueue(1)
            app.close()
            app.engine.__dict__.clear()
            gc.collect()
            os._exit(0 if inherited and inherited <= connections() else 3)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_closing_in_a_forked_child_leaves_the_parents_connection_alone(make: Make) -> None:
    app = make(URLS["sqlite"])
    task = declared(app)
    task.enqueue(0)
    child = os.fork()
    if child == 0:
        app.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    task.enqueue(1)
    assert app.client.stats(exact=True).states["queued"] == 2
