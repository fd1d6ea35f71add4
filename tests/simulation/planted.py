"""Parts of the product that are broken on purpose, each in one way; what a simulation must find in them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tests.broken_stores import (
    CompletionsKeepTheirChildren,
    FiresTwice,
    ForgetsReceipts,
    ForgetsTheFence,
    FreesKeysAtTheEnd,
    LateChildrenLive,
    RetryBeatsCancel,
    RevivesTheTaken,
    RunsByHandTwice,
    TakesTheLiving,
    TrustsAnyReaper,
)
from windlass.core.flow import Full, Line
from windlass.core.job import Held, NewJob, Outcome, Settled, State, Token, Transition, UniqueKey
from windlass.core.machine import decide
from windlass.core.schedule import CatchUp, read
from windlass.ports.plan import NOW, Plan, Steps, plan
from windlass.ports.store import (
    BeatAnswer,
    Children,
    Claimed,
    Death,
    Enqueued,
    Fired,
    Leadership,
    QueueRules,
    Reaped,
    Schedule,
    Selected,
    Selection,
    Tick,
    WorkerReport,
)
from windlass.runtime.judge import Judge
from windlass.runtime.member import Member
from windlass.runtime.run import Run
from windlass.runtime.scheduler import Scheduler
from windlass.runtime.supervisor import Supervisor
from windlass.runtime.worker import Worker
from windlass.stores.memory import MemoryStore
from windlass.stores.memory.tables import Owner, Row, Scheduled, replace
from windlass.stores.postgres.store import PostgresStore
from windlass.stores.sql.flow import Kept, P
from windlass.stores.sqlite.store import SqliteStore

# --- stores ---------------------------------------------------------------------------------------------------------


class FenceIsTheTime(MemoryStore):
    """Fences follow the clock, also when it is set back."""

    def _fence(self, row: Row, now: int) -> int:
        return now


class LosesAnEnqueue(MemoryStore):
    """One in fifty is acknowledged and forgotten."""

    def _enqueue(self, job: NewJob, now: int, line: Line | None = None, stopped: bool = False) -> Enqueued:
        if int(job.id[-2:], 16) < 5:
            return Enqueued(job.id, inserted=True)
        return super()._enqueue(job, now, line, stopped)


class TakeoverForgetsTheJobs(MemoryStore):
    """The worker is marked, its jobs stay with it."""

    def _reap(self, death: Death, now: int, dice: random.Random) -> Reaped:
        known = self.data.workers.get(death.worker)
        if known and not known.taken and death.observed:
            self.data.workers[death.worker] = replace(known, taken=True)
            return Reaped(death.worker, taken=True)
        return super()._reap(death, now, dice)


class PromotesEarly(MemoryStore):
    """By half a second."""

    def _come_due(self, now: int, limit: int) -> None:
        super()._come_due(now + 500_000, limit)


class ChargesNothing(MemoryStore):
    """Attempts are not counted."""

    def _grant(self, row: Row, worker: str, seq: int, now: int) -> Held:
        return super()._grant(replace(row, attempt=row.attempt - 1), worker, seq, now)


class ChildrenOfGhosts(MemoryStore):
    """Children are enqueued whether or not the completion that brings them was accepted."""

    def _settle(self, t: Transition, now: int) -> Settled:
        answer = super()._settle(t, now)
        for child in t.children if answer is Settled.STALE else ():
            self._enqueue(child, now)
        return answer


class OverlooksChildren(MemoryStore):
    """Nobody has any."""

    @plan(write=False)
    def children(self, parents: Sequence[str], limit: int, after: str | None = None) -> Steps[Children]:
        yield NOW
        return Children([])


class RunsTheExpired(MemoryStore):
    """Nobody looks at the expiry before a start."""

    def _expire(self, row: Row, now: int) -> None:
        pass


class GrantsWhileItSleeps(MemoryStore):
    """Who claims is not asked whether it was taken over, nor whether it has given that claim up."""

    def _refuse(self, worker: str, seq: int) -> Claimed | None:
        return None


class ForgetsTheCursor(MemoryStore):
    """The job of a tick is there, its cursor has not moved: somebody else is sure to move it."""

    def _become(self, known: Scheduled, tick: Tick, job: NewJob, now: int) -> Fired:
        outcome = super()._become(known, tick, job, now)
        if not tick.manual:
            self._say(self.data.schedules[tick.schedule], cursor=tick.cursor, next_at=now + 1_000_000)
        return outcome


class FiresBeside(MemoryStore):
    """A tick does not look at the one before it."""

    def _become(self, known: Scheduled, tick: Tick, job: NewJob, now: int) -> Fired:
        return super()._become(known, replace(tick, overlap="queue"), job, now)


class ForgetsThePermits(MemoryStore):
    """A limit is for the jobs of one claim, whatever runs elsewhere."""

    def _runs_under(self, key: str) -> int:
        return 0


class LeaksPermits(MemoryStore):
    """Whose turn it is when a run ends is nobody's business."""

    def _unblock(self, freed: Mapping[str, int | None]) -> bool:
        return False


