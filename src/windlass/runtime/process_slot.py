"""A process slot: a child that runs one job at a time and can be killed without anybody else.

`SlotClient` is the worker's side. The child's side is `serve`: it has loaded the same application, shares the worker's
lock (so that the kernel counts it as part of the worker), and reports over one socket. Its handler's Context works as
anywhere: progress, log lines and `once` go through the worker; `transaction` uses the child's own connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from windlass.core.errors import LeaseLost, StoreError, WindlassError
from windlass.core.job import ErrorInfo, Failed, Held, LogLine, Lost, Outcome, Progress, Succeeded
from windlass.core.machine import decide
from windlass.runtime.messages import (
    OUTCOMES,
    Adopt,
    Channel,
    Ended,
    FromSlot,
    OnceAnswer,
    OnceAsk,
    SlotGone,
    SlotLog,
    SlotProgress,
    SlotReady,
    ToSlot,
)
from windlass.runtime.messages import Run as RunMessage
from windlass.runtime.process import end_fork
from windlass.runtime.registry import Registry, TaskDef
from windlass.runtime.run import Run
from windlass.runtime.verdict import describe

if TYPE_CHECKING:
    from windlass.ports.store import Opened

_encode = msgspec.json.encode


class NoSlot(WindlassError):
    """No process slot will come any more: the job that waits for one has not begun, and is handed back."""


class SlotClient:
    """The worker's side of one child. `healthy` turns False once it may not be used again."""

    def __init__(
        self, pid: int, sock: socket.socket, retire: Callable[[SlotClient], None], worker_id: str, lock_fd: int
    ) -> None:
        """`retire` has it killed. `worker_id` and its lock are told to the child."""
        self.pid = pid
        self.healthy = True
        self._retire = retire
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._channel: Channel[FromSlot] = Channel(sock, FromSlot)
        self._run: Run | None = None
        self._ended: asyncio.Future[Outcome] | None = None
        self._gone: asyncio.Future[SlotGone] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop.add_reader(self._channel.fileno(), self._readable)
        self._channel.send(Adopt(worker_id, lock=lock_fd >= 0), lock_fd)

    async def run(self, run: Run) -> Outcome:
        """Run one job and answer its outcome, whatever becomes of the child: a crash is the job's own, a kill is
        explained by whoever killed. Cancelled, it returns only after the child is known to be dead."""
        self._run = run
        self._ended = self._loop.create_future()
        self._send(RunMessage(run.held))
        try:
            return await self._ended
        except asyncio.CancelledError:
            self._retire(self)
            while not self._gone.done():
                with contextlib.suppress(asyncio.CancelledError):  # told again; it may still not run twice at once
                    await asyncio.shield(self._gone)
            raise
        finally:
            self._run = self._ended = None

    def gone(self, message: SlotGone) -> None:
        """The supervisor has seen its end."""
        self.healthy = False
        self.close()
        if not self._gone.done():
            self._gone.set_result(message)
        self._finish(_verdict(message))

    def close(self) -> None:
        """Let go of the socket; the child ends by itself once it is idle."""
        if not self._channel.sock.fileno() < 0:
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_writer(self._channel.fileno())
            self._channel.close()

    def _finish(self, outcome: Outcome) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(outcome)

    def _send(self, message: ToSlot) -> None:
        self._channel.send(message)
        if self._channel.pending:
            self._loop.add_writer(self._channel.fileno(), self._writable)

    def _writable(self) -> None:
        self._channel.flush()
        if not self._channel.pending:
            self._loop.remove_writer(self._channel.fileno())

    def _readable(self) -> None:
        try:
            messages = self._channel.receive()
        except msgspec.MsgspecError:  # its memory is not to be trusted any more
            self._retire(self)
            messages = []
        for message in messages:
            self._understand(message)
        if self._channel.closed:
            # It died, or is about to: what of, the supervisor will say.
            self.healthy = False
            self.close()

    def _understand(self, message: FromSlot) -> None:
        run = self._run
        match message:
            case Ended(kind=kind, outcome=raw):
                self._finish(msgspec.json.decode(raw, type=OUTCOMES[kind]))
            case SlotProgress(progress=progress) if run is not None:
                run.report_progress(progress)
            case SlotLog(line=line) if run is not None:
                run.report_log(line)
            case OnceAsk(name=name, value=value) if run is not None:
                task = self._loop.create_task(self._once(run, name, value))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _once(self, run: Run, name: str, value: str | None) -> None:
        try:
            self._send(OnceAnswer(await run.aonce(name, value)))
        except LeaseLost:
            self._send(OnceAnswer(None, lost=True))
        except StoreError as error:
            self._send(OnceAnswer(None, problem=str(error)))


def _verdict(message: SlotGone) -> Outcome:
    match message.reason:
        case "":
            return Lost(started=True, alone=True, detail=f"its process was {message.detail}")
        case "hard_timeout":
            limit = ErrorInfo("HardTimeout", "ran past its timeout and its grace, and was killed")
            return Failed(limit, reason="hard_timeout")
        case _:
            return Lost(started=True, explained=True, detail=message.reason)


