"""One simulated life: machines, processes, a store, and what befalls them, all from one seed."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from windlass.core.job import Attempt, Job
from windlass.ports.plan import drive
from windlass.ports.store import Filter, Schedule, ScheduleChange
from windlass.runtime.supervisor import Supervisor
from windlass.runtime.worker import Worker
from windlass.stores.memory import MemoryStore
from windlass.testing.clock import EPOCH
from windlass.testing.simulation.client import ClientProcess
from windlass.testing.simulation.database import Database, MemoryDatabase
from windlass.testing.simulation.faults import Faults
from windlass.testing.simulation.ledger import Ledger
from windlass.testing.simulation.locks import Locks
from windlass.testing.simulation.nature import replaced
from windlass.testing.simulation.scheduler import Process, Scheduler
from windlass.testing.simulation.shells import Opened
from windlass.testing.simulation.supervisor import SupervisorProcess
from windlass.testing.simulation.timetable import Code, draw_versions
from windlass.testing.simulation.wire import Wire

if TYPE_CHECKING:
    from windlass.testing.simulation.worker import WorkerProcess

PATIENCE = 400.0
"""Virtual seconds after the last fault in which every job must have ended."""
LOOK = 0.5


class Cast(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of the product that live here; a test that plants a violation replaces one."""

    store: Callable[[], Any] = MemoryStore
    """Makes the memory store's plans; for those of the others, see below."""
    sqlite_store: Callable[[], Any] | None = None
    postgres_store: Callable[[str], Any] | None = None
    """Given the schema."""
    redis_store: Callable[[], Any] | None = None
    worker: Callable[..., Worker] = Worker
    supervisor: Callable[..., Supervisor] = Supervisor
    durability: str = "full"
    settings: dict[str, Any] = {}
    """What is not left to the dice: something rare is looked for in lives in which it is less rare."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of life it is; durations in seconds."""

    jobs: int
    clients: int
    supervisors: int
    workers: int
    """Of each supervisor."""
    concurrency: int
    hold: float
    queues: tuple[tuple[str, float | None], ...]
    strict: bool
    pace: float
    """Longest pause of a client."""
    length: float
    """What durations of work are multiplied by."""
    cancels: float
    revives: float
    trouble: float
    """How long faults may strike."""
    versions: tuple[Code, ...]
    """Of the application's code, of which each defines schedules."""
    deploy: float
    """When the second version replaces the first."""
    operates: float
    """How often a client does what operators do."""
    limited: float
    """How many of the jobs have limits."""
    unique: float
    """How many of the jobs have a unique key."""
    runs_most: int = 60


