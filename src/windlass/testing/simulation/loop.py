"""The event loop of one simulated process, and the supervisor's loop: both turn in virtual time."""

from __future__ import annotations

import asyncio
import inspect
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Self

from windlass.runtime.loop import Loop, Timer
from windlass.testing.simulation.scheduler import Event, Process, Scheduler


class SimulatedLoop(asyncio.AbstractEventLoop):
    """An asyncio loop that owns no selector: callbacks of one process in their order, those of different processes in
    an order drawn from the seed. The loop of a dead process does nothing at all."""

    @classmethod
    def of(cls, process: Process) -> Self:
        """The loop of a process. What needs a descriptor or a child is not there."""
        return cls(process)

    def __init__(self, process: Process) -> None:
        self._process = process
        self._scheduler: Scheduler = process.scheduler
        self._ready: deque[asyncio.Handle] = deque()
        self._turning = False
        self.failures: list[dict[str, Any]] = []
        """What nobody caught: a fault of the product, or of the simulation."""
        process.on_death.append(self._die)

    def time(self) -> float:
        """See asyncio."""
        return self._scheduler.now

    def is_running(self) -> bool:
        """See asyncio."""
        return True

    def is_closed(self) -> bool:
        """See asyncio."""
        return not self._process.alive

    def get_debug(self) -> bool:
        """See asyncio."""
        return False

    def call_soon(  # type: ignore[override]  # typeshed wants TypeVarTuple
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio."""
        handle = asyncio.Handle(callback, args, self, context)
        if self._process.alive:
            self._ready.append(handle)
            if not self._turning:
                self._turning = True
                # Other processes get in between two turns; a turn takes its time, or nothing would ever come to pass.
                self._process.after(self._scheduler.dice.random() * 1e-4, self._turn)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        return self.call_at(self._scheduler.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if self._process.alive:
            self._scheduler.at(max(when, self._scheduler.now), self._due, handle, process=self._process)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """See asyncio."""
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        """See asyncio."""
        return asyncio.Task(coro, loop=self, **options)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """See asyncio."""
        if self._process.alive:
            self.failures.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """See asyncio."""
        self.call_exception_handler(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def _due(self, handle: asyncio.TimerHandle) -> None:
        if not handle.cancelled():
            self._run([handle])

    def _turn(self) -> None:
        # As asyncio does: what is ready now, and not what that makes ready.
        batch = list(self._ready)
        self._ready.clear()
        self._turning = False
        self._run(batch)

    def _run(self, batch: list[Any]) -> None:
        before = events._get_running_loop()  # noqa: SLF001 - this is an event loop
        events._set_running_loop(self)  # noqa: SLF001
        try:
            for handle in batch:
                if not self._process.alive:
                    break
                if not handle.cancelled():
                    handle._run()  # noqa: SLF001
        finally:
            events._set_running_loop(before)  # noqa: SLF001

    def _die(self) -> None:
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
            coroutine = task.get_coro()
            if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()  # or Python would ask why it was never awaited
        self._ready.clear()  # not before: it may hold the last reference to a task


class SupervisorLoop(Loop):
    """The supervisor's loop, as events of its process."""

    def __init__(self, process: Process, after: Callable[[], object]) -> None:
        """`after` is called when the loop has done something."""
        self._process = process
        self._after = after
        self._watched: dict[int, Callable[[], Any]] = {}
        self._signals: dict[int, Callable[[], Any]] = {}
        self._dice: random.Random = process.scheduler.dice
        self.clock = lambda: process.scheduler.now

    def watch(self, source: Any, call: Callable[[], Any]) -> None:
        """See Loop. What already waits to be read is seen at once."""
        self._watched[id(source)] = call
        source.on_readable(lambda: self._readable(id(source)))

    def forget(self, source: Any) -> None:
        """See Loop."""
        self._watched.pop(id(source), None)

    def later(self, delay: float, call: Callable[[], Any]) -> Timer:
        """See Loop."""
        timer = Timer(call)
        self._process.after(max(0.0, delay), self._due, timer)
        return timer

    def post(self, call: Callable[[], Any]) -> None:
        """See Loop."""
        self._process.after(self._dice.random() * 1e-3, self._do, call)

    def on_signal(self, number: int, call: Callable[[], Any]) -> None:
        """See Loop."""
        self._signals[number] = call

    @property
    def hears(self) -> bool:
        """Whether it has begun to listen to signals."""
        return bool(self._signals)

    def signal(self, number: int) -> Event:
        """Send one."""
        return self._process.after(self._dice.random() * 1e-3, self._do, self._signals[number])

    def run(self, done: Callable[[], bool]) -> None:
        """Nobody runs it: its events are the world's."""
        raise NotImplementedError

    def close(self) -> None:
        """See Loop."""

    def _readable(self, source: int) -> None:
        call = self._watched.get(source)
        if call is not None:
            self._process.after(self._dice.random() * 1e-3, self._do_if_watched, source)

    def _do_if_watched(self, source: int) -> None:
        call = self._watched.get(source)
        if call is not None:
            self._do(call)

    def _due(self, timer: Timer) -> None:
        if timer.call is not None:
            self._do(timer.call)

    def _do(self, call: Callable[[], Any]) -> None:
        call()
        self._after()
