"""I/O for one SQLite file: transactions, waiting for the lock, and the hop to a thread for event loops."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from windlass.core.errors import OutcomeUnknown, StoreError, StoreTimeout
from windlass.ports.plan import NOW, Plan, Rows, Statement, drive
from windlass.stores.named_sql import load_queries
from windlass.stores.sqlite.driver import Busy, Driver
from windlass.stores.sqlite.hints import HintListener, Hints
from windlass.stores.sqlite.store import RAW

T = TypeVar("T")

RETRY_FIRST = 0.0002
RETRY_MOST = 0.001
"""SQLite's lock is not fair: whoever asks most often gets it. 0.2 to 1 ms lets a web process in between two workers
that commit back to back; SQLite's own busy handler sleeps up to 100 ms and starves it."""

Clock = Callable[[], int]


class Shell:
    """Runs plans, each in one transaction, on a connection of its own per thread that is inside."""

    def __init__(self, connect: Callable[[], Driver], hints: Hints, clock: Clock, timeout: float) -> None:
        self._connect = connect
        self._hints = hints
        self._clock = clock
        self.timeout = timeout
        self._sql = load_queries("windlass.stores.sqlite")
        self._idle: list[Driver] = []
        # Writers of one process queue here: a plain lock wakes them at once, SQLite's would have them poll.
        self._writing = threading.Lock()
        self._watch: Driver | None = None
        self._watching = threading.Lock()
        self._closed = False
        self._broken: set[Driver] = set()

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See ports.store.Shell."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        if not plan.write:
            with self._borrowed() as driver:
                return self._transaction(driver, plan, "BEGIN", deadline)
        if not self._writing.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StoreTimeout(f"{plan.name}: other threads of this process kept the store busy")
        try:
            with self._borrowed() as driver:
                return self._transaction(driver, plan, "BEGIN IMMEDIATE", deadline)
        finally:
            self._writing.release()

    def _transaction(self, driver: Driver, plan: Plan[T], begin: str, deadline: float) -> T:
        while True:
            self._begin(driver, begin, plan.name, deadline)
            try:
                answer = drive(iter(plan), lambda s: self.execute(driver, s))
                self._commit(driver)
            except Busy:
                # Only a reader can get here (a WAL being recovered): the plan starts again from its beginning.
                _rollback(driver)
                _pause(plan.name, deadline, RETRY_MOST)
            except BaseException:
                _rollback(driver)
                raise
            else:
                return answer

    def _begin(self, driver: Driver, begin: str, name: str, deadline: float) -> None:
        wait = RETRY_FIRST
        while True:
            try:
                driver.execute(begin)
            except Busy:
                _pause(name, deadline, wait)
                wait = min(RETRY_MOST, wait * 1.5)
            else:
                return

    def _commit(self, driver: Driver) -> None:
        try:
            driver.execute("COMMIT")
        except OutcomeUnknown:
            # After a failed flush the kernel may have dropped the pages: this connection's view is not to be trusted.
            self._broken.add(driver)
            raise

    def execute(self, driver: Driver, statement: Statement) -> Rows:
        """Run one statement of a plan on `driver`."""
        if statement is NOW:
            return [(self._clock(),)]
        name, params, many = statement
        sql = params[0] if name == RAW else self._sql[name]
        if many is None:
            return driver.execute(sql, () if name == RAW else params)
        if many:
            driver.many(sql, many)
        return []

    @contextmanager
    def _borrowed(self) -> Iterator[Driver]:
        if self._closed:
            raise StoreError("this store was closed")
        driver = self._idle.pop() if self._idle else self._connect()
        try:
            yield driver
        finally:
            self._give_back(driver)

    def _give_back(self, driver: Driver) -> None:
        if self._closed or driver in self._broken:
            self._broken.discard(driver)
            driver.close()
        else:
            self._idle.append(driver)

    def session(self, timeout: float | None = None) -> Session:
        """Open a writing transaction for a caller's own statements and ours: see Session."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        driver = self._connect()
        try:
            self._begin(driver, "BEGIN IMMEDIATE", "transaction", deadline)
        except BaseException:
            driver.close()
            raise
        return Session(self, driver)

    def changed(self) -> int:
        """See ports.store.Shell. `data_version` moves when another connection commits: this one never writes."""
        with self._watching:
            if self._watch is None:
                self._watch = self._connect()
            try:
                return int(self._watch.execute("PRAGMA data_version")[0][0])
            except Busy:
                return -1

    def hint(self) -> None:
        """See ports.store.Shell."""
        self._hints.send()

    def listen(self) -> HintListener:
        """See ports.store.Shell."""
        return self._hints.listen()

    def close(self) -> None:
        """See ports.store.Shell."""
        self._closed = True
        with self._writing, self._watching:
            for driver in [*self._idle, *([self._watch] if self._watch else [])]:
                driver.close()
            self._idle.clear()
            self._watch = None
        self._hints.close()


class Session:
    """One open writing transaction on a connection of its own. `connection` is the library's: what is written through
    it and the plans run here are committed together, or not at all."""

    def __init__(self, shell: Shell, driver: Driver) -> None:
        self._shell = shell
        self._driver = driver
        self.connection = driver.raw

    def run(self, plan: Plan[T]) -> T:
        """Run `plan` inside the transaction."""
        return drive(iter(plan), lambda s: self._shell.execute(self._driver, s))

    def commit(self) -> None:
        """Commit everything and give the connection back. Raises StoreError if the handler ended the transaction."""
        try:
            if not self._driver.in_transaction():
                raise StoreError("the handler ended the transaction that Windlass opened for it; leave commit to it")
            self._driver.execute("COMMIT")
        except BaseException:
            _rollback(self._driver)
            raise
        finally:
            self._driver.close()

    def rollback(self) -> None:
        """Undo everything and give the connection back."""
        _rollback(self._driver)
        self._driver.close()


class CallerShell:
    """A narrower shell on the caller's own connection: no begin it did not imply, no commit, no restart."""

    def __init__(self, shell: Shell, driver: Driver) -> None:
        self._shell = shell
        self._driver = driver

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """Run `plan` under a savepoint of the caller's transaction; the caller commits."""
        try:
            if not self._driver.in_transaction():
                # What sqlite3 does before a caller's INSERT, and with the lock that we would need a moment later.
                self._driver.execute("BEGIN IMMEDIATE")
            self._driver.execute("SAVEPOINT windlass")
            try:
                answer = drive(iter(plan), lambda s: self._shell.execute(self._driver, s))
            except BaseException:
                self._driver.execute("ROLLBACK TO windlass")
                raise
            finally:
                self._driver.execute("RELEASE windlass")
        except Busy as error:
            raise StoreTimeout(f"{plan.name}: the database is locked by another connection") from error
        return answer

    def changed(self) -> int:
        """As the store's own shell."""
        return self._shell.changed()

    def hint(self) -> None:
        """As the store's own shell; worth sending only after the caller's commit."""
        self._shell.hint()

    def listen(self) -> HintListener:
        """As the store's own shell."""
        return self._shell.listen()

    def close(self) -> None:
        """Nothing to do: the connection is the caller's."""


