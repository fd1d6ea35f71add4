"""A handle to one job: its state, its result, its cancellation, from anywhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from windlass.core import job as records
from windlass.core.duration import Duration, seconds
from windlass.core.errors import JobCancelled, JobExpired, JobFailed, JobNotFound, ResultExpired, ResultTimeout
from windlass.core.job import ErrorInfo, Progress, State
from windlass.patience import Wait, await_, until, wait
from windlass.ports.store import Selected, Store

if TYPE_CHECKING:
    from windlass.app import Windlass

R = TypeVar("R")


class Job(Generic[R]):
    """A job that may be anywhere. Holding one costs nothing: every method asks the store.

    `id` is its address. `created` is False where an idempotency key had been used before, and this is the job of then,
    or where another job has the same unique key, and this is that one.
    """

    __slots__ = ("_app", "created", "id")

    def __init__(self, app: Windlass, id: str, *, created: bool = True) -> None:
        self._app = app
        self.id = id
        self.created = created

    def __repr__(self) -> str:
        return f"<job {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def refresh(self) -> records.Job:
        """Everything about the job but its history, as of now. Raises JobNotFound."""
        return self._app.client.fetch(self.id)

    async def arefresh(self) -> records.Job:
        """`refresh` for an event loop."""
        return await self._app.aclient.fetch(self.id)

    def state(self) -> State:
        """Its state now. Raises JobNotFound."""
        return self.refresh().state

    async def astate(self) -> State:
        """`state` for an event loop."""
        return (await self.arefresh()).state

    def progress(self) -> Progress | None:
        """The latest progress that the job reported, if any. Raises JobNotFound."""
        return progress_of(self.refresh())

    async def aprogress(self) -> Progress | None:
        """`progress` for an event loop."""
        return progress_of(await self.arefresh())

    def cancel(self, *, children: bool = False) -> Selected:
        """Cancel it: at once if it waits; a running one is told. Says which of the two, or that it had ended.

        With `children`, all its descendants as well, also those that it or they would enqueue before they have stopped.
        """
        return self._app.client.cancel(self.id, children=children)

    async def acancel(self, *, children: bool = False) -> Selected:
        """`cancel` for an event loop."""
        return await self._app.aclient.cancel(self.id, children=children)

    def result(self, timeout: Duration | None = None) -> R:
        """Wait until the job has ended and return its result.

        `timeout` is a duration ("10s", a timedelta, seconds); None waits for ever. Waiting asks the store for a change
        number only, at most every millisecond and soon every 50 ms, and reads the job when that moved.

        Raises InvalidValue for what is no duration, ResultTimeout (the job goes on), JobFailed, JobCancelled,
        JobExpired, ResultExpired, JobNotFound.
        """
        return cast(R, wait(self._app.engine, self._waiting(timeout)))

    async def aresult(self, timeout: Duration | None = None) -> R:
        """`result` for an event loop."""
        return cast(R, await await_(self._app.engine, self._waiting(timeout)))

    def _waiting(self, timeout: Duration | None) -> Wait[Any]:
        deadline = None if timeout is None else time.monotonic() + seconds(timeout, "timeout")
        opened = self._app.engine.opened()
        late = lambda: ResultTimeout(self.id, f"job {self.id} had not ended after {timeout}; it goes on")
        record = yield from until(opened, lambda: self._look(opened.store), deadline, late)
        return self._app.outcome(record)

    def _look(self, store: Store) -> Wait[records.Job | None]:
        record = (yield store.fetch((self.id,)))[0]
        if record is None:
            raise JobNotFound(self.id, f"job {self.id} is not in the store")
        return record if record.state.terminal else None


def progress_of(record: records.Job) -> Progress | None:
    """The latest progress of a job that was read."""
    return None if record.progress is None else msgspec.json.decode(record.progress, type=Progress)


def ending(record: records.Job) -> str:
    """The result text of an ended job; raises what it ended by."""
    if record.state is State.DEAD:
        error = ErrorInfo("") if record.error is None else msgspec.json.decode(record.error, type=ErrorInfo)
        raise JobFailed(record.id, record.reason or "failed", error.kind, error.message, error.trace)
    if record.state is State.CANCELLED:
        raise JobCancelled(record.id, f"job {record.id} was cancelled")
    if record.state is State.EXPIRED:
        raise JobExpired(record.id, f"job {record.id} expired before it could start")
    if record.result_expired:
        raise ResultExpired(record.id, f"job {record.id} completed; its result was kept for its time to live only")
    return record.result or "null"
