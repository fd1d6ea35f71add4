"""I/O for one SQLite file: transactions, waiting for the lock, and the hop to a thread for event loops."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from windlass.core.errors import OutcomeUnknown, StoreCorrupt, StoreError, StoreFull, StoreTimeout, StoreUnavailable
from windlass.ports.plan import NOW, Plan, Rows, Statement, drive
from windlass.stores.named_sql import load_queries
from windlass.stores.sqlite.driver import Busy, CallerDriver, Driver, IndexFull, Stale
from windlass.stores.sqlite.hints import HintListener, Hints
from windlass.stores.sqlite.store import RAW

T = TypeVar("T")

MARK = "windlass_job"
"""Our savepoint."""
ENDED = "the transaction that Windlass opened was ended by somebody else; its end belongs to whoever settles the job"

RETRY_FIRST = 0.0002
RETRY_MOST = 0.001
"""SQLite's lock is not fair: whoever asks most often gets it. 0.2 to 1 ms lets a web process in between two workers
that commit back to back; SQLite's own busy handler sleeps up to 100 ms and starves it."""

Clock = Callable[[], int]


class Shell:
    """Runs plans, each in one transaction, on a connection of its own per thread that is inside."""

    def __init__(self, connect: Callable[[float], Driver], hints: Hints, clock: Clock, timeout: float) -> None:
        """`connect` is given the instant of the monotonic clock until which it may wait for a lock."""
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
        self._pid = os.getpid()

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See ports.store.Shell."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        self.check()
        if not plan.write:
            with self._borrowed(deadline) as driver:
                return self._transaction(driver, plan, "BEGIN", deadline)
        if not self._writing.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StoreTimeout(f"{plan.name}: other threads of this process kept the store busy")
        try:
            with self._borrowed(deadline) as driver:
                return self._transaction(driver, plan, "BEGIN IMMEDIATE", deadline)
        finally:
            self._writing.release()

    def _transaction(self, driver: Driver, plan: Plan[T], begin: str, deadline: float) -> T:
        while True:
            self._begin(driver, begin, plan.name, deadline)
            try:
                answer = drive(iter(plan), lambda s: self.execute(driver, s))
                commit(driver)
            except Busy:
                # A reader while a WAL is recovered, or a writer whom readers of a file without one keep from its end:
                # the plan starts again from its beginning.
                self._undo(driver)
                pause(plan.name, deadline, RETRY_MOST)
            except (UnicodeError, OverflowError) as error:
                # Not to be had by way of an application, whose values were checked; to whoever called, a row like any
                # other that the store refuses.
                self._undo(driver)
                raise StoreError(f"{plan.name}: a value that cannot be stored: {error}") from error
            except BaseException as error:
                self._undo(driver, error)
                raise
            else:
                return answer

    def _undo(self, driver: Driver, error: BaseException | None = None) -> None:
        """Roll back. A connection whose input or output failed is not used again: after a failed flush the kernel may
        have dropped the very pages that SQLite believes to be written."""
        if isinstance(error, (StoreUnavailable, OutcomeUnknown, StoreCorrupt)) and not isinstance(error, StoreFull):
            self._broken.add(driver)
        try:
            rollback(driver)
        except (StoreError, Busy):  # closing it rolls back as well, and the error that led here is the one to tell
            self._broken.add(driver)

    def _begin(self, driver: Driver, begin: str, name: str, deadline: float) -> None:
        wait = RETRY_FIRST
        while True:
            try:
                driver.execute(begin)
            except Busy:
                pause(name, deadline, wait)
                wait = min(RETRY_MOST, wait * 1.5)
            else:
                return

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

    def check(self) -> None:
        """Raises StoreError where this shell must not be used: once it was closed, and in a forked child (I28)."""
        if self._closed:
            raise StoreError("this store was closed")
        if os.getpid() != self._pid:
            raise StoreError(
                f"this store was opened by process {self._pid}; its connections must not be used in a forked child, "
                "which has to open the store anew"
            )

    @contextmanager
    def _borrowed(self, deadline: float) -> Iterator[Driver]:
        driver = self._idle.pop() if self._idle else self._connect(deadline)
        try:
            yield driver
        finally:
            self._give_back(driver)

    def _give_back(self, driver: Driver) -> None:
        if self._closed or driver in self._broken:
            self._broken.discard(driver)
            discard(driver)
        else:
            self._idle.append(driver)

    def session(self, timeout: float | None = None) -> Session:
        """Open a writing transaction for a caller's own statements and ours: see Session."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        self.check()
        driver = self._connect(deadline)
        try:
            self._begin(driver, "BEGIN IMMEDIATE", "transaction", deadline)
            driver.execute(f"SAVEPOINT {MARK}")
        except BaseException:
            discard(driver)
            raise
        return Session(self, driver)

    def changed(self) -> int:
        """See ports.store.Shell. `data_version` moves when another connection commits: this one never writes."""
        self.check()
        with self._watching:
            if self._watch is None:
                self._watch = self._connect(time.monotonic() + self.timeout)
            try:
                return int(self._watch.execute("PRAGMA data_version")[0][0])
            except Busy:
                return -1
            except StoreError:
                broken, self._watch = self._watch, None
                discard(broken)
                raise

    def hint(self) -> None:
        """See ports.store.Shell."""
        self._hints.send()

    def listen(self) -> HintListener:
        """See ports.store.Shell."""
        return self._hints.listen()

    def close(self) -> None:
        """See ports.store.Shell."""
        self._closed = True
        if os.getpid() != self._pid:  # the connections are the parent's to close, and its threads may hold the locks
            return
        with self._writing, self._watching:
            for driver in [*self._idle, *([self._watch] if self._watch else [])]:
                discard(driver)
            self._idle.clear()
            self._watch = None
        self._hints.close()


class Session:
    """One open writing transaction on a connection of its own. `connection` is the library's: what is written through
    it and the plans run here are committed together, or not at all.

    A savepoint lies under all of it. Only the end of the transaction takes it away, so its absence shows that the
    handler, or a conflict clause of the handler's, ended the transaction, even where it began another one.
    """

    def __init__(self, shell: Shell, driver: Driver) -> None:
        self._shell = shell
        self._driver = driver
        self.connection = driver.raw

    def run(self, plan: Plan[T]) -> T:
        """Run `plan` inside the transaction. Raises StoreError if the handler ended it."""
        if not self._driver.in_transaction():
            raise StoreError(ENDED)
        try:
            return drive(iter(plan), lambda s: self._shell.execute(self._driver, s))
        except Busy as error:
            raise StoreTimeout(f"{plan.name}: readers kept the file locked; nothing was applied") from error

    def commit(self) -> None:
        """Commit everything and give the connection back. Raises StoreError if the handler ended the transaction."""
        deadline = time.monotonic() + self._shell.timeout
        try:
            self._release()
            while True:
                try:
                    return commit(self._driver)
                except Busy:  # readers of a file without a WAL; the transaction stays open
                    pause("transaction", deadline, RETRY_MOST)
        finally:
            self.rollback()

    def _release(self) -> None:
        try:
            self._driver.execute(f"RELEASE {MARK}")
        except StoreUnavailable:
            raise
        except StoreError as error:
            raise StoreError(ENDED) from error

    def rollback(self) -> None:
        """Undo what was not committed and give the connection back."""
        with suppress(StoreError, Busy):  # closing it rolls back as well
            rollback(self._driver)
        discard(self._driver)


class CallerShell:
    """A narrower shell on the caller's own connection: no begin it did not imply, no commit, no restart."""

    def __init__(self, shell: Shell, driver: CallerDriver) -> None:
        self._shell = shell
        self._driver = driver

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """Run `plan` under a savepoint of the caller's transaction; the caller commits.

        On a connection that commits by itself (`isolation_level=None`, `autocommit=True`) and has no transaction open,
        the savepoint is the transaction, and is committed here.
        """
        self._shell.check()
        try:
            with self._driver.as_ours(self._shell.timeout if timeout is None else timeout):
                return self._under_savepoint(plan)
        except Stale as error:
            raise StoreUnavailable(
                f"{plan.name}: the open transaction has read what another connection changed since, so it cannot write "
                "any more: roll it back, and begin the next one with BEGIN IMMEDIATE"
            ) from error
        except Busy as error:
            raise StoreTimeout(f"{plan.name}: the database is locked by another connection") from error

    def _under_savepoint(self, plan: Plan[T]) -> T:
        driver = self._driver
        opened = driver.in_transaction()
        if not opened:
            # What sqlite3 does before a caller's INSERT, and with the lock that we would need a moment later.
            driver.execute("BEGIN IMMEDIATE")
        try:
            driver.execute(f"SAVEPOINT {MARK}")
            answer = drive(iter(plan), lambda s: self._shell.execute(driver, s))
            driver.execute(f"RELEASE {MARK}")
            if not opened and driver.commits_itself():
                commit(driver)
        except BaseException:
            with suppress(StoreError, Busy):  # a full disk has ended the transaction already
                if opened:
                    driver.execute(f"ROLLBACK TO {MARK}")
                    driver.execute(f"RELEASE {MARK}")
                else:
                    rollback(driver)
            raise
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
        self._shell.check()  # in a forked child there is no such thread
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


def commit(driver: Driver) -> None:
    """Commit. Where there was no room to write, nothing has happened. After any other failure the pages may be in the
    file, and a crash before they are overwritten would bring them to life."""
    try:
        driver.execute("COMMIT")
    except StoreUnavailable as error:
        if isinstance(error, StoreFull) and not isinstance(error, IndexFull):
            raise
        raise OutcomeUnknown(f"the answer to a commit was lost: {error}") from error


def rollback(driver: Driver) -> None:
    """Roll back, unless a failed statement has ended the transaction already (a full disk does)."""
    if driver.in_transaction():
        driver.execute("ROLLBACK")


def discard(driver: Driver) -> None:
    """Close it, whatever became of it."""
    with suppress(StoreError, Busy):
        driver.close()


def pause(name: str, deadline: float, wait: float) -> None:
    if time.monotonic() + wait > deadline:
        raise StoreTimeout(f"{name}: another process kept the store locked until the deadline; nothing was applied")
    time.sleep(wait * (0.5 + random.random() / 2))