# --- the child -------------------------------------------------------------------------------------------------------


class ChildRun(Run):
    """A run inside a process slot: what concerns the store's own records goes through the worker."""

    __slots__ = ("_channel", "_turn")

    def __init__(
        self, held: Held, taskdef: TaskDef, open_store: Callable[[], Opened], channel: Channel[ToSlot]
    ) -> None:
        super().__init__(held, taskdef, 0, Lazily(open_store), self._tell)
        self._channel = channel
        self._turn = threading.Lock()

    def _tell(self, _: Run, what: Progress | LogLine) -> None:
        with self._turn:
            self._channel.send(SlotProgress(what) if isinstance(what, Progress) else SlotLog(what))

    def once(self, name: str, value: str | None) -> str | None:
        """See Run."""
        with self._turn:
            self._channel.send(OnceAsk(name, value))
            while not (answers := self._channel.receive()):
                if self._channel.closed:
                    os._exit(1)
        [answer] = answers
        assert isinstance(answer, OnceAnswer)
        if answer.lost:
            raise LeaseLost(self.held.id, f"job {self.held.id} was taken over")
        if answer.problem:
            raise StoreError(answer.problem)
        return answer.value

    async def aonce(self, name: str, value: str | None) -> str | None:
        """See Run."""
        return await asyncio.to_thread(self.once, name, value)


class Lazily:
    """The child's own store, opened only if a handler wants a transaction."""

    def __init__(self, open_store: Callable[[], Opened]) -> None:
        self._open = open_store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._open(), name)


def serve(channel: Channel[ToSlot], registry: Registry, open_store: Callable[[], Opened]) -> None:
    """Say that the application is loaded, then run jobs until the socket closes."""
    from windlass.runtime.hooks import Hooks

    channel.send(SlotReady())
    hooks = Hooks(registry)
    resources: dict[type, Any] | None = None
    worker_id = ""
    with asyncio.Runner() as runner:
        while not channel.closed:
            for message in channel.receive():
                match message:
                    case Adopt():
                        worker_id = message.worker_id
                        if message.lock:
                            _keep(channel.take_fd())
                    case RunMessage(held=held):
                        try:
                            resources = runner.run(hooks.start()) if resources is None else resources
                        except Exception as error:
                            outcome: Outcome = Failed(describe(error), reason="start_hook")
                        else:
                            outcome = _run(runner, registry, open_store, channel, held, resources, worker_id)
                        channel.send(Ended(type(outcome).__name__, msgspec.Raw(_encode(outcome))))
        runner.run(hooks.stop())


def _keep(lock_fd: int) -> None:
    """Open for as long as this process lives, that is its whole use; but not in children that it forks."""
    os.register_at_fork(after_in_child=lambda: os.close(lock_fd))


def _run(
    runner: asyncio.Runner,
    registry: Registry,
    open_store: Callable[[], Opened],
    channel: Channel[ToSlot],
    held: Held,
    resources: dict[type, Any],
    worker_id: str,
) -> Outcome:
    """Run one job in this process's main thread."""
    from windlass.runtime.context import Context, current_run
    from windlass.runtime.verdict import failure, unbindable, unstorable

    taskdef, pid = registry.tasks[held.task], os.getpid()
    run = ChildRun(held, taskdef, open_store, channel)
    current_run.set(run)
    try:
        args, kwargs = taskdef.bind(held.payload, held.version)
    except BaseException as error:
        return unbindable(error)
    try:
        kwargs |= {name: resources[kind] for name, kind in taskdef.resources.items()}
        if isinstance(taskdef.context, str):
            kwargs[taskdef.context] = Context(run)
        elif taskdef.context is not None:
            args.insert(taskdef.context, Context(run))
        value = taskdef.handler(*args, **kwargs)
        if isinstance(value, Coroutine):  # asyncio's own question is answered yes by generators, until Python 3.12
            value = runner.run(value, context=contextvars.copy_context())  # the runner's own knows no current run
        if os.getpid() != pid:
            end_fork()
    except BaseException as error:
        if os.getpid() != pid:
            end_fork(error)
        run.abandon_session()
        return failure(taskdef, error)
    try:
        outcome = Succeeded(taskdef.encode(value), tuple(run.children))
    except Exception as error:
        run.abandon_session()
        return unstorable(error)
    return _commit(run, outcome, open_store, worker_id) if run.session is not None else outcome


def _commit(run: Run, outcome: Succeeded, open_store: Callable[[], Opened], worker_id: str) -> Outcome:
    """End the handler's own transaction together with the job; the worker's settle is then answered `already`."""
    transition = decide(run.held, run.meta.policy, outcome, 0.0)
    try:
        run.complete_in_session(open_store().store.settle(worker_id, [transition]))
    except LeaseLost as error:
        return Failed(describe(error), reason="lease_lost")  # refused by its fence, like everything else of this run
    except Exception as error:
        # Where it is not certain that nothing was committed, the settle of this failure is answered `already`.
        return Failed(describe(error))
    return outcome
