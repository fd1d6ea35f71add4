"""What goes wrong: faults drawn from the seed, delivered at moments drawn from the seed, and healed in the end.

Every life has some kinds of faults only (a life with all of them at once gets nowhere, and finds less), and a while
without any at its end, in which everything must come to rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from windlass.testing.simulation.scheduler import SECOND, Process
from windlass.testing.simulation.supervisor import SupervisorProcess
from windlass.testing.simulation.worker import WorkerProcess

if TYPE_CHECKING:
    from windlass.testing.simulation.world import World

P = TypeVar("P")

HOUR = 3_600 * SECOND
FAR = (0.002, 0.02, 0.1)
"""Seconds to a server and back, at the most. The longer, the more transactions are there at once, and meet."""


class Faults:
    """The adversary of one life."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice
        self._kinds: list[Callable[[], None]] = []
        self.over = False

    def begin(self, until: float) -> None:
        """Choose what may go wrong, and when it does."""
        dice, world = self._dice, self._world
        every: list[Callable[[], None]] = [
            self.kill_worker,
            self.kill_supervisor,
            self.pause_tree,
            self.cut_off_tree,
            self.freeze_store,
            self.step_clock,
            self.stop_supervisor,
            self.slow_store,
        ]
        if world.can_lose_power:
            every.append(self.cut_power)
        if world.on_a_server:
            every += [self.terminate_backends, self.kill_server, self.stop_inside]
        self._kinds = [kind for kind in every if dice.random() < 0.45]
        rates = world.wire.rates
        if dice.random() < 0.5:
            rates.lose_answer = dice.choice((0.01, 0.05, 0.2))
            rates.lose_request = dice.choice((0.0, 0.01, 0.1))
            rates.run_late = dice.choice((0.0, 0.05, 0.15))
        if dice.random() < 0.25:
            rates.die_inside = dice.choice((0.01, 0.05))
        if world.on_a_server:
            rates.spread = dice.choice(FAR)
        world.wire.murder = self.murder
        if self._kinds:
            for _ in range(dice.choice((1, 1, 2, 3, 5, 8))):
                world.scheduler.at(dice.random() * until, self._strike)
        world.scheduler.at(until, self.heal)

    def heal(self) -> None:
        """From here on nothing goes wrong that the jobs do not do themselves."""
        world = self._world
        self.over = True
        world.wire.rates.heal()
        world.wire.frozen_until = 0.0
        world.offset = max(world.offset, world.furthest)
        for process in world.processes():
            process.cut_off = False
            if process.paused:
                process.go_on()
        world.start_missing()
        world.ledger.did(world.scheduler.now, "world", "faults are over")

    def _strike(self) -> None:
        world = self._world
        if self.over:
            return
        busy = any(worker.alive and worker.table.busy for worker in world.workers.values())
        if not busy and self._dice.random() < 0.9:
            # A fault that strikes while nothing happens shows nothing.
            world.scheduler.at(world.scheduler.now + 0.05 + self._dice.random() * 0.3, self._strike)
        else:
            self._dice.choice(self._kinds)()

    # --- kinds -------------------------------------------------------------------------------------------------------

    def kill_worker(self) -> None:
        """SIGKILL to one worker; its supervisor sees it."""
        worker = self._some_worker()
        if worker is not None:
            self._note("worker killed", worker)
            worker.kill()

    def kill_supervisor(self) -> None:
        """SIGKILL to a supervisor, with which its workers die; another one starts a while later."""
        supervisor = self._some_supervisor()
        if supervisor is not None:
            self._note("supervisor killed", supervisor)
            supervisor.kill()
            self._world.scheduler.at(self._world.scheduler.now + self._dice.random() * 6, self._world.start_missing)

    def murder(self, process: Process) -> None:
        """SIGKILL to whoever is in the middle of a transaction."""
        if self.over or not process.alive:
            process.kill()  # it was picked before, and is stuck in the middle
        elif process.kill():
            self._world.ledger.fault(self._world.scheduler.now, process.name, "killed inside a transaction")
        self._world.scheduler.at(self._world.scheduler.now + self._dice.random() * 6, self._world.start_missing)

    def stop_supervisor(self) -> None:
        """SIGTERM, as with every deploy; another one starts a while later."""
        supervisor = self._some_supervisor()
        if supervisor is not None and not supervisor.paused and supervisor.host.main.hears:
            self._note("supervisor told to stop", supervisor)
            supervisor.terminate()
            self._world.scheduler.at(self._world.scheduler.now + self._dice.random() * 6, self._world.start_missing)

    def pause_tree(self) -> None:
        """SIGSTOP to a supervisor and all its workers, often beyond their leases."""
        supervisor = self._some_supervisor()
        if supervisor is None or supervisor.paused:
            return
        if supervisor.inside:  # stopped in the middle of a blocking call; that would stop the simulation with it
            self._world.scheduler.at(self._world.scheduler.now + 0.01, self.pause_tree)
            return
        tree = [supervisor, *(w for w in supervisor.children.values() if w.alive)]
        for process in tree:
            process.stop()
        seconds = (0.3 + self._dice.random() * 3) * self._world.settings.hold
        self._note("tree stopped", supervisor, round(seconds, 3))

        for process in tree:
            self._world.scheduler.at(self._staggered(seconds), self._go_on, process)

    def _go_on(self, process: Process) -> None:
        if process.paused:
            process.go_on()

    def _staggered(self, seconds: float) -> float:
        """When a process is back, for not all are back at once: who is first to speak decides who is a ghost."""
        return self._world.scheduler.now + seconds + self._dice.random() ** 2 * self._dice.choice((0.01, 2.0))

    def cut_off_tree(self) -> None:
        """A machine that cannot reach the store for a while."""
        supervisor = self._some_supervisor()
        if supervisor is None or self._world.on_one_machine:
            return
        seconds = (0.3 + self._dice.random() * 3) * self._world.settings.hold
        self._note("machine cut off", supervisor, round(seconds, 3))
        tree: list[Process] = [supervisor, *(w for w in supervisor.children.values() if w.alive)]
        for process in tree:
            process.cut_off = True
            self._world.scheduler.at(self._staggered(seconds), self._reconnect, process, tree)

    def _reconnect(self, process: Process, tree: list[Process]) -> None:
        process.cut_off = False
        if isinstance(process, SupervisorProcess):
            for child in process.children.values():
                if child not in tree:  # it was started meanwhile
                    child.cut_off = False

    def freeze_store(self) -> None:
        """The store answers nobody for a while."""
        seconds = self._dice.random() * 2 * self._world.settings.hold
        self._note("store frozen", None, round(seconds, 3))
        self._world.wire.frozen_until = self._world.scheduler.now + seconds

    def terminate_backends(self) -> None:
        """Somebody ends all connections that are inside a transaction."""
        self._note("connections ended", None)
        self._world.wire.lose_connections()

    def stop_inside(self) -> None:
        """SIGSTOP to a worker in the middle of a transaction, for longer than the server puts up with it."""
        world = self._world
        inside = [worker for worker in world.workers.values() if world.wire.is_inside(worker) and not worker.paused]
        if self.over:
            return
        if not inside:
            world.scheduler.at(world.scheduler.now + 0.01, self.stop_inside)
            return
        worker = self._dice.choice(inside)
        seconds = 1 + self._dice.random() * 9
        self._note("worker stopped inside a transaction", worker, round(seconds, 3))
        worker.stop()
        world.scheduler.at(world.scheduler.now + seconds, self._go_on, worker)

    def kill_server(self) -> None:
        """SIGKILL to the database server: what it was in the middle of is undone, and a while later it is back."""
        self._note("server killed", None)
        self._world.wire.frozen_until = self._world.scheduler.now + self._dice.random() * 4
        self._world.wire.lose_connections()

    def slow_store(self) -> None:
        """Every statement takes long, for a while."""
        rates = self._world.wire.rates
        rates.spread = self._dice.choice((0.05, 0.3, 1.0))
        self._note("store slow", None, rates.spread)

        def fast_again() -> None:
            rates.spread = 0.002

        self._world.scheduler.at(self._world.scheduler.now + self._dice.random() * 10, fast_again)

    def step_clock(self) -> None:
        """The store's clock jumps, by up to an hour."""
        world = self._world
        step = round((self._dice.random() * 2 - 1) * self._dice.choice((SECOND, 30 * SECOND, HOUR)))
        self._note("clock stepped", None, step, world.clock())
        world.offset += step
        world.furthest = max(world.furthest, world.offset)

    def cut_power(self) -> None:
        """Now, or in the middle of one of the next commits."""
        if self._dice.random() < 0.3:
            self._world.cut_power()
        else:
            self._world.cut_power_soon(self._dice.randint(1, 40))

    # --- victims -----------------------------------------------------------------------------------------------------

    def _some_worker(self) -> WorkerProcess | None:
        alive = [worker for worker in self._world.workers.values() if worker.alive and worker.id]
        return self._one(alive, [worker for worker in alive if worker.table.busy])

    def _some_supervisor(self) -> SupervisorProcess | None:
        alive = [supervisor for supervisor in self._world.supervisors if supervisor.alive]
        return self._one(alive, [s for s in alive if any(w.alive and w.table.busy for w in s.children.values())])

    def _one(self, alive: list[P], busy: list[P]) -> P | None:
        """Rather one that has something to lose."""
        if busy and self._dice.random() < 0.8:
            return self._dice.choice(busy)
        return self._dice.choice(alive) if alive else None

    def _note(self, what: str, victim: SupervisorProcess | WorkerProcess | None, *facts: object) -> None:
        world = self._world
        world.ledger.fault(world.scheduler.now, victim.name if victim else "store", what, *facts)