class ForgetsQueueLimits(MemoryStore):
    """What an operator allows a queue holds for each worker by itself."""

    def _queue_room(self, queue: str) -> int | None:
        return self._rules(queue).limit


class ServesThePaused(MemoryStore):
    """A paused queue takes nothing in, and gives out what it has."""

    def _rules(self, queue: str) -> QueueRules:
        return replace(super()._rules(queue), paused=False)


class NeverFull(MemoryStore):
    """Bounds are for others."""

    def _line(self, jobs: Sequence[NewJob], now: int) -> Line:
        return Line({})


class FullTooEarly(MemoryStore):
    """What is not due yet stands in line as well."""

    def _line(self, jobs: Sequence[NewJob], now: int) -> Line:
        found = super()._line(jobs, now)
        for queue in found.bounds:
            found.looks(queue, 99, 0)
        return found


class NeverSheds(MemoryStore):
    """Who comes to a full queue is sent away, though it sheds."""

    def _turn_away(self, job: NewJob, full: Full, now: int) -> Enqueued:
        return Enqueued(job.id, inserted=False, full=full)


class KeysOfTheRunning(MemoryStore):
    """A unique key is free as soon as its owner runs."""

    def _keeps_out(self, entry: Owner, unique: UniqueKey, now: int) -> bool:
        owner = self.data.jobs.get(entry.id)
        return super()._keeps_out(entry, unique, now) and not (owner and owner.state is State.RUNNING)


class KeepsKeysForGood(MemoryStore):
    """What ended with a crash keeps its unique key."""

    def _give_up(self, rows: Iterable[Row], now: int) -> None:
        super()._give_up([row for row in rows if self.data.jobs[row.new.id].state is not State.DEAD], now)


class ForgetsThePlace(MemoryStore):
    """What took another's place is stored again when it is sent again."""

    def _take_place(self, id: str, job: NewJob, unique: UniqueKey, now: int) -> Enqueued:
        answer = super()._take_place(id, job, unique, now)
        del self.data.merged[job.id]
        return answer


class TermsStandStill(MemoryStore):
    """A lock that lapsed is had again in the term in which it was lost."""

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        answer = yield from super().lead(name, holder, ttl, slots)
        return replace(answer, term=1)


class TermsCount(MemoryStore):
    """Terms grow from one to the next, whatever time it is: a store that has lost some would give them again."""

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        answer = yield from super().lead(name, holder, ttl, slots)
        return replace(answer, term=answer.term - 1_000_000)


class OneSlotMore(MemoryStore):
    """Locks are had by one more than there are slots."""

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        return (yield from super().lead(name, holder, ttl, slots + name.startswith("lock")))


class RedrivesAtOnce(MemoryStore):
    """The rate of a redrive is not kept."""

    @plan
    def revive(self, selection: Selection) -> Steps[Selected]:
        return (yield from super().revive(replace(selection, delay=0, every=0)))


class RunsTheOldPayload(MemoryStore):
    """An edit is acknowledged, and what runs is what it was."""

    @plan
    def edit(self, job: str, payload: str) -> Steps[Selected]:
        return (yield from super().edit(job, self.data.jobs[job].payload if job in self.data.jobs else payload))


class DeletesTheRunning(MemoryStore):
    """Whoever holds the job may see what becomes of it."""

    @plan
    def delete(self, selection: Selection) -> Steps[Selected]:
        for id in selection.ids:
            if id in self.data.jobs:
                self.data.jobs[id] = replace(self.data.jobs[id], state=State.DEAD, finished_at=0)
        return (yield from super().delete(selection))


class CancelsByHalves(MemoryStore):
    """A cancellation of everything leaves the last one."""

    def _chosen(self, selection: Selection, verdict: Callable[[Row], str]) -> list[str]:
        found = super()._chosen(selection, verdict)
        return found[:-1] if selection.filter is not None and len(found) > 1 else found


class FansOutAgain(MemoryStore):
    """A batch of children that is sent again is counted again."""

    @plan
    def fan_out(self, token: Token, name: str, after: int, jobs: Sequence[NewJob]) -> Steps[int]:
        count = yield from super().fan_out(token, name, after, ())
        return (yield from super().fan_out(token, name, count, jobs))


class KeepsTheLast(MemoryStore):
    """What a job did first is what it did last."""

    @plan
    def once(self, token: Token, name: str, value: str | None) -> Steps[str | None]:
        kept = yield from super().once(token, name, value)
        return value or kept


# --- workers and supervisors ----------------------------------------------------------------------------------------


class RunsAgain(Worker):
    """Where the answer to a claim was lost, whatever runs is begun once more."""

    async def _recover(self, seq: int) -> None:
        await super()._recover(seq)
        for run in list(self._executor.running.values()):
            if self._executor.free:
                self._executor.start(run.held)


