"""The crew: how many workers there should be, how they are started, when to wait, and which of them runs suspects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from windlass.runtime import process
from windlass.runtime.host import Host
from windlass.runtime.logs import Log
from windlass.runtime.loop import Loop, Timer
from windlass.runtime.member import Member, Phase
from windlass.runtime.messages import Boot, Quarantine
from windlass.runtime.slot_pool import SlotProcess

BACKOFF_FIRST, BACKOFF_MOST = 0.1, 5.0
SETTLED_IN = 2.0
"""Seconds after which a worker's end, however it ended, is no longer taken for a failure to start."""
QUARANTINE_WARM = 60.0
ACTIVE = (Phase.BOOTING, Phase.REGISTERING, Phase.RUNNING)

log = Log("supervisor")


class Crew:
    """The members of one supervisor, dead ones too until they are buried."""

    def __init__(
        self, loop: Loop, host: Host, command: Sequence[str], boot: Boot, size: int, heard: Callable[[Member], object]
    ) -> None:
        """`heard` is called when a worker has said something."""
        self._host = host
        self._loop = loop
        self._command = tuple(command)
        self._boot = boot
        self._size = size
        self._heard = heard
        self._members: dict[int, Member] = {}
        self._failures = 0
        self._not_before = 0.0
        self._retry: Timer | None = None
        self._suspects_seen = 0.0
        self.closed = False
        """Starts nobody any more."""
        self.held_back = False
        """Starts nobody until something changes."""

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)

    def by_pid(self, pid: int) -> Member | None:
        """Whose process that is."""
        return self._members.get(pid)

    def by_id(self, worker_id: str) -> Member | None:
        """Who is known to the store by that id."""
        return next((member for member in self if member.id == worker_id), None)

    def ids(self) -> list[str]:
        """As the store knows them, the longest-serving first; may be called from any thread."""
        return [member.id for member in self if member.id]

    def gone(self, member: Member) -> None:
        """Nothing of it is left."""
        self._members.pop(member.pid, None)

    # --- starting ----------------------------------------------------------------------------------------------------

    def balance(self) -> None:
        """Start as many workers as are missing, unless they keep dying as they start."""
        if self.closed or self.held_back:
            return
        missing = self._size - sum(m.phase in ACTIVE and not m.quarantine for m in self)
        wait = self._not_before - self._loop.clock()
        if missing > 0 and wait > 0:
            if self._retry is not None:
                self._retry.cancel()
            self._retry = self._loop.later(wait, self.balance)
            return
        for _ in range(missing):
            if not self._start(quarantine=False):
                self.balance()  # later
                return

    def _start(self, *, quarantine: bool) -> bool:
        try:
            child = self._host.start_worker(self._command, msgspec.structs.replace(self._boot, quarantine=quarantine))
        except OSError as problem:  # no process, memory or descriptor left: those that run must not end for it
            self._failed(f"cannot start a process: {problem}")
            return False
        member = Member(child.pid, child.mark, child.channel, child.table, self._loop.clock())
        member.quarantine = quarantine
        self._members[member.pid] = member
        self._loop.watch(member.channel, lambda: self._heard(member))
        log.info("worker starts", pid=member.pid, quarantine=quarantine)
        return True

    def start_slot(self) -> SlotProcess:
        """Start a process slot. Raises OSError if the system has no process or descriptor left."""
        return SlotProcess(*self._host.start_slot(self._command, self._boot))

    # --- those that die as they start --------------------------------------------------------------------------------

    def note_exit(self, member: Member) -> None:
        """Learn from an exit how long to wait with the next start."""
        lived = self._loop.clock() - member.started
        if member.executing or (member.id and lived > SETTLED_IN):
            self._failures = 0
            return
        if member.dismissed:
            return
        self._failed(member.broken or member.explained or process.describe_exit(member.status))

    def _failed(self, reason: str) -> None:
        self._failures += 1
        delay = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** (self._failures - 1))
        self._not_before = self._loop.clock() + delay
        if not self.closed:
            log.warning("workers die as they start; waiting", delay=delay, reason=reason)

    def forgive(self) -> None:
        """Something changed: start at once again."""
        self._failures, self._not_before, self.held_back = 0, 0.0, False

    # --- quarantine --------------------------------------------------------------------------------------------------

    def suspected(self, queues: Sequence[str] | None = None) -> None:
        """There may be suspects (in `queues`, if that is known): have one worker that runs them, one at a time."""
        served = {queue for member in self if member.ready for queue in member.ready.queues}
        if queues is not None and not served & set(queues):
            return
        self._suspects_seen = self._loop.clock()
        if self.closed or any(m.quarantine and m.phase in ACTIVE for m in self):
            return
        idle = next((m for m in self if m.phase is Phase.RUNNING and m.idle), None)
        if idle is None:
            self._start(quarantine=True)
            return
        # It is there at once; a new one would have to load the application first.
        idle.quarantine = True
        idle.channel.send(Quarantine())
        log.info("worker runs suspects", worker=idle.id, pid=idle.pid)
        self.balance()

    def cooled(self) -> list[Member]:
        """Quarantine workers that have had nothing to do for a minute."""
        now = self._loop.clock()
        resting = [m for m in self if m.quarantine and m.phase is Phase.RUNNING]
        if any(not m.idle for m in resting):
            self._suspects_seen = now
        return resting if now - self._suspects_seen > QUARANTINE_WARM else []
