"""One run of one job inside a worker, and the powers that its Context has."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from windlass.core.errors import CapabilityMissing, LeaseLost, OutcomeUnknown, WindlassError
from windlass.core.job import Held, LogLine, Meta, NewJob, Progress, Token, read_meta
from windlass.ports.plan import Plan
from windlass.runtime.registry import Mode, TaskDef

if TYPE_CHECKING:
    import asyncio

    from windlass.ports.store import Opened

T = TypeVar("T")

_decode_meta = lru_cache(maxsize=1_024)(read_meta)
"""Most jobs of a task carry the same text, `{}` above all."""


class Session(Protocol):
    """An open writing transaction of the store, for `ctx.transaction()`."""

    connection: Any

    def run(self, plan: Plan[Any]) -> Any:
        """Run a plan inside it."""
        ...

    def commit(self) -> None:
        """Commit and give back."""
        ...

    def rollback(self) -> None:
        """Undo and give back."""
        ...


class Run:
    """What a worker keeps about one job from the claim to its outcome."""

    __slots__ = (
        "_opened",
        "_report",
        "cancel_requested",
        "children",
        "deadline",
        "held",
        "meta",
        "released",
        "session",
        "slot",
        "stop_flag",
        "task",
        "taskdef",
        "timed_out",
    )

    def __init__(self, held: Held, taskdef: TaskDef, slot: int, opened: Opened, report: Report) -> None:
        self.held = held
        self.taskdef = taskdef
        self.slot = slot
        self.meta: Meta = _decode_meta(held.meta)
        self.task: asyncio.Task[None] | None = None
        self.cancel_requested = False
        self.timed_out = False
        self.released = ""
        """Why the worker stops this run through no fault of the job; empty while it does not."""
        self.stop_flag = False
        self.deadline: float | None = None
        self.children: list[NewJob] = []
        self.session: Session | None = None
        self._opened = opened
        self._report = report

    @property
    def cancelled(self) -> bool:
        """Whether the handler is asked to stop, for whatever reason."""
        return self.stop_flag

    @property
    def url(self) -> str:
        """The store that this run belongs to."""
        return self._opened.url

    @property
    def in_transaction(self) -> bool:
        """Whether `begin_transaction` was called."""
        return self.session is not None

    @property
    def token(self) -> Token:
        """The fenced right to write about this run."""
        return self.held.token

    def report_progress(self, progress: Progress) -> None:
        """Note progress; the latest is written with the worker's next turn."""
        self._report(self, progress)

    def report_log(self, line: LogLine) -> None:
        """Note a log line; written with the worker's next turn."""
        self._report(self, line)

    def add_child(self, job: NewJob) -> None:
        """Enqueue `job` with this one's completion, or not at all."""
        self.children.append(job)

    def once(self, name: str, value: str | None) -> str | None:
        """Store or read the kept value of `name`; see Store.once."""
        plan = self._opened.store.once(self.token, name, value)
        # Inside ctx.transaction() the store's lock is ours: any other connection would wait for it in vain.
        return self.session.run(plan) if self.session is not None else self._opened.shell.run(plan)

    async def aonce(self, name: str, value: str | None) -> str | None:
        """As `once`, without blocking the event loop."""
        plan = self._opened.store.once(self.token, name, value)
        if self.session is not None:
            return self.session.run(plan)  # type: ignore[no-any-return]
        return await self._opened.async_shell().run(plan)

    def fan_out(self, name: str, after: int, jobs: Sequence[NewJob]) -> int:
        """Store children in one transaction, or read how many there are; see Store.fan_out."""
        plan = self._opened.store.fan_out(self.token, name, after, jobs)
        try:
            return self._opened.shell.run(plan)
        except OutcomeUnknown:  # sent again, it answers what the lost answer said
            return self._opened.shell.run(plan)

    async def afan_out(self, name: str, after: int, jobs: Sequence[NewJob]) -> int:
        """As `fan_out`, without blocking the event loop."""
        plan = self._opened.store.fan_out(self.token, name, after, jobs)
        try:
            return await self._opened.async_shell().run(plan)
        except OutcomeUnknown:
            return await self._opened.async_shell().run(plan)

    def begin_transaction(self) -> Any:
        """Open the transaction that will also hold this job's completion; the same one every time."""
        if self.session is None:
            if self.taskdef.mode is Mode.ASYNC and _on_a_loop():
                # Another job of this loop may hold the lock, and could not give it up while this one waits.
                raise WindlassError("ctx.transaction would stop the event loop; write `await ctx.atransaction()`")
            self.session = self._opener()()
        return self.session.connection

    async def abegin_transaction(self) -> Any:
        """As `begin_transaction`, waiting for the lock in a thread; one job of a loop at a time, as it is one lock."""
        if self.session is None:
            import asyncio

            loop = asyncio.get_running_loop()
            async with _turns.setdefault(loop, asyncio.Lock()):
                opening = aside(loop, self._opener())
                try:
                    self.session = await asyncio.shield(opening)
                except asyncio.CancelledError:
                    opening.add_done_callback(_roll_back)
                    raise
        return self.session.connection

    def _opener(self) -> Callable[[], Session]:
        opener: Callable[[], Session] | None = getattr(self._opened.shell, "session", None)
        if opener is None or "transaction" not in self._opened.store.capabilities:
            raise CapabilityMissing("transaction: this store keeps no database that a handler could write to")
        return opener

    def complete_in_session(self, settle: Plan[list[Any]]) -> None:
        """Settle inside the handler's own transaction and commit both, or raise LeaseLost with neither."""
        session, self.session = self.session, None
        assert session is not None
        try:
            answer = session.run(settle)[0]
        except BaseException:
            session.rollback()
            raise
        if answer != "applied":
            session.rollback()
            raise LeaseLost(self.held.id, f"job {self.held.id} was taken over: nothing of its transaction was kept")
        session.commit()

    def abandon_session(self) -> None:
        """Undo the handler's transaction, if it opened one."""
        session, self.session = self.session, None
        if session is not None:
            session.rollback()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def aside(loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> asyncio.Future[T]:
    """Run `work` in a thread of its own: in a pool full of jobs that wait for the store's lock, the commit that frees
    it would come last."""
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        answer, failure = None, None
        try:
            answer = work()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop was closed: the worker is gone, and its jobs are reaped
            loop.call_soon_threadsafe(_tell, future, answer, failure)

    threading.Thread(target=run, name="windlass-transaction", daemon=True).start()
    return future


def _tell(future: asyncio.Future[Any], answer: Any, failure: BaseException | None) -> None:
    if failure is None:
        future.set_result(answer)
    else:
        future.set_exception(failure)


def _on_a_loop() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _roll_back(opening: asyncio.Future[Session]) -> None:
    """Nobody waits for this transaction any more, and it holds the store's lock."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().rollback()


Report = Callable[[Run, Progress | LogLine], None]
