"""One run of one job inside a worker, and the powers that its Context has."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from windlass.core.errors import LeaseLost
from windlass.core.job import Held, LogLine, Meta, NewJob, Progress, Token
from windlass.ports.plan import Plan
from windlass.runtime.registry import TaskDef

if TYPE_CHECKING:
    import asyncio

    from windlass.ports.store import Opened

_decode_meta = lru_cache(maxsize=1_024)(msgspec.json.Decoder(Meta).decode)
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
        "started",
        "stop_flag",
        "task",
        "taskdef",
        "timed_out",
    )

    def __init__(self, held: Held, taskdef: TaskDef, slot: int, started: float, opened: Opened, report: Report) -> None:
        self.held = held
        self.taskdef = taskdef
        self.slot = slot
        self.started = started
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

    def begin_transaction(self) -> Any:
        """Open the transaction that will also hold this job's completion; the same one every time."""
        if self.session is None:
            opener = getattr(self._opened.shell, "session", None)
            if opener is None or "transaction" not in self._opened.store.capabilities:
                from windlass.core.errors import CapabilityMissing

                raise CapabilityMissing("transaction: this store keeps no database that a handler could write to")
            self.session = opener()
        return self.session.connection

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


Report = Callable[[Run, Progress | LogLine], None]


def now_micros() -> int:
    """This machine's wall clock, for what a person reads; never for a lease or a due time."""
    return time.time_ns() // 1_000
