"""I/O for one SQLite file: transactions, and waiting for the lock."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from windlass.core.errors import OutcomeUnknown, StoreCorrupt, StoreError, StoreFull, StoreTimeout, StoreUnavailable
from windlass.ports.plan import NOW, Plan, Rows, Statement, drive
from windlass.stores.named_sql import load_queries
from windlass.stores.sqlite.driver import Busy, Driver
from windlass.stores.sqlite.hints import HintListener, Hints
from windlass.stores.sqlite.store import RAW
from windlass.stores.sqlite.transaction import (
    ENDED,
    MARK,
    RETRY_FIRST,
    RETRY_GROWTH,
    RETRY_MOST,
    commit,
    discard,
    pause,
    rollback,
)

T = TypeVar("T")

BEAT = "beat"
IMMEDIATELY = "BEGIN IMMEDIATE"

PLACE_EVERY = 20
"""Looks for changes from one look at the file's place to the next: with the poll, a second. The path costs a processor
that has just woken up half as much as all the rest of the look."""

Clock = Callable[[], int]


class Shell:
    """Runs plans, each in one transaction, on a connection of its own per thread that is inside."""

    def __init__(
        self,
        connect: Callable[[float], Driver],
        hints: Hints,
        clock: Clock,
        timeout: float,
        writing: threading.Lock | None = None,
    ) -> None:
        """`connect` is given the instant of the monotonic clock until which it may wait for a lock. `writing` is
        the lock at which the writers of another shell for the same file queue in this process."""
        self._connect = connect
        self._hints = hints
        self._clock = clock
        self.timeout = timeout
        self._sql = load_queries("windlass.stores.sqlite")
        self._idle: list[Driver] = []
        # Writers of one process queue here: a plain lock wakes them at once, SQLite's would have them poll.
        self.writing = writing or threading.Lock()
        self.in_place: Callable[[], object] = lambda: None
        """Raises where the file is no longer the one that is open."""
        self._beats = 0
        """Beats that wait for their turn; counted without a lock, as one that is missed comes again."""
        self._looks = 0
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
        with self._queued(plan.name, deadline), self._borrowed(deadline) as driver:
            return self._transaction(driver, plan, IMMEDIATELY, deadline)

    @contextmanager
    def _queued(self, name: str, deadline: float) -> Iterator[None]:
        """The turn of this thread among those of its process that write."""
        self._beats += name == BEAT
        try:
            got = self.writing.acquire(timeout=max(0.0, deadline - time.monotonic()))
        finally:
            self._beats -= name == BEAT
        if not got:
            raise StoreTimeout(f"{name}: other threads of this process kept the store busy")
        try:
            yield
        finally:
            self.writing.release()

    def _transaction(self, driver: Driver, plan: Plan[T], begin: str, deadline: float) -> T:
        while True:
            self._begin(driver, begin, plan.name, deadline, queued=plan.write)
            try:
                answer = drive(iter(plan), lambda s: self.execute(driver, s))
                if plan.hint:
                    # Before the flush, which takes as long as it takes a worker to wake up: its claim then waits at the
                    # lock that is held here. Median from enqueue to start on a busy machine: 4.2 to 3.9 ms.
                    self._hints.send()
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

    def _begin(self, driver: Driver, begin: str, name: str, deadline: float, *, queued: bool = False) -> None:
        wait = RETRY_FIRST
        while True:
            try:
                driver.execute(begin)
            except Busy:
                # A lease is shorter than others may wait: whose turn it is lets a beat of this process try meanwhile.
                aside = queued and self._beats and name != BEAT
                if aside:
                    self.writing.release()
                try:
                    pause(name, deadline, wait)
                finally:
                    if aside:
                        self.writing.acquire()
                wait = min(RETRY_MOST, wait * RETRY_GROWTH)
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
            self._begin(driver, IMMEDIATELY, "transaction", deadline)
            driver.execute(f"SAVEPOINT {MARK}")
        except BaseException:
            discard(driver)
            raise
        return Session(self, driver)

    def changed(self) -> int:
        """See ports.store.Shell. `data_version` moves when another connection commits: this one never writes."""
        self.check()
        if self._looks % PLACE_EVERY == 0:
            self.in_place()
        self._looks += 1
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
        with self.writing, self._watching:
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
