"""Process slots as the supervisor knows them: it starts them (so that it may kill and confirm), keeps one warm, hands
each to the worker that asks, and tells that worker when one is dead and nothing it started is left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from windlass.runtime import process
from windlass.runtime.logs import Log
from windlass.runtime.loop import Loop, Timer
from windlass.runtime.member import Member
from windlass.runtime.messages import Broken, Channel, FromBootingSlot, NoSlots, Slot, SlotGone
from windlass.runtime.orphans import Orphans

BOOT_RETRY = 1.0
BOOTS = 3
"""Process slots in a row that do not start before those who wait are told so."""
FAREWELL = 2.0
REASON_MOST = 512
"""Characters of a reason that a job is handed back with."""

log = Log("slots")


class SlotProcess:
    """One child that runs one job at a time."""

    def __init__(self, pid: int, mark: str, channel: Channel[FromBootingSlot]) -> None:
        self.pid = pid
        self.mark = mark
        self.channel = channel
        self.ready = False
        self.broken = ""
        """Why it could not start, as it said itself."""
        self.trace = ""
        self.owner: Member | None = None
        self.reason = ""
        """Why the supervisor killed it, if it did."""


class SlotPool:
    """All process slots of one supervisor."""

    def __init__(self, loop: Loop, start: Callable[[], SlotProcess]) -> None:
        self._loop = loop
        self._start = start
        self._slots: dict[int, SlotProcess] = {}
        self._mourned: dict[int, Member] = {}
        self._waiting: deque[Member] = deque()
        self._spares = 0
        self._closed = False
        self._resting: Timer | None = None
        self._failures = 0
        """Boots that failed since the last one that did not."""
        self._problem = ""
        """What was last said of them."""

    @property
    def pids(self) -> set[int]:
        """Of every slot that has not been waited for."""
        return set(self._slots)

    def keep_warm(self, spares: int) -> None:
        """Keep this many ready for whoever asks first."""
        self._spares = spares
        self._fill()

    def need(self, member: Member) -> None:
        """Give `member` a slot as soon as one is warm."""
        self._waiting.append(member)
        self._fill()
        self.hand_out()

    def done(self, member: Member, pid: int) -> None:
        """The worker has no more use for a slot of its own."""
        slot = self._slots.get(pid)
        if slot is not None and slot.owner is member:
            slot.reason = slot.reason or "released"
            process.kill(pid)

    def kill(self, member: Member, pid: int, reason: str) -> None:
        """Kill a slot of `member` for `reason`, which the worker is told with the news of its death."""
        slot = self._slots.get(pid)
        if slot is not None and slot.owner is member and not slot.reason:
            slot.reason = reason
            log.warning("killing a process slot", pid=pid, worker=member.id, reason=reason)
            process.kill(pid)

    def kill_of(self, member: Member) -> None:
        """Kill every slot of a dead worker. One that left cleanly left them idle: they end by themselves, and get a
        moment to let go of what their start hooks made."""
        self._waiting = deque(each for each in self._waiting if each is not member)
        for slot in self._slots.values():
            if slot.owner is member:
                slot.reason = slot.reason or "its worker is gone"
                if member.clean:
                    self._loop.later(FAREWELL, lambda pid=slot.pid: self._late(pid))  # type: ignore[misc]
                else:
                    process.kill(slot.pid)

    def _late(self, pid: int) -> None:
        if pid in self._slots:
            process.kill(pid)

    def left_of(self, member: Member) -> bool:
        """Whether a slot of `member`, or what one started, still lives."""
        return member in self._mourned.values() or any(slot.owner is member for slot in self._slots.values())

    def close(self) -> None:
        """Kill those that nobody owns, and start no more."""
        self._closed = True
        self.refresh()

    def refresh(self) -> None:
        """Replace those that nobody owns: they have loaded what was changed since."""
        self._failures, self._problem = 0, ""
        for slot in self._slots.values():
            if slot.owner is None:
                process.kill(slot.pid)

    def exited(self, pid: int, status: int) -> bool:
        """Note that a child exited; False if it is no slot."""
        slot = self._slots.pop(pid, None)
        if slot is None:
            return False
        if slot.owner is None and not slot.ready:
            self._heard(slot)  # what it said before it died may still be in the socket
        self._loop.forget(slot.channel)
        slot.channel.close()
        owner = slot.owner
        if owner is not None:
            self._mourned[pid] = owner
            gone = SlotGone(pid, slot.reason, process.describe_exit(status))
            Orphans(self._loop, slot.mark, lambda: self._buried(pid, gone)).wait()
        elif not slot.ready and not self._closed:
            self._unbootable(slot, status)
        else:
            self._fill()
        return True

    def _buried(self, pid: int, gone: SlotGone) -> None:
        owner = self._mourned.pop(pid)
        if owner.alive:
            owner.channel.send(gone)
        self._fill()

    def _unbootable(self, slot: SlotProcess, status: int) -> None:
        """It died while it started. The next will perhaps do better, but a job must not hang on it: it waits where
        anybody can see why, uncharged."""
        reason = slot.broken or f"a process slot died while it started: {process.describe_exit(status)}"
        if reason != self._problem:
            self._problem = reason
            trace = {"trace": slot.trace} if slot.trace else {}
            log.error("a process slot cannot start", pid=slot.pid, reason=reason, **trace)
        self._failures += 1
        if self._failures >= BOOTS:
            while self._waiting:
                self._waiting.popleft().channel.send(NoSlots(f"no process slot: {reason}"[:REASON_MOST]))
        if self._resting is None:
            self._resting = self._loop.later(BOOT_RETRY, self._rested)

    def _rest(self, problem: OSError) -> None:
        """The system has no process or descriptor left: ask again later, but once, however many ask meanwhile."""
        if self._resting is None:
            log.error("cannot start a process slot; trying again", problem=problem)
            self._resting = self._loop.later(BOOT_RETRY, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self._fill()

    def _fill(self) -> None:
        if self._resting is not None:
            return
        free = sum(slot.owner is None for slot in self._slots.values())
        missing = len(self._waiting) + self._spares - free if not self._closed else 0
        for _ in range(min(missing, 1) if self._failures else missing):
            try:
                slot = self._start()
            except OSError as problem:
                self._rest(problem)
                return
            self._slots[slot.pid] = slot
            self._loop.watch(slot.channel, lambda slot=slot: self._heard(slot))  # type: ignore[misc]

    def _heard(self, slot: SlotProcess) -> None:
        try:
            messages = slot.channel.receive()
        except msgspec.MsgspecError:
            process.kill(slot.pid)
            messages = []
        if slot.channel.closed:
            self._loop.forget(slot.channel)
        for message in messages:
            if isinstance(message, Broken):
                slot.broken, slot.trace = message.reason, message.detail
        if messages and not slot.broken:
            self._failures, self._problem = 0, ""
            slot.ready = True
            self._loop.forget(slot.channel)  # what it says from now on is for its worker to hear
            self.hand_out()

    def hand_out(self) -> None:
        """Give what is warm to those who wait; but to nobody who is cut off from the store, as what it runs may have
        to be killed at once."""
        for slot in list(self._slots.values()):
            owner = next((member for member in self._waiting if member.leased), None)
            if owner is None:
                return
            if slot.ready and slot.owner is None:
                self._waiting.remove(owner)
                slot.owner = owner
                owner.channel.send(Slot(slot.pid), fd=slot.channel.fileno())
                slot.channel.close()
        self._fill()
