"""Hard limits and stalls: what the supervisor reads in the slot tables four times a second, and what it does about it.

A process slot past its hard deadline is killed alone. A stuck thread or coroutine cannot be: its worker is condemned
(it claims no more, a replacement starts, the neighbours drain), then killed. A worker whose loop no longer turns is
asked for its stacks once; it is killed only if finished work stays unsettled in it although the store is well (which a
worker whose loop does turn is killed for as well), or if the application set `stall_timeout`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from windlass.runtime import process
from windlass.runtime.logs import Log
from windlass.runtime.member import Member, Phase
from windlass.runtime.messages import Stop
from windlass.runtime.slot_pool import SlotPool
from windlass.runtime.slots import STALLED, Entry, now_ns

EVERY, EVERY_IDLE = 0.25, 1.0
DRAIN = 30.0
"""Seconds that the neighbours of a stuck job get to finish."""
DEAF = 2.0
"""Seconds without a turn of its loop after which a condemned worker's neighbours cannot finish anyway: nothing they
return would be settled."""
UNSETTLED_HOLDS = 2.0
PAUSED = 2.0

log = Log("limits")


class Limits:
    """Looks after the members of one supervisor."""

    def __init__(self, pool: SlotPool, condemned: Callable[[Member], None], healthy: Callable[[], bool]) -> None:
        """`condemned` starts a replacement; `healthy` says whether the store answered the last beat."""
        self._pool = pool
        self._condemned = condemned
        self._healthy = healthy
        self._overdue: dict[Member, set[int]] = {}
        self._looked = now_ns()
        self._patient_until = 0
        self._well_since = self._looked
        """Since when there is no excuse for what is not settled."""

    def look(self, members: list[Member]) -> None:
        """Look at every member once."""
        running = [member for member in members if member.phase in {Phase.RUNNING, Phase.LEAVING}]
        for member in running:
            self._exclusive(member)
        now = now_ns()
        if now - self._looked > PAUSED * 1e9:
            # The supervisor itself was stopped, and so perhaps was everybody: let them turn once before judging.
            self._patient_until = now + round(PAUSED * 1e9)
        if now < self._patient_until or not self._healthy():
            self._well_since = now
        self._looked = now
        if now < self._patient_until:
            return
        for gone in set(self._overdue) - set(members):
            del self._overdue[gone]
        for member in running:
            entries = member.table.executing()
            self._hard(member, entries)
            self._stall(member, entries)

    def _exclusive(self, member: Member) -> None:
        """I5: dead before another host could run it, counted from before the last renewal was sent."""
        for entry in member.table.executing() if not member.leased else ():
            if entry.exclusive and entry.pid:
                self._pool.kill(member, entry.pid, "lease_lost")

    def _hard(self, member: Member, entries: list[Entry]) -> None:
        now = now_ns()
        over = [entry for entry in entries if 0 < entry.hard_deadline < now]
        # Seen twice, a quarter of a second apart: an entry is read while its worker may be writing it.
        sure = [entry for entry in over if entry.fence in self._overdue.get(member, ())]
        self._overdue[member] = {entry.fence for entry in over}
        for entry in sure:
            if entry.pid:
                self._pool.kill(member, entry.pid, "hard_timeout")
        stuck = [entry for entry in sure if not entry.pid]
        if stuck and not member.condemned_at:
            self._condemn(member, stuck)
        elif stuck:
            self._execute(member, stuck, len(entries) - len(stuck))

    def _condemn(self, member: Member, stuck: list[Entry]) -> None:
        log.error("a job is past its hard limit and cannot be stopped alone; its worker drains and will be killed",
                  worker=member.id, pid=member.pid, jobs=[entry.job_id for entry in stuck])  # fmt: skip
        member.condemned_at = now_ns()
        member.phase = Phase.LEAVING
        # Its own deadline lies beyond ours, so that it does not hand the stuck job back as if it were innocent.
        member.channel.send(Stop(DRAIN * 2, "a job is past its hard limit"))
        process.kill(member.pid, signal.SIGUSR2)  # where it is stuck, for whoever wrote it
        self._condemned(member)

    def _execute(self, member: Member, stuck: list[Entry], neighbours: int) -> None:
        waited = (now_ns() - member.condemned_at) / 1e9
        idle = not neighbours and not member.table.unsettled_since
        deaf = waited > DEAF and member.table.silent > DEAF
        if idle or deaf or waited > DRAIN:
            member.guilty = tuple((entry.job_id, "hard_timeout") for entry in stuck)
            member.explained = "a job was past its hard limit"
            process.kill(member.pid)

    def _stall(self, member: Member, entries: list[Entry]) -> None:
        assert member.ready is not None
        silent = member.table.silent
        turns = silent < STALLED
        if turns:
            member.stalled = False
        elif not member.stalled:
            member.stalled = True
            log.warning("a worker's event loop does not turn; its stacks follow on standard error",
                        worker=member.id, pid=member.pid, seconds=round(silent, 1))  # fmt: skip
            process.kill(member.pid, signal.SIGUSR2)
        limit = member.ready.stall_timeout
        if self._keeps_back(member, member.ready.hold * UNSETTLED_HOLDS):
            log.error("killing a worker that does not settle what has ended",
                      worker=member.id, pid=member.pid, jobs=len(entries))  # fmt: skip
            if turns:  # so it is no job that is in its way
                member.explained = "it did not settle what had ended"
            process.kill(member.pid)
        elif limit is not None and silent > limit:
            log.error("killing a worker that does not turn", worker=member.id, pid=member.pid, jobs=len(entries))
            process.kill(member.pid)

    def _keeps_back(self, member: Member, patience: float) -> bool:
        """Whether what has ended in it stays there, though the store has been well for as long."""
        since = member.table.unsettled_since
        return bool(since) and (now_ns() - max(since, self._well_since)) / 1e9 > patience