class NeverRecovers(Worker):
    """A grant whose answer was lost stays where it is."""

    async def _recover(self, seq: int) -> None:
        self._recover_from = None

    async def _reconcile_now(self) -> None:
        self._reconcile = False


class RetriesAtOnce(Worker):
    """Patience is for others: half the backoff will do."""

    def _done(self, run: Run, outcome: Outcome) -> None:
        t = decide(run.held, run.meta.policy, outcome, 0.0)
        self._settler.add(msgspec.structs.replace(t, after=t.after // 2), run.slot)
        self._ended()


class ForgetsOutcomes(Worker):
    """An outcome whose answer was lost is taken for settled."""

    async def _failed(self, error: Any, failures: int) -> None:
        self._settler.settled(len(self._settler.batch()))
        await super()._failed(error, failures)

    async def _reconcile_now(self) -> None:
        self._reconcile = False


class BuriesTheLiving(Supervisor):
    """It reports a death as soon as it has told a worker to go."""

    def _ask_to_leave(self, member: Member, deadline: float, reason: str) -> None:
        super()._ask_to_leave(member, deadline, reason)
        death = Death(worker=member.id, observed=True, explained=True, detail=reason)
        self._store.bury(member, death, lambda _: None)


class AccusesNobody(Supervisor):
    """Whatever ran in a worker that died is said not to have begun."""

    def _bury(self, member: Member) -> None:
        member.executing = []
        super()._bury(member)


class HastyJudge(Judge):
    """A lease that ran out is taken for a death that was seen."""

    def _by_lease(self) -> None:
        for worker in self._opened.shell.run(self._opened.store.workers()):
            if worker.id not in self._own():
                self._reap(Death(worker=worker.id, observed=True, detail="has not been seen of late"))


class ForgetsTheMissed(Scheduler):
    """Every tick that nobody could fire in time is let go."""

    def _look(self, schedule: Schedule, now: int) -> list[Tick]:
        definition = read(schedule.definition)
        none = msgspec.structs.replace(definition.rule, catch_up=CatchUp.NONE)
        text = msgspec.structs.replace(definition, rule=none).text
        return super()._look(msgspec.structs.replace(schedule, definition=text), now)


# --- SQLite ---------------------------------------------------------------------------------------------------------


class _Credulous:
    """Leases are not looked at."""

    def _may_take(self, death: Death, now: int) -> Steps[bool]:
        yield NOW
        return True

    @plan(write=False)
    def lapsed(self, reaper: str) -> Steps[list[str]]:
        yield NOW
        return [worker.id for worker in (yield from self.workers())]  # type: ignore[attr-defined]


class TakesAnybody(_Credulous, SqliteStore):
    """See above."""


class TakesAnybodyThere(_Credulous, PostgresStore):
    """See above."""


class BeatsBeside(PostgresStore):
    """A takeover does not have the workers to itself."""

    def beat(self, reports: Sequence[WorkerReport]) -> Plan[list[BeatAnswer]]:
        return super(PostgresStore, self).beat(reports)


class AdmitsBeside(PostgresStore):
    """Two claims decide at once about one key."""

    def _admit(self, line: Sequence[P], room: int) -> Steps[tuple[list[P], list[Kept], bool]]:
        return super(PostgresStore, self)._admit(line, room)


STORES: Sequence[type[MemoryStore]] = (
    ForgetsTheFence,
    FenceIsTheTime,
    LosesAnEnqueue,
    TakesTheLiving,
    TrustsAnyReaper,
    RevivesTheTaken,
    TakeoverForgetsTheJobs,
    RetryBeatsCancel,
    PromotesEarly,
    ChargesNothing,
    FreesKeysAtTheEnd,
    ForgetsReceipts,
    ChildrenOfGhosts,
    LateChildrenLive,
    CompletionsKeepTheirChildren,
    OverlooksChildren,
    RunsTheExpired,
    GrantsWhileItSleeps,
    FiresTwice,
    ForgetsTheCursor,
    FiresBeside,
    RunsByHandTwice,
    ForgetsThePermits,
    LeaksPermits,
    ForgetsQueueLimits,
    ServesThePaused,
    NeverFull,
    FullTooEarly,
    NeverSheds,
    KeysOfTheRunning,
    KeepsKeysForGood,
    ForgetsThePlace,
    TermsStandStill,
    TermsCount,
    OneSlotMore,
    RedrivesAtOnce,
    RunsTheOldPayload,
    DeletesTheRunning,
    CancelsByHalves,
    FansOutAgain,
    KeepsTheLast,
)
WORKERS: Sequence[type[Worker]] = (RunsAgain, NeverRecovers, RetriesAtOnce, ForgetsOutcomes)
SUPERVISORS: Sequence[type[Supervisor]] = (BuriesTheLiving, AccusesNobody)