class AsyncShell:
    """The same for an event loop: a whole plan is one hop to a thread, which nothing can cancel half-way.

    Two threads, made when first needed: readers of a WAL wait for nobody, so they must not stand in line behind a
    write that waits for the lock.
    """

    def __init__(self, shell: Shell, loop: asyncio.AbstractEventLoop) -> None:
        self._shell = shell
        self._loop = loop
        self._lines: dict[bool, _Line] = {}

    async def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See ports.store.AsyncShell."""
        line = self._lines.get(plan.write)
        if line is None:
            line = self._lines[plan.write] = _Line(self._shell, self._loop)
        return await line.put(plan, timeout)

    async def close(self) -> None:
        """See ports.store.AsyncShell. What was handed in before is finished first."""
        self.stop()

    def stop(self) -> None:
        """End the threads, from any thread."""
        for line in self._lines.values():
            line.stop()
        self._lines.clear()


class _Line:
    """One thread and the plans that wait for it."""

    def __init__(self, shell: Shell, loop: asyncio.AbstractEventLoop) -> None:
        self._shell = shell
        self._loop = loop
        self._work: SimpleQueue[tuple[Plan[Any], float, asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="windlass-store", daemon=True)
        self._thread.start()

    def put(self, plan: Plan[T], timeout: float | None) -> asyncio.Future[T]:
        """Have it run; its time counts from now, however long the line is."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._work.put((plan, time.monotonic() + (self._shell.timeout if timeout is None else timeout), future))
        return future

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            plan, deadline, future = item
            answer, failure = None, None
            try:
                answer = self._shell.run(plan, deadline - time.monotonic())
            except BaseException as error:
                failure = error
            try:
                self._loop.call_soon_threadsafe(_answer, future, answer, failure)
            except RuntimeError:  # the loop was closed before its answer came: nobody waits for it any more
                return

    def stop(self) -> None:
        """End the thread after what was handed in before."""
        self._work.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()


def _answer(future: asyncio.Future[Any], answer: Any, failure: BaseException | None) -> None:
    if future.cancelled():
        return
    if failure is None:
        future.set_result(answer)
    else:
        future.set_exception(failure)


def _rollback(driver: Driver) -> None:
    # A failed statement may have ended the transaction already (a full disk does).
    if driver.in_transaction():
        driver.execute("ROLLBACK")


def _pause(name: str, deadline: float, wait: float) -> None:
    if time.monotonic() + wait > deadline:
        raise StoreTimeout(f"{name}: another process kept the store locked until the deadline; nothing was applied")
    time.sleep(wait * (0.5 + random.random() / 2))
