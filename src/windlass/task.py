"""Tasks: functions that can also be enqueued."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import islice
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

import msgspec

from windlass.core.backoff import Backoff
from windlass.core.duration import Duration
from windlass.core.errors import InvalidJob, RegistrationError, UnknownTask
from windlass.core.job import Meta, NewJob, Policy
from windlass.core.placement import SHARDS, head_start, job_id, job_ids
from windlass.declaration import Call, Declaration, Remote, as_call
from windlass.handle import Job
from windlass.keys import Key
from windlass.limits import Limit
from windlass.options import JobOptions, Terms
from windlass.runtime.context import Context, Run, current_run
from windlass.runtime.registry import TaskDef
from windlass.unique import Unique

if TYPE_CHECKING:
    from windlass.app import Windlass

P = ParamSpec("P")
R = TypeVar("R")
Old = TypeVar("Old", bound=Callable[..., Any])

_encode = msgspec.json.encode
_DEFAULT_POLICY = Policy()


class TaskOptions(TypedDict, total=False):
    """Options of `@app.task`; those that JobOptions has too are defaults, which `using` overrules."""

    name: str | None
    """Default: module and qualified name, where `__main__` is the file's name without ".py"."""
    queue: str
    priority: int
    max_attempts: int
    backoff: Backoff
    timeout: Duration | None
    grace: Duration
    executor: Literal["process"] | None
    """process: in a child that can be killed, for CPU work. None: `async def` on the event loop, `def` in a thread."""
    version: int
    """Of the payload. Jobs of a newer version than a worker knows wait for a worker that knows it."""
    tags: Sequence[str]
    result_ttl: Duration
    transient: Sequence[type[BaseException]]
    """Exceptions after which trying again can help, whatever is known of them in general."""
    permanent: Sequence[type[BaseException]]
    """Exceptions after which it cannot: the job is dead at once."""
    exclusive: bool
    """No two runs of one job ever overlap, not even of one that was cut off from the store; implies process."""
    limit: int | Limit | Sequence[int | Limit] | None
    """How many of its jobs may run at once, anywhere; see Limit for more."""
    unique: Unique | None
    """At most one of its jobs with the same key lives; see Unique."""
    limit_key: Key
    """Beside a `limit` that is a number: it holds for each value of this parameter, or of this function of them."""
    crash_budget: int
    """Crashes that are certainly the job's own, after which it is dead."""


