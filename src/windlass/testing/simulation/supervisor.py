"""A simulated supervisor: the real Supervisor, on a host of virtual time whose children are no processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from windlass.runtime.host import Host, SlotChild, WorkerChild
from windlass.runtime.loop import Loop
from windlass.runtime.messages import Boot
from windlass.runtime.supervisor import Supervisor
from windlass.runtime.ticker import Step, Ticker
from windlass.testing.simulation.loop import SupervisorLoop
from windlass.testing.simulation.scheduler import Killed, Process
from windlass.testing.simulation.worker import WorkerProcess

if TYPE_CHECKING:
    from windlass.testing.simulation.world import World

STOP_TIMEOUT = 3.0


class SupervisorProcess(Process):
    """One supervisor, from its start to its end."""

    __slots__ = ("children", "ending", "exits", "host", "leaving", "looking", "supervisor", "world")

    def __init__(self, world: World, name: str, machine: int, processes: int) -> None:
        super().__init__(world.scheduler, name, machine)
        self.world = world
        self.children: dict[int, WorkerProcess] = {}
        self.exits: list[tuple[int, int]] = []
        self.ending = self.looking = False
        self.leaving = False
        """It was told to stop."""
        self.host = SimulatedHost(self)
        self.on_death.append(self._children_die)
        self.supervisor: Supervisor = world.cast.supervisor(
            "simulated",
            lambda *_, **__: world.open(self),
            processes=processes,
            stop_timeout=STOP_TIMEOUT,
            host=self.host,
        )
        self.after(0.0, self.supervisor.begin)

    def exited(self, child: WorkerProcess, status: int) -> None:
        """A child has ended, and the kernel says so."""
        self.exits.append((child.pid, status))
        if child.id:
            self.world.ledger.did(self.scheduler.now, child.name, "worker process ended", child.id)
        if self.alive:
            self.host.main.signal(signal.SIGCHLD)

    def terminate(self) -> None:
        """As SIGTERM does."""
        self.leaving = True
        self.host.main.signal(signal.SIGTERM)

    def look(self) -> None:
        """After whatever it did: is it done?"""
        if not self.alive or self.ending or not self.supervisor.done:
            return
        if self.inside:
            # A thread of it that is inside a call lies below this one on the real stack, so it cannot be waited for.
            if not self.looking:
                self.looking = True
                self.after(0.02, self._look_again)
        else:
            self.ending = True
            self.supervisor.end()
            self.world.ledger.did(self.scheduler.now, self.name, "supervisor ended")
            self.kill()

    def _look_again(self) -> None:
        self.looking = False
        self.look()

    def _children_die(self) -> None:
        # The parent-death signal: no worker outlives its supervisor.
        for child in list(self.children.values()):
            child.kill()


class SimulatedHost(Host):
    """See runtime.host.Host."""

    def __init__(self, process: SupervisorProcess) -> None:
        self._process = process
        self.main = SupervisorLoop(process, process.look)

    def loop(self) -> Loop:
        """See Host."""
        return self.main

    def ticker(self, name: str, step: Step, end: Callable[[], object] | None = None) -> Ticker:
        """See Host."""
        return SimulatedTicker(self._process, step, end)

    def start_worker(self, command: Sequence[str], boot: Boot) -> WorkerChild:
        """See Host."""
        process = self._process
        child = WorkerProcess(process.world, process, boot)
        process.children[child.pid] = child
        return WorkerChild(child.pid, child.name, child.supervisor_end, child.table)  # type: ignore[arg-type]

    def start_slot(self, command: Sequence[str], boot: Boot) -> SlotChild:
        """No task here runs in a process of its own."""
        raise NotImplementedError


class SimulatedTicker:
    """A thread of the supervisor, as events of its process. While its step waits for the store the world goes on."""

    def __init__(self, process: Process, step: Step, end: Callable[[], object] | None) -> None:
        self._process = process
        self._step = step
        self._end = end
        self._next: Any = None
        self._stepping = False
        self._again = False
        self._ending = False
        self._ended = False

    def start(self) -> None:
        """See Ticker."""
        self._schedule(0.0)

    def poke(self) -> None:
        """See Ticker."""
        if self._stepping:
            self._again = True
        elif not self._ended:
            self._schedule(0.0)

    def stop(self, timeout: float | None = None) -> bool:
        """See Ticker."""
        self._ending = True
        self.poke()
        deadline = self._process.scheduler.now + (3_600.0 if timeout is None else timeout)
        self._process.scheduler.wait(self._process, lambda: self._ended or self._process.scheduler.now >= deadline)
        return self._ended

    def _schedule(self, delay: float) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = self._process.after(delay, self._run)

    def _run(self) -> None:
        self._next, self._stepping, self._again = None, True, False
        ending = self._ending
        try:
            delay = self._step()
            if ending:
                if self._end is not None:
                    self._end()
                self._ended = True
        except Killed:
            return
        finally:
            self._stepping = False
        if ending:
            return
        if self._again:
            self._schedule(0.0)
        elif delay is not None:
            self._schedule(delay)
