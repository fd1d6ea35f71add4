"""The composition root: tasks, hooks, and a store, from a URL and settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, Unpack, overload

from windlass import config
from windlass.client import AsyncClient, Client
from windlass.config import Settings, SettingsArguments
from windlass.core import job as records
from windlass.core.codec import Limits
from windlass.core.duration import Duration
from windlass.core.errors import InvalidJob, InvalidSchedule, RegistrationError
from windlass.core.words import redacted
from windlass.declaration import Arguments, Declaration, Remote, call_of
from windlass.engine import Engine, Transaction
from windlass.handle import Job, ending
from windlass.lock import Lock
from windlass.names import valid_name, valid_version
from windlass.options import JobOptions, Terms
from windlass.ports.store import Opened
from windlass.runtime.context import Context
from windlass.runtime.registry import Mode, Registry
from windlass.task import AsyncTask, Decorator, SyncTask, Task, TaskOptions

if TYPE_CHECKING:
    from windlass.core.schedule import Definition
    from windlass.ports.store import ScheduleChange
    from windlass.runtime.embedded import Embedded
    from windlass.schedule import Schedule, ScheduleOptions

P = ParamSpec("P")
R = TypeVar("R")
Hook = TypeVar("Hook", bound=Callable[..., Any])

CO_COROUTINE = 0x80
CO_GENERATOR = 0x20
CO_ASYNC_GENERATOR = 0x200
"""Flags of code objects, as `inspect` names them; importing it would cost every program 10 ms."""


class Windlass:
    """An application: its tasks, its hooks and its store.

    `url` names the store ("sqlite:///jobs.db", "memory://"); without it WINDLASS_URL does, else the table
    [tool.windlass] of pyproject.toml, else it is sqlite:///windlass.db. The other settings are those of
    SettingsArguments, each of which may come from the same places. Raises ConfigError that names setting and origin.

    Nothing is opened before the first use; a store without a schema gets one then. An application may be used from any
    thread, from event loops, and after a fork.
    """

    def __init__(self, url: str | None = None, **settings: Unpack[SettingsArguments]) -> None:
        given = {**settings, **({} if url is None else {"url": url})}
        self.settings: Settings = config.load(given)
        self.engine = Engine(self.settings)
        self.client = Client(self)
        self.aclient = AsyncClient(self)
        self.tasks: dict[str, Task[..., Any]] = {}
        self.schedules: dict[str, Definition] = {}
        self._start_hooks: list[Callable[..., Any]] = []
        self._stop_hooks: list[Callable[..., Any]] = []
        self._offered: dict[Any, Any] | None = None
        limits = self.settings
        self._limits = Limits(limits.max_payload, limits.max_result, limits.max_depth)

    def __repr__(self) -> str:
        return f"<Windlass {redacted(self.settings.url)}, {len(self.tasks)} tasks>"

    # --- tasks ----------------------------------------------------------------------------------------------

    # A coroutine is a result like any other to mypy, so the overloads overlap; the first that fits is meant.
    @overload
    def task(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[Concatenate[Context, P], R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, /, **options: Unpack[TaskOptions]) -> Decorator: ...
    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Register a function as a task: `@app.task`, or `@app.task(queue="mail", max_attempts=3)`; see TaskOptions.

        `async def` runs on the worker's event loop, `def` in a thread, either with executor="process" in a child
        process of its own. Raises RegistrationError that names the task and the option.
        """
        if function is not None:
            return self._register(function, {})
        return lambda function: self._register(function, options)

    def _register(self, function: Callable[..., Any], given: dict[str, Any]) -> Task[..., Any]:
        flags = getattr(getattr(function, "__code__", None), "co_flags", None)
        if flags is None:
            raise RegistrationError(f"task: {function!r} is no function; decorate a `def` or an `async def`")
        options = dict(given)
        name = _checked_name(options.pop("name", None), function)
        if flags & (CO_GENERATOR | CO_ASYNC_GENERATOR):
            raise RegistrationError(f"task {name}: a generator has no result; return a list instead")
        declaration = self._declaration(function, name, bool(flags & CO_COROUTINE), options)
        known = self.tasks.get(name)
        if known is not None and not _same_place(known, function):
            raise RegistrationError(f"task {name}: there is another of that name; give one of them name=...")
        try:
            terms = Terms().having(options)
        except InvalidJob as error:
            raise RegistrationError(f"task {name}: {error}") from None
        kind: type[Task[..., Any]] = AsyncTask if flags & CO_COROUTINE else SyncTask
        task = self.tasks[name] = kind(self, declaration, terms)
        wear: Callable[..., Any] = update_wrapper  # typed for functions that wrap functions, which a task is not quite
        wear(task, function)
        return task

    def _declaration(self, function: Any, name: str, coroutine: bool, options: dict[str, Any]) -> Declaration:
        """Takes from `options` what concerns the task and not its jobs."""
        executor = options.pop("executor", None)
        version = options.pop("version", 1)
        exclusive = options.pop("exclusive", False)
        if executor not in (None, "process"):
            raise RegistrationError(f'task {name}: executor: {executor!r} must be "process" or None')
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version < 2**31:
            raise RegistrationError(f"task {name}: version: {version!r} must be a whole number from 1")
        if not isinstance(exclusive, bool):
            raise RegistrationError(f"task {name}: exclusive: {exclusive!r} must be True or False")
        for one in ("delay", "at", "idempotency_key", "partition_key"):
            if one in options:
                raise RegistrationError(f"task {name}: {one}: belongs to one job; say task.using({one}=...)")
        mode = Mode.PROCESS if executor or exclusive else Mode.ASYNC if coroutine else Mode.THREAD
        declaration = Declaration(function, name, version, mode, self._offers, self._limits)
        declaration.exclusive = exclusive
        declaration.transient = _classes(name, "transient", options.pop("transient", ()))
        declaration.permanent = _classes(name, "permanent", options.pop("permanent", ()))
        return declaration

    def named(
        self, name: str, version: int = 1, options: JobOptions | Mapping[str, Any] | None = None
    ) -> Task[..., Any]:
        """The task called `name`, on `options`; if its code is elsewhere, one that can only be enqueued."""
        known = self.tasks.get(name)
        if known is None:
            try:
                valid_name(name, "task")
            except ValueError as error:
                raise InvalidJob("task", str(error).removeprefix("task: ")) from None
            known = Task(self, Remote(name, version, self._limits), Terms())
        return known.using(**options) if options else known

    def asked(self, name: str, version: int, options: JobOptions | Mapping[str, Any] | None = None) -> Task[..., Any]:
        """`named`, for somebody who enqueues: raises InvalidJob for a `version` that is none, or that is not the one by
        which the arguments would be checked here. 1, which is what they mean who say nothing, is any."""
        try:
            valid_version(version, "version")
        except ValueError as error:
            raise InvalidJob("version", str(error).removeprefix("version: ")) from None
        known = self.tasks.get(name)
        if known is not None and version not in (1, known.version):
            raise InvalidJob("version", f"{version} is not that of task {name!r} here, which is {known.version}")
        return self.named(name, version, options)

    # --- schedules ------------------------------------------------------------------------------------------

    def schedule(
        self,
        task: Task[..., Any],
        *,
        name: str | None = None,
        arguments: Arguments = None,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Run a task again and again: `app.schedule(report, cron="0 3 * * *", timezone="Europe/Berlin")`.

        Workers make it known to the store when they start. `name` is the task's unless you give one; `arguments` is a
        tuple, a dict of named ones or `task.call(...)`; see ScheduleOptions for the rest. Raises InvalidSchedule,
        InvalidJob, PayloadInvalid and PayloadTooLarge, which name the field.
        """
        from windlass.schedule import Schedule, define, valid_schedule

        called = valid_schedule(task.name if name is None else name)
        definition = define(task, call_of(arguments), options)
        if self.schedules.get(called, definition) != definition:
            raise InvalidSchedule("name", f"{called!r} is another schedule; give one of them name=...")
        self.schedules[called] = definition
        return Schedule(self, called)

    @property
    def defined(self) -> tuple[ScheduleChange, ...]:
        """Its schedules, as a store is told of them."""
        if not self.schedules:
            return ()
        from windlass.schedule import put

        return tuple(put(name, definition, "code") for name, definition in self.schedules.items())

    # --- hooks ----------------------------------------------------------------------------------------------

    def on_worker_start(self, hook: Hook) -> Hook:
        """Run `hook` when a worker starts, before its first job. What it returns, or yields once, is a resource: tasks
        get it by a parameter annotated with the hook's return type. A generator is finished when the worker stops.

        `def` or `async def`, without parameters. Raises RegistrationError for parameters.
        """
        _no_parameters(hook, "on_worker_start")
        self._start_hooks.append(hook)
        self._offered = None
        return hook

    def on_worker_stop(self, hook: Hook) -> Hook:
        """Run `hook` when a worker stops, after its last job; `def` or `async def`, without parameters."""
        _no_parameters(hook, "on_worker_stop")
        self._stop_hooks.append(hook)
        return hook

    def _offers(self) -> tuple[int, Mapping[Any, Any]]:
        if self._offered is None:
            self._offered = {}
            for hook in self._start_hooks:
                kind = _resource(hook)
                if kind in self._offered:
                    raise RegistrationError(f"two on_worker_start hooks return {kind}; parameters ask for it by type")
                if kind is not None:
                    self._offered[kind] = hook
        return len(self._start_hooks), self._offered

    @property
    def registry(self) -> Registry:
        """All that a worker needs; raises RegistrationError for a task whose signature cannot work."""
        _, offered = self._offers()
        tasks = {name: task.taskdef() for name, task in self.tasks.items()}
        for definition in tasks.values():
            for parameter, kind in definition.resources.items():
                if kind not in offered:
                    raise RegistrationError(
                        f"task {definition.name}: parameter {parameter!r}: no on_worker_start hook returns {kind}"
                    )
        return Registry(
            tasks=tasks,
            start_hooks=list(self._start_hooks),
            stop_hooks=list(self._stop_hooks),
            provides=dict(offered),
            queues=tuple(sorted({"default", *(task.options.queue for task in self.tasks.values())})),
        )

    # --- jobs -----------------------------------------------------------------------------------------------

    def enqueue(
        self, task: str, arguments: Arguments = None, *, version: int = 1, **options: Unpack[JobOptions]
    ) -> Job[Any]:
        """Store one job by the name of its task, whose code may be elsewhere: `app.enqueue("report", {"day": 1})`.

        `arguments` is a dict of named ones or a list of positional ones. Raises as Task.enqueue.
        """
        return self.client.enqueue(task, arguments, version=version, **options)

    async def aenqueue(
        self, task: str, arguments: Arguments = None, *, version: int = 1, **options: Unpack[JobOptions]
    ) -> Job[Any]:
        """`enqueue` for an event loop."""
        return await self.aclient.enqueue(task, arguments, version=version, **options)

    def job(self, id: str) -> Job[Any]:
        """A handle to the job of that id; whether there is one, its methods find out."""
        return Job(self, id)

    def transaction(self, connection: Any) -> Transaction:
        """Enqueue inside a transaction of the caller's own: `with app.transaction(conn): task.enqueue(7)`.

        Every enqueue of this application in the block, by `enqueue` or `aenqueue`, goes through `connection` and is
        committed or rolled back with what else the caller writes there; the block itself does neither. For
        sqlite+stdlib:/// stores, `connection` is a sqlite3.Connection to the same file; for postgresql:// stores one of
        psycopg's or asyncpg's, or of SQLAlchemy's or Django's over them. Raises CapabilityMissing where the store
        cannot join it, as one on Redis: see `outbox`.
        """
        return Transaction(self.engine, connection)

    def outbox(self, connection: Any) -> Transaction:
        """Enqueue inside a transaction of a database, where the jobs run on another store, Redis for instance: `with
        app.outbox(conn): task.enqueue(7)`.

        Every enqueue of this application in the block is laid down through `connection` in the database that the
        setting `outbox` names, and committed or rolled back with what else the caller writes there. A supervisor (or
        embedded worker) of this application hands it on once, about a tenth of a second after the commit; until then
        the job is not found in the store. Keys are looked at then: a job whose unique or idempotency key is taken is
        dropped, as there is nobody left to be told. Raises ConfigError where no outbox is named, and CapabilityMissing
        where `connection` is none to that database.
        """
        return Transaction(self.engine, connection, self.engine.outbox())

    def lock(self, name: str, ttl: Duration = "30s", *, timeout: Duration | None = None) -> Lock:
        """A lock of that name, one holder at a time over all processes of the store: `with app.lock("reports"): ...`,
        or `async with`. See `semaphore`, of which it is one with a single slot."""
        return Lock(self, name, ttl, 1, timeout)

    def semaphore(
        self, name: str, slots: int, ttl: Duration = "30s", *, timeout: Duration | None = None
    ) -> Lock:
        """As `lock`, with as many holders at a time as there are `slots` (1..1,000).

        It is renewed in the background while it is held, and lapses `ttl` (1 s to 24 h) after its holder died or was
        cut off; a holder of whom that is true finds it `lost`. `timeout` is how long to wait for it (None: for ever),
        after which LockTimeout is raised. Its `fence` grows with each holder. Raises ValueError for what is no name
        (text of 1 to 255 characters), ttl, or number.
        """
        return Lock(self, name, ttl, slots, timeout)

    def run_embedded(self, *, concurrency: int | None = None, queues: str | None = None) -> Embedded:
        """Start a worker in a thread of this process, and return it once it may claim; its `stop(timeout)` ends it.

        It runs `concurrency` jobs (1..10000) at a time from `queues` ("a,b:3"), by default as the settings say, and
        leaves tasks with executor="process" to others. It cannot end a handler that does not end by itself: `windlass
        worker` can. After a fork, call it again in the child. Raises ConfigError, and StoreError.
        """
        from windlass.runtime.embedded import Embedded
        from windlass.runtime.embedded import Settings as EmbeddedSettings

        slots = self.settings.concurrency
        if concurrency is not None:
            slots = config.checked("concurrency", concurrency, "run_embedded()")
        served, strict = config.served_queues(queues, self.settings, self.registry.queues)
        settings = EmbeddedSettings(
            hold=self.settings.hold,
            concurrency=slots,
            queues=tuple(served),
            strict=strict,
            rules=self.settings.prune_rules(),
            open_outbox=self.engine.open_outbox if self.settings.outbox else None,
            schedules=self.defined,
        )
        embedded = Embedded(self.registry, self.engine.lend, settings, self.engine.give_back)
        embedded.start()
        return embedded

    # --- for the parts of Windlass --------------------------------------------------------------------------

    @property
    def opened(self) -> Opened:
        """The store, opened and with its schema."""
        return self.engine.opened()

    def outcome(self, record: records.Job) -> Any:
        """The result of an ended job, of the type that its task declares; raises what it ended by."""
        text = ending(record)
        return self.named(record.task, record.version).decode(text)

    def close(self) -> None:
        """Give back the store's connections; the next use opens it again. Workers have connections of their own, so a
        handler may do this too; a `memory://` store stays while an embedded worker runs its jobs."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _checked_name(name: Any, function: Any) -> str:
    if name is None:
        module = _module_name(function)
        name = f"{module}.{function.__qualname__}"
        if not all(part.isidentifier() for part in module.split(".")):
            import warnings

            warnings.warn(
                f"task {name}: no worker can import a module called {module!r}; define the task in a file whose name "
                'can be imported, or give it name="..." and a worker that knows it',
                stacklevel=_outside(),
            )
    try:
        return valid_name(name, "name")
    except ValueError as error:
        raise RegistrationError(f"task {function.__qualname__}: {error}") from None


def _outside() -> int:
    """The `stacklevel` at which a warning from our caller names the user's line, not one of this file."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 - as warnings itself does
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        level, frame = level + 1, frame.f_back
    return level


def _module_name(function: Any) -> str:
    """The module as a worker will import it: what was started as a script is `__main__` here only."""
    module: str = function.__module__
    if module != "__main__":
        return module
    path = function.__code__.co_filename
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.origin == path:  # python -m package.module; of `python -m asyncio`, not what is typed
        return str(spec.name)
    file = path.replace("\\", "/").rpartition("/")[2]
    return str(file.removesuffix(".py")) or module


def _same_place(known: Task[..., Any], function: Any) -> bool:
    """Whether `function` is the same one again: its module was reloaded, or its cell was run twice."""
    before = known.function
    return (before.__module__, before.__qualname__) == (function.__module__, function.__qualname__)


def _classes(task: str, option: str, given: Any) -> tuple[type[BaseException], ...]:
    classes = (given,) if isinstance(given, type) else given
    if not isinstance(classes, (tuple, list, set, frozenset)):
        raise RegistrationError(f"task {task}: {option}: {given!r} must be a tuple of exception classes")
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise RegistrationError(f"task {task}: {option}: {each!r} is no exception class")
    return tuple(classes)


def _no_parameters(hook: Any, where: str) -> None:
    code = getattr(hook, "__code__", None)
    if code is None or code.co_argcount + code.co_kwonlyargcount:
        raise RegistrationError(f"{where}: {getattr(hook, '__qualname__', hook)} must be a function without parameters")


def _resource(hook: Any) -> Any:
    """The type that a start hook provides, from its return annotation: of a generator, what it yields."""
    from collections import abc
    from typing import get_args, get_origin

    from windlass.declaration import hints

    kind = hints(hook, f"of hook {hook.__qualname__}").get("return")
    if kind is type(None):
        return None
    if get_origin(kind) in (abc.Iterator, abc.Generator, abc.AsyncIterator, abc.AsyncGenerator, abc.Iterable):
        return get_args(kind)[0]
    return kind
