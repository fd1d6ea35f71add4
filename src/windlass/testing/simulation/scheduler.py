"""Virtual time: one heap of what is to come, one seeded source of chance, and the processes to which events belong.

Nothing else decides: whatever happens at one instant happens in an order drawn from the seed, and time goes on only
from event to event.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

Call = Callable[..., Any]

SECOND = 1_000_000


class Killed(BaseException):
    """Unwinds a call of a process that died meanwhile; nothing that belongs to a dead process may go on."""


class Deadlock(RuntimeError):
    """Somebody waits, and nothing is to come: a fault of the simulation itself."""


class Event:
    """Something to come; `cancel` makes it not come."""

    __slots__ = ("args", "call", "process", "when")

    def __init__(self, when: float, process: Process | None, call: Call, args: tuple[Any, ...]) -> None:
        self.when = when
        self.process = process
        self.call: Call | None = call
        self.args = args

    def cancel(self) -> None:
        """Forget it."""
        self.call = None


class Process:
    """A simulated operating-system process: what belongs to it happens only while it lives and is not stopped."""

    __slots__ = ("alive", "cut_off", "frozen", "inside", "machine", "name", "on_death", "paused", "pid", "scheduler")

    def __init__(self, scheduler: Scheduler, name: str, machine: int) -> None:
        self.scheduler = scheduler
        self.name = name
        self.machine = machine
        """Which of the simulated machines it runs on."""
        self.pid = scheduler.next_pid()
        self.alive = True
        self.paused = False
        self.cut_off = False
        """It cannot reach the store."""
        self.inside = 0
        """How many blocking calls of it are under way."""
        self.frozen: list[Event] = []
        self.on_death: list[Callable[[], object]] = []

    def after(self, delay: float, call: Call, *args: Any) -> Event:
        """Have this process do something in `delay` seconds."""
        return self.scheduler.at(self.scheduler.now + delay, call, *args, process=self)

    def kill(self) -> bool:
        """End it between two instructions; False if it was dead."""
        if not self.alive:
            return False
        self.alive = False
        self.frozen.clear()
        for call in self.on_death:
            call()
        self.on_death.clear()
        return True

    def stop(self) -> None:
        """As SIGSTOP does."""
        self.paused = True

    def go_on(self) -> None:
        """As SIGCONT does: what was due meanwhile is due now, in its old order."""
        self.paused = False
        for event in self.frozen:
            if event.call is not None:
                self.scheduler.push(self.scheduler.now, event)
        self.frozen.clear()


class Scheduler:
    """Runs events until there is no reason to go on."""

    def __init__(self, seed: int | str) -> None:
        self.dice = random.Random(seed)
        self.now = 0.0
        """Virtual seconds since the beginning, as every monotonic clock of this world tells."""
        self.count = 0
        """Events that have happened."""
        self.ended = False
        """Whoever waits inside a blocking call is unwound."""
        self.acting: Process | None = None
        """Whose event it is that happens now."""
        self._heap: list[tuple[float, float, int, Event]] = []
        self._pushed = 0
        self._pids = 100

    def next_pid(self) -> int:
        """A number that no process had."""
        self._pids += 1
        return self._pids

    def at(self, when: float, call: Call, *args: Any, process: Process | None = None) -> Event:
        """Have `call` happen at an instant, as an act of `process` or of the world itself."""
        event = Event(when, process, call, args)
        self.push(when, event)
        return event

    def push(self, when: float, event: Event) -> None:
        """Put an event where it belongs; those of one instant are shuffled."""
        self._pushed += 1
        heapq.heappush(self._heap, (when, self.dice.random(), self._pushed, event))

    def step(self) -> None:
        """Let the next event happen. Raises Deadlock if there is none."""
        if not self._heap:
            raise Deadlock("nothing is to come")
        when, _, _, event = heapq.heappop(self._heap)
        if event.call is None:
            return
        process = event.process
        if process is not None:
            if not process.alive:
                return
            if process.paused:
                process.frozen.append(event)
                self.now = max(self.now, when)
                return
        self.now = max(self.now, when)
        self.count += 1
        before, self.acting = self.acting, process
        try:
            event.call(*event.args)
        except Killed:
            if process is None or (process.alive and not self.ended):
                raise
        finally:
            self.acting = before

    def run(self, done: Callable[[], bool]) -> None:
        """Go on until `done()`, asked after every event."""
        while not done():
            self.step()

    def wait(self, process: Process, done: Callable[[], bool]) -> None:
        """A blocking call of `process` waits: the world goes on meanwhile. Raises Killed if the process is no more
        when it would return, or if the world ended."""
        process.inside += 1
        try:
            while not done():
                if self.ended or not process.alive:
                    raise Killed
                self.step()
            if not process.alive:
                raise Killed
        finally:
            process.inside -= 1