def draw_settings(dice: random.Random) -> Settings:
    """Small lives: what goes wrong between two jobs goes wrong between five."""
    two = dice.random() < 0.3
    trouble = dice.choice((3.0, 8.0, 15.0))
    return Settings(
        jobs=dice.choice((1, 3, 5, 7, 9, 12)),
        clients=dice.choice((1, 1, 2)),
        supervisors=dice.choice((1, 2, 2, 2, 3)),
        workers=dice.choice((1, 1, 2)),
        concurrency=dice.choice((1, 2, 4)),
        hold=dice.choice((2.0, 3.0, 6.0)),
        queues=(("default", None), ("other", 2.0)) if two else (("default", None),),
        strict=dice.random() < 0.3,
        pace=dice.choice((0.2, 0.7, 2.0)),
        length=dice.choice((0.3, 1.5, 5.0)),
        cancels=dice.choice((0.0, 0.1, 0.3)),
        revives=dice.choice((0.0, 0.1)),
        trouble=trouble,
        versions=draw_versions(dice, trouble),
        deploy=dice.random() * trouble,
        operates=dice.choice((0.0, 0.0, 0.2, 0.5)),
        limited=dice.choice((0.0, 0.0, 0.3, 0.9)),
        unique=dice.choice((0.0, 0.0, 0.3, 0.9)),
    )


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a seed."""

    seed: int
    store: str
    url: str
    """Of the server, where the store is one."""
    violations: tuple[str, ...]
    hash: str
    """Of the ledger: two lives with one hash were the same life."""
    jobs: int
    acked: int
    events: int
    commits: int
    seconds: float
    """Virtual."""
    delivered: dict[str, int]
    """Faults that really happened, by kind."""
    answered: dict[str, int]
    """How often each operation was."""
    trace: tuple[str, ...] | None = None

    def figures(self) -> dict[str, int]:
        """For the report of a run."""
        return {
            "jobs": self.jobs,
            "acked": self.acked,
            "events": self.events,
            "commits": self.commits,
            **{f"fault: {kind}": count for kind, count in sorted(self.delivered.items())},
        }


class Dump(msgspec.Struct, frozen=True):
    """What the store holds in the end."""

    jobs: dict[str, Job]
    attempts: dict[str, list[Attempt]]
    audit: list[str]
    now: int
    schedules: list[Schedule]


class World:
    """See the head of this file."""

    def __init__(
        self, seed: int, *, cast: Cast, keep_trace: bool, make: Callable[[World], Database] | None = None
    ) -> None:
        """`make` opens another database than the memory store's."""
        self.cast = cast
        self.scheduler = Scheduler(f"windlass {seed}")
        self.dice = self.scheduler.dice
        self.settings = msgspec.structs.replace(draw_settings(self.dice), **cast.settings)
        self.ledger = Ledger(keep_text=keep_trace)
        self.offset = 0
        """What was added to the store's clock by steps."""
        self.furthest = 0
        self.locks = Locks(self._who)
        self.workers: dict[int, WorkerProcess] = {}
        self.by_worker_id: dict[str, WorkerProcess] = {}
        self.supervisors: list[SupervisorProcess] = []
        self.clients: list[ClientProcess] = []
        self.loops: list[Any] = []
        self.wire = Wire(self.scheduler, self.ledger, self.clock)
        self.disk: Any = None
        if make is None:
            self.wire.database = MemoryDatabase(cast.store(), self.clock)
        else:
            self.wire.database = self.disk = make(self)
        self.wire.cut_power = self.cut_power
        self.on_a_server = not self.wire.database.writers_wait
        self.can_lose_power = self.wire.database.writers_wait and make is not None
        self.on_one_machine = self.can_lose_power or self.dice.random() < 0.25
        """Then the kernel judges who is alive; otherwise leases do."""
        self.wire.remote = not self.on_one_machine
        self.faults = Faults(self)
        self._started = 0
        self._up = True
        self.reader = Process(self.scheduler, "reader", -1)

    # --- what the product asks of the machine ----------------------------------------------------------------------

    def monotonic(self) -> float:
        """Virtual seconds; a machine has been up for a while when anything starts on it."""
        return self.scheduler.now + 1_000.0

    def clock(self) -> int:
        """The store's, in microseconds since 1970."""
        return EPOCH + round(self.scheduler.now * 1e6) + self.offset

    def kill(self, pid: int, number: int) -> None:
        """See nature.World."""
        worker = self.workers.get(pid)
        if worker is not None and number == 9:
            worker.kill()

    def exits(self) -> list[tuple[int, int]]:
        """See nature.World."""
        acting = self.scheduler.acting
        assert isinstance(acting, SupervisorProcess)
        found = list(acting.exits)
        acting.exits.clear()
        return found

    def heard(self, record: logging.LogRecord) -> None:
        """See nature.World."""
        acting = self.scheduler.acting
        facts = getattr(record, "facts", {})
        self.ledger.say(self.scheduler.now, acting.name if acting else "world", f"{record.getMessage()} {facts or ''}")

    def open(self, process: Process) -> Any:
        """The store, as a process opens it."""
        return Opened(self.wire, process, "simulated" if self.on_one_machine else None)

    def code(self) -> Sequence[ScheduleChange]:
        """The schedules of the code that a process loads now."""
        versions = self.settings.versions
        return versions[-1 if self.scheduler.now >= self.settings.deploy else 0]

    def _who(self) -> Process:
        assert self.scheduler.acting is not None
        return self.scheduler.acting

    # --- processes ---------------------------------------------------------------------------------------------------

    def processes(self) -> list[Process]:
        """All that live."""
        every: list[Process] = [*self.supervisors, *self.workers.values(), *self.clients]
        return [process for process in every if process.alive]

    def start_missing(self) -> None:
        """Start supervisors until there are as many as there should be."""
        if not self._up:
            return
        living = sum(s.alive and not s.leaving for s in self.supervisors)
        for _ in range(self.settings.supervisors - living):
            self._started += 1
            machine = 0 if self.on_one_machine else self._started
            self.supervisors.append(SupervisorProcess(self, f"sup-{self._started}", machine, self.settings.workers))

    # --- power -------------------------------------------------------------------------------------------------------

    def cut_power(self) -> None:
        """Everything stops at once; a while later the machine is up again, with what was flushed."""
        if not self._up:
            return
        self._up = False
        self.ledger.fault(self.scheduler.now, "machine", "power cut")
        self.wire.power_off()
        unfinished = [client for client in self.clients if not client.finished and client.alive]
        for process in self.processes():
            process.kill()
        self.disk.lose_power()
        doubtful, self.wire.doubtful = self.wire.doubtful, None
        if doubtful is not None and self.disk.survived:
            self.wire.committed(doubtful)
        self.scheduler.at(self.scheduler.now + 0.5 + self.dice.random() * 5, self._boot, len(unfinished))

    def cut_power_soon(self, requests: int) -> None:
        """At the n-th request to the disk from now on."""
        self.disk.lose_power_soon(requests)

    def _boot(self, clients: int) -> None:
        self._up = True
        self.wire.power_on(self.disk)
        self.start_missing()
        for _ in range(clients):
            self._start_client(self.dice.randint(1, 3))
        if self.faults.over:
            self._start_client(0)  # the one that there was may have died

    def _start_client(self, jobs: int) -> None:
        self.clients.append(ClientProcess(self, f"client-{len(self.clients) + 1}", jobs))

    def lost_commits(self, count: int) -> None:
        """Commits that had been acknowledged are not there after a power cut."""
        self.ledger.did(self.scheduler.now, "machine", "commits lost", count)

    # --- life --------------------------------------------------------------------------------------------------------

    def live(self) -> Dump:
        """From the first enqueue to the day when everything has ended, or should have."""
        with replaced(self, listening=self.ledger.text is not None):
            settings = self.settings
            self.start_missing()
            for _ in range(settings.clients):
                self._start_client(max(1, settings.jobs // settings.clients))
            self.faults.begin(settings.trouble)
            self.scheduler.run(lambda: self.faults.over and self._up)
            self._start_client(0)
            end = self.scheduler.now + PATIENCE
            while self.scheduler.now < end and not self._at_rest():
                until = self.scheduler.now + LOOK
                self.scheduler.at(until, lambda: None)
                self.scheduler.run(lambda until=until: self.scheduler.now >= until)  # type: ignore[misc]
            if self.wire.busy:
                self.scheduler.run(lambda: not self.wire.busy)
            self.scheduler.ended = True
            dump = self._dump()
            for process in self.processes():
                process.kill()
        return dump

    def all_asked(self) -> bool:
        """Whether every client that lives has asked for all that it wants."""
        return all(client.finished or client.closing for client in self.clients if client.alive)

    def _at_rest(self) -> bool:
        if not self._up or self.wire.busy or not all(client.finished for client in self.clients if client.alive):
            return False
        states = self._read(self.wire.database.store.stats(exact=True)).states
        if any(states.get(s) for s in ("queued", "running", "scheduled", "retrying", "blocked")):
            return False
        schedules: list[Schedule] = self._read(self.wire.database.store.schedules())
        return all(schedule.paused or schedule.next_at is None for schedule in schedules)

    def _dump(self) -> Dump:
        store = self.wire.database.store
        found = self._read(store.search(Filter(), 100_000)).jobs
        jobs = {job.id: job for job in found}
        attempts = {id: self._read(store.attempts(id)) for id in jobs}
        return Dump(jobs, attempts, self._read(store.audit()), self.clock(), self._read(store.schedules()))

    def _read(self, plan: Any) -> Any:
        """Read the store from outside of the simulated world, without a trace; between two transactions."""
        connection = self.wire.database.connect(self.reader)
        if self.wire.database.readers_wait:
            return drive(iter(plan), connection.execute)
        connection.begin(write=False)
        try:
            return drive(iter(plan), connection.execute)
        finally:
            connection.rollback()

    def failures(self) -> list[str]:
        """What nobody caught in any event loop."""
        loops = [*(worker.loop for worker in self.workers.values()), *self.loops]
        return [repr(each.get("exception") or each) for loop in loops for each in loop.failures]
