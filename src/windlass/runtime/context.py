"""What a running job may ask of its worker: `Context` is the user's side, `Run` what an executor implements."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from windlass.core.errors import WindlassError
from windlass.core.job import Held, LogLine, Meta, NewJob, Progress, Token

P = ParamSpec("P")
T = TypeVar("T")

Arguments = Any
"""Of one call: a tuple of positional ones, a dict of named ones, or a Call."""

LEVELS = ("debug", "info", "warning", "error")
NOTE_MOST = 1_000
MESSAGE_MOST = 8_192
BATCH = 1_000
BATCH_MOST = 10_000
OURS = "windlass:"
"""How names begin under which Windlass itself keeps something with a job."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Run(Protocol):
    """One run of one job, as its executor implements it. Every method may be called from the handler's thread."""

    @property
    def url(self) -> str:
        """`Opened.url` of the store that it belongs to."""
        ...

    @property
    def held(self) -> Held:
        """The job."""
        ...

    @property
    def meta(self) -> Meta:
        """Its Meta, decoded."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether this run should stop: cancelled, out of time, or taken over."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether `begin_transaction` was called."""
        ...

    def report_progress(self, progress: Progress) -> None:
        """Take the latest progress; never blocks, never fails."""
        ...

    def report_log(self, line: LogLine) -> None:
        """Take a log line; never blocks, never fails."""
        ...

    def once(self, name: str, value: str | None) -> str | None:
        """Run the plan `Store.once`, blocking."""
        ...

    async def aonce(self, name: str, value: str | None) -> str | None:
        """Run the plan `Store.once`."""
        ...

    def fan_out(self, name: str, after: int, jobs: Sequence[NewJob]) -> int:
        """Run the plan `Store.fan_out`, blocking."""
        ...

    async def afan_out(self, name: str, after: int, jobs: Sequence[NewJob]) -> int:
        """Run the plan `Store.fan_out`."""
        ...

    def add_child(self, job: NewJob) -> None:
        """Enqueue `job` with this job's completion, or not at all."""
        ...

    def begin_transaction(self) -> Any:
        """The connection of one open writing transaction, in which the executor settles this job after its handler
        returned; it is rolled back if the handler raises. The same one when asked again."""
        ...

    async def abegin_transaction(self) -> Any:
        """As `begin_transaction`, without blocking the event loop."""
        ...


class Enqueueable(Protocol[P]):
    """What `Context.enqueue` needs of a task."""

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Its arguments; here a type checker learns which they are."""
        ...

    def new_job(self, args: tuple[Any, ...], kwargs: dict[str, Any], run: Run | None) -> NewJob:
        """The job, complete; a child of `run`'s."""
        ...


class Children(Protocol[P]):
    """What `Context.fan_out` needs of a task."""

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Its arguments."""
        ...

    def children(
        self, calls: Iterable[Arguments], run: Run, name: str, after: int, batch: int
    ) -> Iterator[Sequence[NewJob]]:
        """The children of `run` for those of `calls` that stand behind the first `after`, in batches; the id of each
        follows from the run's job, from `name` and from its place."""
        ...


current_run: ContextVar[Run | None] = ContextVar("windlass_run", default=None)
"""The run whose handler is executing here; what it enqueues is its child. Set by the executor."""


