"""A simulated worker process: the real Worker with its Executor, on an event loop of virtual time.

What stands in for `windlass.entry` and `runtime.link.PipeLink` is here: loading an application takes a while, and what
the supervisor says is obeyed as PipeLink obeys it.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, NoReturn

from windlass.runtime import messages
from windlass.runtime.link import Told
from windlass.runtime.messages import Boot
from windlass.runtime.process_slot import NoSlot, SlotClient
from windlass.runtime.slots import SlotTable
from windlass.testing.simulation.channel import End
from windlass.testing.simulation.handlers import registry
from windlass.testing.simulation.loop import SimulatedLoop
from windlass.testing.simulation.scheduler import Process

if TYPE_CHECKING:
    from windlass.testing.simulation.supervisor import SupervisorProcess
    from windlass.testing.simulation.world import World

SIGKILL = int(signal.SIGKILL)


class WorkerProcess(Process):
    """One worker, from its start to its end."""

    __slots__ = (
        "_boot", "_end", "_status", "_task", "id", "link", "loop", "parent", "supervisor_end", "table", "world",
    )  # fmt: skip

    def __init__(self, world: World, parent: SupervisorProcess, boot: Boot) -> None:
        super().__init__(world.scheduler, f"{parent.name}/{len(world.workers) + 1}", parent.machine)
        self.world = world
        self.parent = parent
        self.id = ""
        self.cut_off = parent.cut_off
        self.table = SlotTable()
        self.loop = SimulatedLoop.of(self)
        self._boot = boot
        self._status = SIGKILL
        self._end = End(self, world.locks)
        self.supervisor_end = End(parent, world.locks)
        self._end.connect(self.supervisor_end)
        world.workers[self.pid] = self
        self.on_death.append(lambda: parent.exited(self, self._status))
        self.after(0.02 + world.dice.random() * 0.3, self._ready)

    def _ready(self) -> None:
        settings = self.world.settings
        self._end.send(
            messages.Ready(
                url="simulated://",
                hold=settings.hold,
                queues=tuple(queue for queue, _ in settings.queues),
                tasks=(),
                schedules=tuple(self.world.code()),
                concurrency=1 if self._boot.quarantine else settings.concurrency,
                stall_timeout=None,
            )
        )
        self._end.on_readable(lambda: self.after(self.world.dice.random() * 1e-3, self._first_words))

    def _first_words(self) -> None:
        """As `link.first_words`: wait for Go, or for a stop before it."""
        if self.id:
            return
        said = self._end.receive()
        for at, message in enumerate(said):
            if isinstance(message, messages.Go):
                self.id = message.worker_id
                self._work(said[at + 1 :])
                return
            if isinstance(message, messages.Stop):
                self.exit(0)
                return
        if self._end.closed:
            self.kill()

    def _work(self, early: list[Any]) -> None:
        world = self.world
        world.by_worker_id[self.id] = self
        world.ledger.did(world.scheduler.now, self.name, "worker begins", self.id)
        self.link = Link(self, self._end, early)
        worker = world.cast.worker(
            registry(world, self),
            world.open(self),
            self.link,
            concurrency=1 if self._boot.quarantine else world.settings.concurrency,
            queues=world.settings.queues,
            suspects=self._boot.quarantine,
            strict=world.settings.strict,
        )
        self._task = self.loop.create_task(worker.run())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.loop.failures.append({"message": "a worker failed", "exception": error})
        self.exit(0 if error is None else 256)

    def exit(self, status: int) -> None:
        """End of its own accord, with a wait status."""
        self._status = status
        self.kill()


class Link:
    """See runtime.link.Link."""

    def __init__(self, process: WorkerProcess, end: End, early: list[Any]) -> None:
        self.worker_id = process.id
        self.table = process.table
        self._process = process
        self._end = end
        self._early = early
        self._wanted = False
        self._worker: Told | None = None

    def attach(self, worker: Told) -> None:
        """See Link."""
        self._worker = worker
        early, self._early = self._early, []
        for message in early:
            self._obey(message)
        dice = self._process.world.dice
        self._end.on_readable(lambda: self._process.loop.call_later(dice.random() * 1e-3, self._readable))

    def want_wake(self, wanted: bool) -> None:
        """See Link."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._end.send(messages.Want(wanted))

    def stopped(self) -> None:
        """See Link."""
        self._end.send(messages.Stopped())

    def close(self) -> None:
        """See Link."""

    async def process_slot(self) -> NoReturn:
        """No task here runs in a process of its own."""
        raise NoSlot("not simulated")

    def release_slot(self, slot: SlotClient, healthy: bool) -> None:
        """See Link."""

    def _readable(self) -> None:
        for message in self._end.receive():
            self._obey(message)
        if self._end.closed:
            self._process.kill()

    def _obey(self, message: messages.ToWorker) -> None:
        worker = self._worker
        assert worker is not None
        match message:
            case messages.Wake():
                self._wanted = False
                worker.wake()
            case messages.Stop(deadline=deadline, reason=reason):
                worker.stop(deadline, reason)
            case messages.Cancel(ids=ids):
                worker.cancel(ids)
            case messages.Quarantine():
                worker.quarantine()
            case messages.Taken():
                worker.taken()
            case messages.Reconcile():
                worker.reconcile()
            case _:
                raise NotImplementedError(message)