class Task(Generic[P, R]):
    """A function that can be enqueued. Made by `@app.task`; `R` is what its job's result is.

    Calling it runs the function, as any function. `enqueue` and the rest take the arguments of the function, without
    those that the worker provides.
    """

    def __init__(self, app: Windlass, declaration: Declaration | Remote, terms: Terms) -> None:
        self._app = app
        self._declaration = declaration
        self._terms = terms
        self._fixed: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The task's name, as stored with its jobs."""
        return self._declaration.name

    @property
    def version(self) -> int:
        """The version of the payloads of its new jobs."""
        return self._declaration.version

    @property
    def options(self) -> Terms:
        """The terms on which its jobs are enqueued."""
        return self._terms

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself. Raises UnknownTask where it is known by name only."""
        return self._declared().function

    def taskdef(self) -> TaskDef:
        """What a worker needs to know. Raises RegistrationError for a signature that cannot work."""
        return self._declared().taskdef()

    def decode(self, result: str) -> Any:
        """JSON text of a result to the type that the function declares."""
        return self._declaration.decode(result)

    def _declared(self) -> Declaration:
        if isinstance(self._declaration, Remote):
            raise UnknownTask(f"task {self.name} is known by its name only; its code is elsewhere")
        return self._declaration

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def using(self, **options: Unpack[JobOptions]) -> Self:
        """Return this task with other options for its jobs: `task.using(delay="10m", priority=80).enqueue(7)`.

        See JobOptions for what there is. Raises InvalidJob that names the option.
        """
        return type(self)(self._app, self._declaration, self._terms.having(options))

    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> Call:
        """The arguments of one call, for `enqueue_many`."""
        return Call(args, kwargs)

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store one job and return a handle to it. When this returns, the job is committed.

        Raises PayloadInvalid or PayloadTooLarge for arguments that do not fit, InvalidJob for a key that cannot be had
        from them; IdempotencyConflict; DuplicateJob; and within
        `enqueue_timeout` (5 s) StoreTimeout, or at once StoreUnavailable or StoreFull: nothing was stored.
        OutcomeUnknown says that it may have been.
        """
        job = self.new_job(args, kwargs, current_run.get())
        (answer,) = self._app.engine.submit((job,))
        return Job(self._app, answer.id, created=answer.inserted)

    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """`enqueue` for an event loop."""
        job = self.new_job(args, kwargs, current_run.get())
        (answer,) = await self._app.engine.asubmit((job,))
        return Job(self._app, answer.id, created=answer.inserted)

    def enqueue_many(self, calls: Iterable[Call | tuple[Any, ...] | dict[str, Any]]) -> list[Job[R]]:
        """Store many jobs in one transaction: all of them, or none.

        Each call is a tuple of arguments, a dict of named ones, or `task.call(...)`. Raises as `enqueue`; the number of
        the guilty call is in the error's `field`.
        """
        jobs = self._new_jobs(calls, current_run.get())
        return [Job(self._app, answer.id, created=answer.inserted) for answer in self._app.engine.submit(jobs)]

    async def aenqueue_many(self, calls: Iterable[Call | tuple[Any, ...] | dict[str, Any]]) -> list[Job[R]]:
        """`enqueue_many` for an event loop."""
        jobs = self._new_jobs(calls, current_run.get())
        return [Job(self._app, answer.id, created=answer.inserted) for answer in await self._app.engine.asubmit(jobs)]

    def upcast(self, from_version: int) -> Callable[[Old], Old]:
        """Declare how a payload of `from_version` becomes one of the next version.

        The decorated function has the old parameters, and returns the new arguments as `task.call(...)`, a tuple or a
        dict. Versions are crossed one by one.
        """
        declaration = self._declared()
        if not 1 <= from_version < declaration.version:
            raise RegistrationError(
                f"task {self.name}: from_version: {from_version!r} must be 1 to {declaration.version - 1}, "
                f"as the task's version is {declaration.version}"
            )

        def register(function: Old) -> Old:
            declaration.upcasters[from_version] = function
            return function

        return register

    def new_job(self, args: tuple[Any, ...], kwargs: dict[str, Any], run: Run | None) -> NewJob:
        """The job, complete but not stored; a child of `run`'s. Raises PayloadInvalid, PayloadTooLarge."""
        payload = self._declaration.pack(args, kwargs)
        (id,) = new_ids(1, self._terms.partition_key)
        particulars = self._particulars(run, args, kwargs, payload)
        return NewJob(id=id, payload=payload, digest=self._digest(payload), **particulars)

    def _new_jobs(
        self, calls: Iterable[Call | tuple[Any, ...] | dict[str, Any]], run: Run | None, first: int = 0
    ) -> list[NewJob]:
        payloads, particulars, pack = [], [], self._declaration.pack
        for number, given in enumerate(calls, first):
            try:
                call = as_call(given, "arguments")
                payloads.append(pack(call.args, call.kwargs))
                particulars.append(self._particulars(run, call.args, call.kwargs, payloads[-1]))
            except InvalidJob as error:
                raise type(error)(f"calls[{number}].{error.field}", error.problem) from None
        ids = new_ids(len(payloads), self._terms.partition_key)
        return [
            NewJob(id=id, payload=payload, digest=self._digest(payload), **each)
            for id, payload, each in zip(ids, payloads, particulars, strict=True)
        ]

    def children(
        self, calls: Iterable[Call | tuple[Any, ...] | dict[str, Any]], run: Run, name: str, after: int, batch: int
    ) -> Iterator[list[NewJob]]:
        """The children of a fan-out, in batches, without the first `after`; see Context.fan_out."""
        left = islice(enumerate(calls), after, None)
        while given := list(islice(left, batch)):
            first = given[0][0]
            jobs = self._new_jobs((call for _, call in given), run, first)
            yield [msgspec.structs.replace(job, id=self._child_id(run, name, first + n)) for n, job in enumerate(jobs)]

    def _child_id(self, run: Run, name: str, place: int) -> str:
        """In the same millisecond as the job's own, so that it is the same whenever it is made."""
        from hashlib import blake2b

        noise = blake2b(f"{run.held.id}\n{name}\n{place}".encode(), digest_size=10).digest()
        key = self._terms.partition_key
        milliseconds = int(run.held.id[:8] + run.held.id[9:13], 16)
        return job_id(milliseconds, noise, zlib.crc32(key.encode()) % SHARDS if key else None)

    def _particulars(
        self, run: Run | None, args: tuple[Any, ...], kwargs: dict[str, Any], payload: str
    ) -> dict[str, Any]:
        """Everything about one job but its id and payload. Raises InvalidJob for a key that cannot be had."""
        common, terms = self._common(run), self._terms
        if not (terms.limits or terms.unique):
            return common
        arguments = self._declaration.named(args, kwargs)
        limits = tuple(limit.of(self.name, arguments) for limit in terms.limits)
        unique = terms.unique.of(arguments, payload) if terms.unique else None
        meta = msgspec.structs.replace(self._meta(run), limits=limits, unique=unique)
        if terms.unique and terms.unique.after:
            if terms.after or terms.at is not None:
                raise InvalidJob("unique", "a debounce says itself when the job is due; leave out delay and at")
            common = {**common, "after": terms.unique.after}
        return {**common, "meta": _encode(meta).decode()}

    def _common(self, run: Run | None) -> dict[str, Any]:
        """Everything about a job that its arguments do not say; made once for all that have no parent."""
        if run is None and self._fixed is not None:
            return self._fixed
        terms = self._terms
        common = {
            "task": self.name,
            "version": self._declaration.version,
            "queue": terms.queue,
            "priority": terms.priority,
            "head_start": head_start(terms.priority, self._app.settings.seconds_per_priority),
            "after": terms.after,
            "at": terms.at,
            "expires_after": terms.expires_after,
            "expires_at": terms.expires_at,
            "idempotency_key": terms.idempotency_key,
            "meta": _encode(self._meta(run)).decode(),
        }
        if run is None:
            self._fixed = common
        return common

    def _meta(self, run: Run | None) -> Meta:
        terms = self._terms
        meta: dict[str, Any] = {"headers": terms.headers, "tags": terms.tags, "partition_key": terms.partition_key}
        if run is not None:
            meta["headers"] = {**run.meta.headers, **terms.headers}
            meta["correlation_id"] = run.meta.correlation_id or run.held.id
            meta["parent_id"] = run.held.id
        if terms.policy != _DEFAULT_POLICY:
            meta["policy"] = terms.policy  # msgspec does not see that a Struct is the default one
        return Meta(**meta)

    def _digest(self, payload: str) -> str:
        if self._terms.idempotency_key is None:
            return ""
        from hashlib import blake2b

        text = f"{self.name}\n{self._declaration.version}\n{payload}"
        return blake2b(text.encode(), digest_size=16).hexdigest()


class SyncTask(Task[P, R]):
    """A task whose function is a plain `def`."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function, here and now."""
        return cast(R, self._declared().call(args, kwargs))


class AsyncTask(Task[P, R]):
    """A task whose function is an `async def`."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Make the function's coroutine, to be awaited as any."""
        return cast("Coroutine[Any, Any, R]", self._declared().call(args, kwargs))


class Decorator(Protocol):
    """What `@app.task(...)` is: a Context in the first place is the worker's, so it is no argument of `enqueue`.

    To a type checker a first parameter annotated `object` takes a Context as well, and is left out too; say `Any`.
    """

    # A coroutine is a result like any other to mypy, so the overloads overlap; the first that fits is meant.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]]
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R]) -> SyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> SyncTask[P, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Any:
        """Register `function`."""
        ...


def new_ids(count: int, partition_key: str = "") -> list[str]:
    """Fresh job ids; all jobs of one partition key lie in one virtual shard."""
    # The shard of a key must be the same in every process and release.
    shard = zlib.crc32(partition_key.encode()) % SHARDS if partition_key else None
    return job_ids(time.time_ns(), os.urandom(8 * count), shard)
