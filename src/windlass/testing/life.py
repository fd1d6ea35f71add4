"""One life of a worker in a test: the product's own Worker, from its first beat until it has nothing left or is killed.

Its link is this file: it tells when the worker has run dry, and it is where the worker dies. A killed worker is stopped
by being told that it was taken over, which is the product's own way of making one settle nothing more; what Python
cannot do is keep the handlers' `finally` blocks from running.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

import msgspec

from windlass.core.job import Held
from windlass.ports.store import BeatAnswer, Death, Opened, WorkerReport
from windlass.runtime.context import current_run
from windlass.runtime.embedded import EmbeddedLink
from windlass.runtime.member import new_id
from windlass.runtime.registry import Mode, Registry, TaskDef
from windlass.runtime.worker import Worker
from windlass.testing.faults import Faults, WorkerKilled
from windlass.testing.rigged import WorkersRig

BEAT = 0.02
"""Real seconds between two beats while handlers run: how soon a running job hears that it is cancelled."""
UNWIND = 5.0
"""Real seconds that the handlers of a killed worker may take to unwind."""


class TooLong(AssertionError):
    """A drain was still at work after its time; the message says which jobs ran."""


class Bounds:
    """How much one drain may do: real time, and runs."""

    def __init__(self, timeout: float, limit: int) -> None:
        self.timeout = timeout
        self.limit = limit
        self.ran = 0
        self.last: deque[str] = deque(maxlen=50)
        """Tasks of the latest runs: those of all its lives, as the one that is refused has had none."""
        self._end = time.monotonic() + timeout

    @property
    def left(self) -> float:
        """Seconds of real time; negative once they are up."""
        return self._end - time.monotonic()

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self.left <= 0

    @property
    def over(self) -> bool:
        """Whether it may do nothing more."""
        return self.late or self.ran > self.limit


class Life(EmbeddedLink):
    """A worker, and its end. All methods belong to the loop of `live`."""

    def __init__(self, opened: Opened, faults: Faults, bounds: Bounds, hold: float) -> None:
        super().__init__(new_id("w"))
        self.rig = WorkersRig(opened, faults, self._die)
        self.killed = False
        self.seen = True
        """Whether its death is known, or has to be told from its silence."""
        self._real = opened
        self._faults = faults
        self._bounds = bounds
        self._hold = hold
        self._executing: tuple[str, ...] = ()
        self._active: set[object] = set()
        """One mark for each handler under way."""
        self._thread = threading.current_thread()

    async def live(
        self, registry: Registry, queues: tuple[str, ...], concurrency: int, *, threads: bool, suspects: bool
    ) -> list[Held]:
        """Work until there is nothing to do, or death; answers what it was granted. Raises TooLong, and what a start
        hook raised."""
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        if self._bounds.over:  # by the lives before this one
            raise TooLong(self._too_long())
        self._say = WorkerReport(
            id=self.worker_id, supervisor="test", host="test", pid=0, hold=round(self._hold * 1e6), queues=queues,
            tasks=registry.labels(), slots=concurrency, state="quarantine" if suspects else "running",
        )  # fmt: skip
        self._beat()
        tasks = {name: self._wrapped(task, threads=threads) for name, task in registry.tasks.items()}
        worker = Worker(
            msgspec.structs.replace(registry, tasks=tasks),
            self.rig,
            self,
            concurrency=concurrency,
            queues=[(queue, None) for queue in queues],
            suspects=suspects,
            strict=True,
        )
        working = self._loop.create_task(worker.run())
        try:
            await self._watch(working)
        finally:
            await self._end(worker, working)
        return list(self.rig.granted.values())

    async def _watch(self, working: asyncio.Task[None]) -> None:
        idle = self._loop.create_task(self._idle.wait())
        try:
            while not (working.done() or self._idle.is_set() or self.killed):
                if self._bounds.over:
                    raise TooLong(self._too_long())
                await asyncio.wait({working, idle}, timeout=BEAT, return_when=asyncio.FIRST_COMPLETED)
                self._beat()
        finally:
            idle.cancel()

    def _too_long(self) -> str:
        busy = [self.rig.granted[e.job_id] for e in self.table.executing() if e.job_id in self.rig.granted]
        jobs = ", ".join(f"{held.task} ({held.id})" for held in busy) or "none"
        if self._bounds.late:
            return f"drain: not done after {self._bounds.timeout:g} s of real time; running now: {jobs}"
        last = ", ".join(dict.fromkeys(self._bounds.last))
        return f"drain: more than {self._bounds.limit} runs; jobs that keep coming? The last were of {last}"

    async def _end(self, worker: Worker, working: asyncio.Task[None]) -> None:
        if not working.done() and not self.killed and not self._idle.is_set():
            self.kill()  # too long: leave nothing running behind
            self.seen = True
        if not working.done() and not self.killed:
            worker.stop(0.0, "drained")
        failure: BaseException | None = None
        cut = await self._ended(working)
        try:
            await working
        except asyncio.CancelledError as error:
            self.kill()
            if not cut:
                failure = error
                self.seen = True
        except WorkerKilled:
            self.kill()
        except BaseException as error:
            failure = error
            self.kill()
            self.seen = True
        await self._unwound()
        if self.seen:
            explained = not self.killed
            death = Death(
                worker=self.worker_id, observed=True, executing=self._executing, explained=explained,
                stopped=explained,
                alone=self.killed and len(self._executing) == 1,
                detail="stopped" if explained else "killed by signal 9 (SIGKILL)",
            )  # fmt: skip
            self._real.shell.run(self._real.store.reap([death]))
        if failure is not None:
            raise failure

    async def _ended(self, working: asyncio.Task[None]) -> bool:
        """Wait for the worker; whether it had to be cut off. One that was killed before it came up, at its first turn
        or in a start hook, was told by nobody that it is over, and would work on."""
        if not (self.killed and self.worker is None):
            await asyncio.wait({working}, timeout=UNWIND if self.killed else max(UNWIND, self._bounds.left))
        return not working.done() and working.cancel()

    async def _unwound(self) -> None:
        """Nothing of a handler goes on into the next life, or the next test."""
        end = time.monotonic() + UNWIND
        while self._active and time.monotonic() < end:  # noqa: ASYNC110 - threads set no events
            await asyncio.sleep(0.001)

    def kill(self) -> None:
        """Die, here and now."""
        if self.killed:
            return
        self.killed = True
        self.seen = self._faults.seen
        self._executing = tuple(entry.job_id for entry in self.table.executing())
        self.rig.dead = True
        if self.worker is not None:
            self.worker.taken()
        self._idle.set()

    # --- the link ----------------------------------------------------------------------------------------------------

    def want_wake(self, wanted: bool) -> None:
        """See Link. Holding nothing and finding nothing is what a drain waits for."""
        super().want_wake(wanted)
        if wanted and self._wanted and self.table.held()[0] == 0:
            self._idle.set()

    def hint(self) -> None:
        """See EmbeddedLink; from any thread."""
        if threading.current_thread() is self._thread:
            super().hint()
        else:
            self._loop.call_soon_threadsafe(super().hint)

    def _beat(self) -> None:
        held, held_hash = self.table.held()
        report = msgspec.structs.replace(self._say, busy=self.table.busy, held=held, held_hash=held_hash)
        answer: BeatAnswer = self._real.shell.run(self._real.store.beat([report]))[0]
        if answer.cancel and self.worker is not None:
            self.worker.cancel(answer.cancel)

    # --- handlers ----------------------------------------------------------------------------------------------------

    def _wrapped(self, task: TaskDef, *, threads: bool) -> TaskDef:
        """The task with its handler watched. What runs in a process of its own at work runs here as if it did not."""
        is_async = is_coroutine(task.handler)
        if is_async or not threads:
            handler: Callable[..., Any] = lambda *args, **kwargs: self._on_loop(task, is_async, args, kwargs)
            return msgspec.structs.replace(task, handler=handler, mode=Mode.ASYNC)
        handler = lambda *args, **kwargs: self._in_thread(task, args, kwargs)
        return msgspec.structs.replace(task, handler=handler, mode=Mode.THREAD)

    async def _on_loop(self, task: TaskDef, is_async: bool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        active = self._begun(task)
        try:
            with self._ends(task):
                value = self._call(task, args, kwargs)
                if asyncio.iscoroutine(value):
                    value = await (_Cut(value) if is_async and self._faults.crashes(task.name, "during") else value)
            return value
        except WorkerKilled:
            self._abandon()
            self.kill()
            raise asyncio.CancelledError from None
        finally:
            self._active.discard(active)

    def _in_thread(self, task: TaskDef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        active = self._begun(task)
        try:
            with self._ends(task):
                return self._call(task, args, kwargs)
        except WorkerKilled:
            self._abandon()
            self._die()
            raise
        finally:
            self._active.discard(active)

    def _die(self) -> None:
        """`kill`, from any thread. What this thread says of its end comes to the loop behind it."""
        self._loop.call_soon_threadsafe(self.kill)

    @contextlib.contextmanager
    def _ends(self, task: TaskDef) -> Iterator[None]:
        """A handler's whole body: if its worker was to die during it and has not, it dies of its end, whichever."""
        try:
            yield
        except Exception:
            if self._faults.crashes(task.name, "during"):
                raise WorkerKilled from None
            raise
        if self._faults.crashes(task.name, "during"):
            raise WorkerKilled

    def _begun(self, task: TaskDef) -> object:
        active = object()
        self._active.add(active)
        self._bounds.ran += 1
        self._bounds.last.append(task.name)
        return active

    def _call(self, task: TaskDef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        fake = self._faults.next_fake(task.name)
        return task.handler(*args, **kwargs) if fake is None else fake(args, kwargs)

    def _abandon(self) -> None:
        """A killed process leaves no transaction open."""
        run = current_run.get()
        abandon = getattr(run, "abandon_session", None)
        if abandon is not None:
            abandon()


class _Cut:
    """Runs a coroutine until it first waits, and kills its worker there."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            self._coroutine.send(None)
        except Exception as end:  # it never waited
            raise WorkerKilled from end
        with contextlib.suppress(RuntimeError):  # it waits again while it unwinds, which a dead process would not
            self._coroutine.close()
        raise WorkerKilled
        yield


def is_coroutine(handler: Callable[..., Any]) -> bool:
    """Whether a handler is an `async def`."""
    import inspect

    return inspect.iscoroutinefunction(handler)
