"""Locks and semaphores for users' own code: held once, renewed, and known to be lost when they are."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from windlass import LockTimeout, Windlass
from windlass import lock as module
from windlass.core.errors import StoreError, WindlassError


@pytest.fixture(params=["memory://", "sqlite:///locks.db", "sqlite+stdlib:///locks.db"])
def app(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Windlass(request.param) as app:
        yield app


def test_one_at_a_time_and_fences_grow(app) -> None:
    fences = []
    for _ in range(3):
        with app.lock("reports") as lock:
            assert (lock.held, lock.lost) == (True, False)
            fences.append(lock.fence)
            with pytest.raises(LockTimeout, match="lock 'reports' was not to be had within 0.05 s"):
                app.lock("reports", timeout="50ms").acquire()
            with app.lock("another") as other:
                assert other.held
        assert (lock.held, lock.lost) == (False, False)
    assert fences == sorted(set(fences))


def test_a_store_that_was_restored_gives_no_fence_again(tmp_path) -> None:
    """I4: it does not know who had the lock since the copy was made; what the lock protects does."""

    def fences(count: int) -> list[int]:
        got = []
        with Windlass(f"sqlite:///{tmp_path}/locks.db") as app:
            for _ in range(count):
                with app.lock("reports") as lock:
                    got.append(lock.fence)
        return got

    known = fences(2)
    copy = (tmp_path / "locks.db").read_bytes()
    forgotten = fences(3)
    (tmp_path / "locks.db").write_bytes(copy)
    later = fences(2)
    assert [*known, *forgotten, *later] == sorted({*known, *forgotten, *later})


def test_whoever_waits_gets_it_when_it_is_given_up(app) -> None:
    first = app.lock("reports")
    first.acquire()
    got: list[int] = []
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        with app.lock("reports") as lock:
            got.append(lock.fence)

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    fence = first.fence
    first.release()
    thread.join(10)
    assert len(got) == 1
    assert got[0] > fence


def test_as_many_as_there_are_slots(app) -> None:
    held = [app.semaphore("api", 2) for _ in range(2)]
    for each in held:
        each.acquire(timeout=0)
    third = app.semaphore("api", 2)
    with pytest.raises(LockTimeout):
        third.acquire(timeout=0)
    held[0].release()
    third.acquire(timeout=0)
    assert third.fence > held[1].fence
    for each in (third, held[1]):
        each.release()


def test_on_an_event_loop(app) -> None:
    inside = most = 0
    full: asyncio.Event

    async def one(n: int) -> int:
        nonlocal inside, most, full
        async with app.semaphore("api", 3) as lock:
            inside += 1
            most = max(most, inside)
            if inside == 3:
                full.set()
            await full.wait()
            inside -= 1
            return lock.fence

    async def all_of_them() -> list[int]:
        nonlocal full
        full = asyncio.Event()
        return await asyncio.gather(*(one(n) for n in range(8)))

    fences = asyncio.run(all_of_them())
    assert len(set(fences)) == 8
    assert most == 3


def test_a_cancelled_waiter_holds_nothing(app) -> None:
    async def story() -> None:
        async with app.lock("reports"):
            waiter = asyncio.create_task(app.lock("reports").aacquire())
            await asyncio.sleep(0.02)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
        async with app.lock("reports", timeout="5s") as lock:
            assert lock.held

    asyncio.run(story())


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_a_waiter_is_cancelled_though_the_store_is_away(tmp_path, how) -> None:
    """What cannot be given up lapses; the cancellation is what the caller is told, within the time of an enqueue."""
    # That of the holder: locks of a file do not keep two SQLite libraries of one process apart.
    with Windlass(f"sqlite+stdlib:///{tmp_path}/locks.db", enqueue_timeout=0.2) as app, app.lock("warm"):
        pass

    async def story() -> None:
        with Windlass(app.settings.url, enqueue_timeout=0.2) as ours:
            await ours.aclient.stats()
            holder.execute("BEGIN IMMEDIATE")
            lock = ours.lock("reports")
            waiter = asyncio.create_task(lock.aacquire())
            while lock._asking is None:  # noqa: ASYNC110 - a lock sets no event when it asks
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            began = time.monotonic()
            if how == "cancel":
                waiter.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiter
                assert waiter.cancelled()
            else:
                with pytest.raises(TimeoutError) as failure:
                    await asyncio.wait_for(waiter, 0.01)
                assert not isinstance(failure.value, StoreError)
            assert time.monotonic() - began < 2.5  # half of what the store gives its own plans
            holder.rollback()
            assert not lock.held

    with closing(sqlite3.connect(tmp_path / "locks.db", isolation_level=None)) as holder:
        asyncio.run(story())


def test_it_is_given_up_by_an_exception(app) -> None:
    with pytest.raises(ZeroDivisionError), app.lock("reports"):
        1 // 0  # noqa: B018
    with app.lock("reports", timeout=0):
        pass


def test_it_is_renewed_while_it_is_held(app, monkeypatch) -> None:
    """For longer than its ttl; seen by the renewals, not by waiting."""
    renewed = threading.Event()
    ask, count = module.Hold.ask, []

    def counted(self: module.Hold):
        count.append(1)
        if len(count) == 3:
            renewed.set()
        return ask(self)

    monkeypatch.setattr(module.Hold, "ask", counted)
    with app.lock("reports", ttl="1s") as lock:
        fence = lock.fence
        assert renewed.wait(10)
        assert (lock.held, lock.fence) == (True, fence)


def test_one_that_lapsed_knows_it(app, monkeypatch) -> None:
    """By this machine's clock, before any renewal: a process that was stopped looks first."""
    with app.lock("reports", ttl="10s") as lock:
        assert lock.held
        monkeypatch.setattr(module, "_boottime", lambda: 1e12)
        assert (lock.held, lock.lost) == (False, True)


def test_one_that_was_anothers_meanwhile_is_lost(app, monkeypatch) -> None:
    """I4: even if it is free again, so that a renewal would succeed."""
    lock = app.lock("reports", ttl="1s")
    lock.acquire()
    fence = lock.fence
    store, run = app.opened.store, app.opened.shell.run
    assert lock._hold is not None
    run(store.resign("lock:reports", lock._hold._holder))  # as a lapse would
    with app.lock("reports", timeout="5s") as other:
        later = other.fence
        assert later > fence
    lock._hold._thread.join(10)  # until its renewal has found out
    assert lock.lost
    lock.release()
    with app.lock("reports", timeout="5s") as again:
        assert again.fence > later


def test_a_forked_child_has_lost_it(app) -> None:
    """I28: it is the parent's, whose thread renews it."""
    with app.lock("reports") as lock:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if lock.lost and not lock.held else 2
                lock.release()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert lock.held
        with pytest.raises(LockTimeout):
            app.lock("reports", timeout=0).acquire()


def test_wrong_use_is_told(app) -> None:
    lock = app.lock("reports")
    with pytest.raises(WindlassError, match="is not held"):
        _ = lock.fence
    with lock, pytest.raises(WindlassError, match="held by this object already"):
        lock.acquire()
    lock.release()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"ttl": "10ms"}, "ttl"),
        ({"ttl": "25h"}, "ttl"),
        ({"ttl": "soon"}, "ttl"),
        ({"slots": 0}, "slots"),
        ({"slots": True}, "slots"),
        ({"timeout": "later"}, "timeout"),
    ],
)
def test_wrong_arguments_are_refused(given, field) -> None:
    with Windlass("memory://") as app, pytest.raises(ValueError, match=f"^{field}: "):
        app.semaphore(**{"name": "x", "slots": 1, **given})
