"""The way from a finished NewJob into a store: opening it, deadlines, forks, the caller's transaction."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import msgspec

from windlass.config import Settings
from windlass.core.errors import ConfigError, OutcomeUnknown, StoreError, StoreTimeout, StoreUnavailable
from windlass.core.job import NewJob
from windlass.ports.envelope import envelopes
from windlass.ports.plan import Plan, Steps
from windlass.ports.store import Enqueued, Opened, Shell, Store
from windlass.refusal import refused
from windlass.runtime.context import current_run
from windlass.runtime.shared import must_let_work
from windlass.stores import open as open_store

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from windlass.gathering import Gatherer

T = TypeVar("T")


class Engine:
    """One store as one application uses it, in whatever process it finds itself."""

    opener: ClassVar[Callable[..., Opened]] = staticmethod(open_store)
    """What opens it; the pytest plugin puts a guard in its place."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opened: Opened | None = None
        self._migrated = False
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._gatherers: dict[AbstractEventLoop, Gatherer] = {}
        self._outbox: Engine | None = None
        self.wraps = False
        """It is an outbox's: what is laid down there only passes through."""
        self._lent: list[Opened] = []
        """Stores that workers in this process work on."""

    def bare(self) -> Opened:
        """The store, opened; nothing was asked of it yet."""
        if self._pid != os.getpid():
            self._forked()
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    lent = self._lent[0] if self._lent else None
                    self._opened = self.opener(self.settings.url, **self._options(lent))
        return self._opened

    def opened(self, timeout: float | None = None) -> Opened:
        """The store with its schema, which the first to come makes; raises SchemaError for a newer one."""
        opened = self.bare()
        if not self._migrated:
            opened.shell.run(opened.store.migrate(), timeout)
            self._migrated = True
        return opened

    async def aopened(self, timeout: float | None = None) -> Opened:
        """`opened` for an event loop."""
        opened = self.bare()
        if not self._migrated:
            await opened.async_shell().run(opened.store.migrate(), timeout)
            self._migrated = True
        return opened

    def lend(self) -> Opened:
        """The store for a worker in this process, with its schema, until `give_back`. It is one of the worker's own,
        which no handler can close by closing the application; only a store that lives in the process is shared. Raises
        ConfigError where its login may not work."""
        ours = self.opened()
        must_let_work(ours)
        lent = ours
        if "durable" in ours.store.capabilities:
            lent = self.opener(self.settings.url, **self._options(ours))
        self._lent.append(lent)
        return lent

    def give_back(self, lent: Opened) -> None:
        """End what `lend` began."""
        self._lent = [each for each in self._lent if each is not lent]
        if lent is not self._opened:
            lent.close()

    def close(self) -> None:
        """Give everything back; the next use opens the store again. A store that lives in the process, and that a
        worker works on, stays as it is: it would take the worker's jobs with it."""
        if self._outbox is not None:
            self._outbox.close()
        if self._opened in self._lent:
            return
        opened, self._opened, self._migrated = self._opened, None, False
        if opened is not None and self._pid == os.getpid():
            opened.close()

    def run(self, plan: Plan[T]) -> T:
        """Run a plan, and tell listeners if it wrote."""
        shell = self.opened().shell
        answer = shell.run(plan)
        if plan.write and not plan.hint:
            shell.hint()
        return answer

    async def arun(self, plan: Plan[T]) -> T:
        """`run` for an event loop."""
        opened = await self.aopened()
        answer = await opened.async_shell().run(plan)
        if plan.write and not plan.hint:
            opened.shell.hint()
        return answer

    def submit(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Store all jobs or none, within the deadline; see Task.enqueue."""
        if (answers := self._children(jobs)) is not None:
            return answers
        if (around := self._around()) is not None:
            return around.into.join(around, jobs)
        deadline = _Deadline(self.settings.enqueue_timeout)
        opened = self.opened(deadline.left())
        plan = storing(opened.store, jobs)
        unsure = False
        while True:
            try:
                return opened.shell.run(plan, deadline.left())
            except (OutcomeUnknown, StoreUnavailable) as error:
                # Jobs carry their ids, so sending them again answers what the lost answer said.
                unsure = deadline.again(error, unsure=unsure)

    async def asubmit(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """`submit` for an event loop."""
        if (answers := self._children(jobs)) is not None:
            return answers
        if (around := self._around()) is not None:
            return await around.into.ajoin(around, jobs)
        from windlass.gathering import answered, unanswered

        deadline = _Deadline(self.settings.enqueue_timeout)
        opened = await answered(self.aopened(deadline.left()), deadline.left(), _unopened)
        if len(jobs) == 1:
            return [await self._gatherer(opened).enqueue(jobs[0], deadline.left())]
        plan = storing(opened.store, jobs)
        unsure = False
        while True:
            try:
                return await answered(opened.async_shell().run(plan, deadline.left()), deadline.left(), unanswered)
            except (OutcomeUnknown, StoreUnavailable) as error:
                unsure = deadline.again(error, unsure=unsure)

    def _gatherer(self, opened: Opened) -> Gatherer:
        """That of the running event loop, on the store that is open now."""
        import asyncio

        from windlass.gathering import Gatherer

        loop = asyncio.get_running_loop()
        found = self._gatherers.get(loop)
        if found is None or found.opened is not opened:
            alive = {each: gatherer for each, gatherer in self._gatherers.items() if not each.is_closed()}
            found = alive[loop] = Gatherer(opened)
            self._gatherers = alive
        return found

    def _children(self, jobs: Sequence[NewJob]) -> list[Enqueued] | None:
        """The answers, if the jobs belong to the transaction of the job that is running here."""
        run = current_run.get()
        if run is not None and run.in_transaction and run.url == self.bare().url:
            # Its connection holds the store's write lock: any other way in would wait for it until the deadline.
            for job in jobs:
                run.add_child(job)
            return [Enqueued(job.id, True) for job in jobs]
        return None

    def _around(self) -> Transaction | None:
        """The block of `app.transaction(conn)` in which this call stands."""
        transaction = _transaction.get()
        here = transaction is not None and transaction.open and transaction.engine is self
        return transaction if here else None

    def outbox(self) -> Engine:
        """That of the application's outbox; raises ConfigError where there is none."""
        if not self.settings.outbox:
            raise ConfigError(
                "outbox: none is named; set it (WINDLASS_OUTBOX) to a store in the application's own database, for "
                "instance sqlite+stdlib:///app.db or postgresql://host/app"
            )
        if self._outbox is None:
            self._outbox = Engine(msgspec.structs.replace(self.settings, url=self.settings.outbox, outbox=None))
            self._outbox.wraps = True
        return self._outbox

    def open_outbox(self) -> Opened:
        """Its store, opened anew for whoever empties it."""
        assert self.settings.outbox is not None
        return self.opener(self.settings.outbox)

    def join(self, transaction: Transaction, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Store jobs on the caller's connection."""
        if self.wraps:
            jobs = envelopes(jobs)
        shell, store, timeout = transaction.shell, self.bare().store, self.settings.enqueue_timeout
        if not self._migrated:
            if transaction.begun:
                # It may hold the store's lock, for which `opened` would wait in vain; what is made here is the caller's
                # to undo, so only a schema that was there before is known to stay.
                before = shell.run(store.version(), timeout)
                self._migrated = before == shell.run(store.migrate(), timeout)
            else:
                self.opened(timeout)
        return shell.run(storing(store, jobs), timeout)

    async def ajoin(self, transaction: Transaction, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """`join`, on a connection that may belong to an event loop."""
        run = getattr(transaction.shell, "arun", None)
        if run is None:
            return self.join(transaction, jobs)
        if self.wraps:
            jobs = envelopes(jobs)
        timeout = self.settings.enqueue_timeout
        opened = await self.aopened(timeout)
        answers: list[Enqueued] = await run(storing(opened.store, jobs), timeout)
        return answers

    def _options(self, beside: Opened | None) -> dict[str, Any]:
        match self.settings.url.partition(":")[0]:
            case "sqlite" | "sqlite+stdlib":
                return {"durability": self.settings.durability, "beside": beside}
            case "memory":
                return {}
            case _:
                return {"beside": beside}

    def _forked(self) -> None:
        """A connection must not cross a fork (I28): not be used here, nor even be closed, SQLite says, which the
        interpreter would do when it lets go of it at its end; so it never does. The lock is new because a thread of
        the parent may have held the old one."""
        import ctypes

        for opened in [*self._lent, *([self._opened] if self._opened is not None else [])]:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened))
        self._lent = []
        self._opened, self._migrated, self._pid = None, False, os.getpid()
        self._lock = threading.Lock()
        self._gatherers = {}


class Transaction:
    """The block of `app.transaction(conn)`: what is enqueued in it becomes the caller's to commit or roll back.

    The block itself neither begins nor ends anything that the connection's own rules do not.
    """

    def __init__(self, engine: Engine, connection: Any, into: Engine | None = None) -> None:
        """Of what is enqueued through `engine`, which may be laid down in another one's store."""
        self.engine = engine
        self.into = into or engine
        self.open = False
        self._connection = connection
        self._shell: Shell | None = None
        self._token: Token[Transaction | None] | None = None

    @property
    def shell(self) -> Shell:
        """The narrower shell over the caller's connection."""
        assert self._shell is not None, "used outside its `with` block"
        return self._shell

    @property
    def begun(self) -> bool:
        """Whether a transaction is open on the caller's connection."""
        return bool(getattr(self.shell, "begun", getattr(self._connection, "in_transaction", True)))

    def __enter__(self) -> Self:
        """Raises CapabilityMissing where the connection cannot be joined."""
        self._shell = self.into.bare().own(self._connection)
        self._token = _transaction.set(self)
        self.open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open = False
        assert self._token is not None
        _transaction.reset(self._token)
        # Committed inside the block: workers may know at once. Committed later: their next look finds the jobs.
        if kind is None and not self.begun:
            self.shell.hint()


def in_transaction() -> bool:
    """Whether this is inside an `app.transaction(conn)` block, of whichever application."""
    transaction = _transaction.get()
    return transaction is not None and transaction.open


def storing(store: Store, jobs: Sequence[NewJob]) -> Plan[list[Enqueued]]:
    """Enqueue all or none: a conflict over a key undoes the others."""

    def steps() -> Steps[list[Enqueued]]:
        answers = yield from store.enqueue(jobs, whole=True)
        for job, answer in zip(jobs, answers, strict=True):
            refusal = refused(job, answer)
            if refusal is not None:
                raise refusal
        return answers

    return Plan(steps, "enqueue", write=True, hint=True)


class _Deadline:
    def __init__(self, timeout: float) -> None:
        self._end = time.monotonic() + timeout

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def again(self, error: StoreError, *, unsure: bool) -> bool:
        """Whether to try again after `error`, which is True or an exception. `unsure`: an earlier try may have
        stored the jobs; then "nothing was applied" is true of this one only."""
        lost = isinstance(error, OutcomeUnknown)
        if not lost and not unsure:
            raise error
        if not lost or time.monotonic() >= self._end:
            raise OutcomeUnknown(
                "enqueue: the answer was lost, and could not be had again before the deadline; the job may be stored"
            ) from error
        return True


def _unopened() -> StoreTimeout:
    return StoreTimeout("enqueue: the store could not be opened before the deadline; nothing was applied")


_transaction: ContextVar[Transaction | None] = ContextVar("windlass_transaction", default=None)
