"""A worker process as its supervisor knows it.

Phases: `booting` (loads the application; holds nothing) -> `registering` (its lock is made, its first beat is under
way) -> `running` (may claim) -> `leaving` (told to stop, condemned or taken over; still beats) -> `dead` (exited; its
process slots and orphans may not have) -> gone, once the store has taken its jobs over.
"""

from __future__ import annotations

import secrets
import time
from enum import StrEnum

import msgspec

from windlass.ports.store import Death, WorkerReport
from windlass.runtime import process
from windlass.runtime.lockfile import WorkerLock
from windlass.runtime.messages import Channel, Ready, ToSupervisor, Wake
from windlass.runtime.service import lease_clock
from windlass.runtime.slots import Entry, SlotTable

LEASE_MARGIN, LEASE_MARGIN_LEAST = 0.15, 0.5
"""Share of the hold, and seconds, by which an exclusive job is dead before its lease can end: a look at the limits and
a kill take that long."""


class Phase(StrEnum):
    """See the head of this file."""

    BOOTING = "booting"
    REGISTERING = "registering"
    RUNNING = "running"
    LEAVING = "leaving"
    DEAD = "dead"


class Identity(msgspec.Struct, frozen=True):
    """What all workers of a supervisor share."""

    supervisor: str
    host: str


class Member:
    """One worker process, from its start until its burial."""

    def __init__(self, pid: int, mark: str, channel: Channel[ToSupervisor], table: SlotTable, now: float) -> None:
        self.pid = pid
        self.mark = mark
        self.channel = channel
        self.table = table
        self.started = now
        self.started_at = time.time_ns()
        self.quarantine = False
        self.id = ""
        """As the store knows it; empty until it is ready."""
        self.phase = Phase.BOOTING
        self.ready: Ready | None = None
        self.lock: WorkerLock | None = None
        self.broken = ""
        self.stopped = False
        """It said that it drained."""
        self.leave_by = 0.0
        """When it is killed if it has not left."""
        self.dismissed = False
        """It was asked to leave, for no fault of its own."""
        self.explained = ""
        """Why it was ended, if that is no fault of its jobs."""
        self.guilty: tuple[tuple[str, str], ...] = ()
        self.stalled = False
        self.condemned_at = 0
        """On the clock of the slot table, when a job of it was found past its hard limit."""
        self.mismatches = 0
        self.renewed = 0.0
        """On the lease clock, before the last successful beat was sent."""
        self.status = 0
        self.executing: list[Entry] = []
        """What had begun and was not settled at its end."""
        self.burying = False
        """Nothing of it lives, and the store is asked to take its jobs back."""
        self.told = ""
        """The state that the store was last told."""
        self._wants = False
        self._missed = True

    @property
    def idle(self) -> bool:
        """Whether it holds nothing."""
        return not (self.table.busy or self.table.held()[0] or self.table.begun())

    @property
    def leased(self) -> bool:
        """Whether an exclusive job may run: its lease, counted from before the last renewal was sent, has a while to
        go."""
        assert self.ready is not None
        hold = self.ready.hold
        margin = min(max(hold * LEASE_MARGIN, LEASE_MARGIN_LEAST), hold / 3)
        return lease_clock() < self.renewed + hold - margin

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self.phase is not Phase.DEAD

    # --- hints -------------------------------------------------------------------------------------------------------

    def hint(self) -> None:
        """Pass a hint on if it is wanted; otherwise remember that there was one."""
        if self._wants and self.phase is Phase.RUNNING:
            # Said once: a worker that does not read must not be sent a wake-up with every hint of the day.
            self._wants = self._missed = False
            self.channel.send(Wake())
        else:
            self._missed = True

    def want(self, wanted: bool) -> bool:
        """The worker says whether hints are of use to it; answers the same. One that was missed meanwhile is made up
        for: the worker looked at the store before it said so."""
        self._wants = wanted
        if wanted and self._missed:
            self.hint()
        return self._wants

    @property
    def wants(self) -> bool:
        """Whether a hint would be passed on."""
        return self._wants and self.phase is Phase.RUNNING

    # --- what the store is told --------------------------------------------------------------------------------------

    def report(self, identity: Identity) -> WorkerReport:
        """Its beat, read from its table without asking it."""
        assert self.ready is not None
        held, held_hash = self.table.held()
        self.told = self.state
        return WorkerReport(
            id=self.id,
            supervisor=identity.supervisor,
            host=identity.host,
            pid=self.pid,
            hold=round(self.ready.hold * 1e6),
            queues=self.ready.queues,
            tasks=self.ready.tasks,
            slots=self.ready.concurrency,
            busy=self.table.busy,
            held=held,
            held_hash=held_hash,
            state=self.told,
        )

    @property
    def state(self) -> str:
        """What it is at, in one word."""
        if self.phase is Phase.LEAVING:
            return "draining"
        return "quarantine" if self.quarantine else self.table.condition

    def exited(self, status: int) -> None:
        """Note its end, and what ran at that moment."""
        self.phase = Phase.DEAD
        self.status = status
        # What ended in a process slot of its own has left nothing behind in the worker.
        self.executing = [entry for entry in self.table.begun() if not (entry.ended and entry.pid)]
        self.channel.close()

    @property
    def clean(self) -> bool:
        """Whether it ended as it should."""
        return self.stopped and self.status == 0

    def death(self) -> Death:
        """What its supervisor saw of its end."""
        explained = bool(self.explained or self.guilty) or self.clean
        stopped = self.clean or (self.dismissed and bool(self.explained) and not self.guilty)
        executing = tuple(entry.job_id for entry in self.executing)
        detail = process.describe_exit(self.status) + (f": {self.explained}" if self.explained else "")
        return Death(
            worker=self.id,
            observed=True,
            executing=executing,
            # A job in a process slot of its own cannot have done this to the worker, and one that had ended need not:
            # neither is certainly guilty.
            alone=not explained and len(executing) == 1 and not (self.executing[0].pid or self.executing[0].ended),
            explained=explained,
            # What a stop cuts off is handed back, not lost: however many deploys a long job meets, it dies of none.
            stopped=stopped,
            guilty=self.guilty,
            detail="stopped" if self.clean else detail,
        )


def new_id(prefix: str) -> str:
    """An id that no worker or supervisor ever had; short enough to be read out."""
    return f"{prefix}-{secrets.token_hex(6)}"