class Context:
    """A job's own view of itself. A handler gets it by a parameter annotated `Context`.

    `id`, `task`, `queue`, `attempt` (from 1), `token` (job id and fence: a number that only grows, to hand to other
    systems that must refuse a ghost), `headers`, `correlation_id` (shared by a job and all its descendants),
    `parent_id` (empty for a job that no job enqueued), `schedule` (the name of the one that made the job, or empty) and
    `tick` (the instant for which it did, a datetime in UTC, or None).

    Called plainly, outside a worker, a task gets a detached Context: progress and log lines go nowhere, `once` calls
    its function, and what needs a store says so.
    """

    __slots__ = (
        "_run",
        "attempt",
        "correlation_id",
        "headers",
        "id",
        "parent_id",
        "queue",
        "schedule",
        "task",
        "tick",
        "token",
    )

    def __init__(self, run: Run | None = None) -> None:
        """For executors; tests may use `Context()`, which is detached."""
        self._run = run
        held = run.held if run else _DETACHED
        meta = run.meta if run else _PLAIN
        self.id: str = held.id
        self.task: str = held.task
        self.queue: str = held.queue
        self.attempt: int = held.attempt
        self.token: Token = held.token
        self.headers: Mapping[str, str] = meta.headers
        self.correlation_id: str = meta.correlation_id or held.id
        self.parent_id: str = meta.parent_id
        self.schedule: str = meta.schedule
        self.tick: datetime | None = None if meta.tick is None else _EPOCH + timedelta(microseconds=meta.tick)

    @property
    def cancelled(self) -> bool:
        """Whether this run should stop: it was cancelled, is out of time, or was taken over.

        An async handler is cancelled as any asyncio task; a handler in a thread has to look here now and then.
        """
        return self._run is not None and self._run.cancelled

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the job is; the latest wins and is shown to whoever reads the job. `note` keeps 1,000 characters.

        Cheap enough for a loop: what is reported between two writes of the worker is replaced, not queued. Raises
        ValueError for what is no finite number.
        """
        _finite(done, "done")
        if total is not None:
            _finite(total, "total")
        if self._run is not None:
            self._run.report_progress(Progress(done, total, _printable(str(note)[:NOTE_MOST]), _now()))

    def log(self, message: str, level: str = "info") -> None:
        """Append a line to the job's own log (1,000 lines of 8,192 characters are kept).

        `level` is one of debug, info, warning, error; raises ValueError for another.
        """
        if level not in LEVELS:
            raise ValueError(f"level: {level!r} must be one of {', '.join(LEVELS)}")
        if self._run is not None:
            self._run.report_log(LogLine(_now(), level, _printable(str(message)[:MESSAGE_MOST])))

    def once(self, name: str, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return `fn(*args, **kwargs)`, calling it in the first attempt only: its result is kept with the job under
        `name`, and a later attempt gets that.

        The result travels as JSON. If the worker dies between the call and the keeping of its result, the call is
        repeated: pass `ctx.token` or a key of your own to systems that can refuse a repetition. Raises LeaseLost when
        the job was taken over meanwhile, PayloadInvalid for a result that is not JSON.
        """
        from windlass.core.codec import Limits, encode_result

        run = self._before_transaction("once", name)
        if run is None:
            return fn(*args, **kwargs)
        kept = run.once(name, None)
        if kept is None:
            kept = run.once(name, encode_result(fn(*args, **kwargs), Limits(), f"once({name!r})"))
        result: T = _decoded(kept)
        return result

    async def aonce(self, name: str, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `once`, for a coroutine function."""
        from windlass.core.codec import Limits, encode_result

        run = self._before_transaction("aonce", name)
        if run is None:
            return await fn(*args, **kwargs)
        kept = await run.aonce(name, None)
        if kept is None:
            kept = await run.aonce(name, encode_result(await fn(*args, **kwargs), Limits(), f"aonce({name!r})"))
        result: T = _decoded(kept)
        return result

    def enqueue(self, task: Enqueueable[P], *args: P.args, **kwargs: P.kwargs) -> str:
        """Enqueue a child, atomically with this job's completion: if this attempt fails, there is no child.

        Returns the child's id. It carries this job's correlation id and headers, and this job as its parent. (A plain
        `task.enqueue()` in a handler is committed at once, and again by every attempt.)
        """
        run = self._attached("enqueue")
        job = task.new_job(args, kwargs, run)
        run.add_child(job)
        return job.id

    def fan_out(
        self, task: Children[P], calls: Iterable[Arguments], *, batch: int = BATCH, name: str = "children"
    ) -> int:
        """Enqueue a child for each of `calls` (tuples, dicts of named arguments, or `task.call(...)`), at once and in
        batches, and return how many there are. For children too many for one transaction.

        A batch (1..10,000 calls) is stored whole or not at all, and counted with the job: an attempt after a crash goes
        on where the one before stopped, and each child exists once. So `calls` must be the same, in the same order, in
        every attempt; what a query answered can be kept with `once`. Two fan-outs of one job need different names.

        Raises LeaseLost when the job was taken over meanwhile, and PayloadInvalid for arguments that do not fit, as
        `calls[n]`; the batches before it are stored.
        """
        run, fan = self._fan("fan_out", name, batch)
        done = run.fan_out(fan, 0, ())
        for jobs in task.children(calls, run, fan, done, batch):
            done = run.fan_out(fan, done, jobs)
        return done

    async def afan_out(
        self, task: Children[P], calls: Iterable[Arguments], *, batch: int = BATCH, name: str = "children"
    ) -> int:
        """As `fan_out`, for an event loop."""
        run, fan = self._fan("afan_out", name, batch)
        done = await run.afan_out(fan, 0, ())
        for jobs in task.children(calls, run, fan, done, batch):
            done = await run.afan_out(fan, done, jobs)
        return done

    def _fan(self, what: str, name: str, batch: int) -> tuple[Run, str]:
        if type(batch) is not int or not 1 <= batch <= BATCH_MOST:
            raise ValueError(f"batch: {batch!r} must be a whole number, 1..{BATCH_MOST}")
        self._attached(what)
        run = self._before_transaction(what, name)
        assert run is not None
        return run, f"{OURS}{name}"

    def transaction(self) -> Transaction:
        """Return the connection of a writing transaction on the store's own database, which commits together with this
        job's completion, or not at all.

        Whatever is written through it happens exactly once. Keep it short: on SQLite it holds the one write lock from
        here to the end of the handler, on PostgreSQL the locks of what it writes. Commit and rollback are the worker's;
        an exception rolls back. Raises StoreTimeout if the lock could not be had in time; in an `async def`,
        `await ctx.atransaction()`.
        """
        return Transaction(self._attached("transaction").begin_transaction())

    async def atransaction(self) -> Transaction:
        """As `transaction`, for an `async def`: other jobs of the event loop go on while this one waits for the lock,
        which one of them may hold."""
        return Transaction(await self._attached("atransaction").abegin_transaction())

    def _attached(self, what: str) -> Run:
        if self._run is None:
            raise WindlassError(f"ctx.{what} needs a worker: this task was called plainly, not run as a job")
        return self._run

    def _before_transaction(self, what: str, name: str) -> Run | None:
        if not 0 < len(name) <= 128 or name.startswith(OURS):
            raise ValueError(f"name: {name!r} must be text of 1 to 128 characters, which {OURS!r} does not begin")
        if self._run is not None and self._run.in_transaction:
            # It is kept at once, by a connection that would wait for ours until it times out.
            raise WindlassError(f"ctx.{what} must come before ctx.transaction, which locks the store")
        return self._run


class Transaction:
    """The store's connection, without the means to end the transaction: that is for whoever settles the job."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        """Run one statement and return its cursor."""
        self._check(sql)
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any) -> Any:
        """Run one statement once per row of parameters."""
        self._check(sql)
        return self._connection.executemany(sql, parameters)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing ends here: the transaction lasts until the job is settled."""

    def _check(self, sql: str) -> None:
        if end := _END.match(sql):
            raise WindlassError(f"{end[1].upper()} is the worker's: the transaction ends when the job is settled")
        if not self._connection.in_transaction:
            # Written now, it would be committed at once and by itself, whatever becomes of the job.
            raise WindlassError("the transaction has ended: a full disk or a clause OR ROLLBACK undid all of it")


def _decoded(text: str | None) -> Any:
    import msgspec

    return msgspec.json.decode(text or "null")


def _printable(text: str) -> str:
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _now() -> int:
    return time.time_ns() // 1_000


def _finite(number: Any, name: str) -> None:
    # An integer of a thousand digits is finite, and no JSON number that everyone reads.
    if not isinstance(number, (int, float)) or isinstance(number, bool) or not -1e300 < number < 1e300:
        raise ValueError(f"{name}: {number!r} must be a finite number")


_END = re.compile(
    r"(?:\s|;|--[^\n]*\n|/\*.*?\*/)*(BEGIN|COMMIT|END|ROLLBACK(?!\s+(?:TRANSACTION\s+)?TO\b))\b",
    re.IGNORECASE | re.DOTALL,
)
"""Behind any comments; ROLLBACK TO a savepoint is the handler's own affair."""
_PLAIN = Meta()
_DETACHED = Held(
    id="00000000-0000-7000-8000-000000000000",
    fence=0,
    task="",
    version=1,
    queue="default",
    tenant="",
    payload="[[],{}]",
    meta="{}",
    attempt=1,
    crashes=0,
    losses=0,
    suspect=False,
    priority=50,
    created_at=0,
    due_at=0,
    started_at=0,
)
