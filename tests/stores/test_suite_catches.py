"""The suite is seen to fail before it is trusted: memory stores that are broken on purpose, each in one way, and the
tests that must notice."""

from __future__ import annotations

import contextlib
import inspect
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from tests.broken_stores import (
    CompletionsKeepTheirChildren,
    FiresEarly,
    FiresThePaused,
    ForgetsReceipts,
    ForgetsTheFence,
    FreesKeysAtTheEnd,
    LateChildrenLive,
    RetryBeatsCancel,
    RevivesTheTaken,
    TakeoverKeepsTheFence,
    TakesTheLiving,
    TrustsAnyReaper,
)
from windlass.core.flow import Line
from windlass.core.job import ErrorInfo, Held, KeyLimit, NewJob, Settled, State, Token, Transition, UniqueKey
from windlass.ports.parcel import Arrival, Parcel
from windlass.ports.plan import NOW, Plan, Steps, drive, plan
from windlass.ports.store import (
    Backlog,
    BeatAnswer,
    Children,
    Claimed,
    ClaimRequest,
    DeadGroup,
    Death,
    Departure,
    Ending,
    Enqueued,
    Fired,
    Leadership,
    Reaped,
    Schedule,
    ScheduleChange,
    ScheduleChanged,
    Scheduled,
    Selected,
    Selection,
    Tick,
    WorkerReport,
)
from windlass.stores.memory import MemoryStore, OpenedMemory
from windlass.stores.memory.jobs import Look
from windlass.stores.memory.shell import AsyncMemoryShell, MemoryShell
from windlass.stores.memory.tables import Owner, Row, replace
from windlass.stores.memory.unique import place_of
from windlass.testing import ManualClock
from windlass.testing.conformance import Suite, open_world
from windlass.testing.conformance.race import Races

T = TypeVar("T")


class FenceDoesNotGrow(MemoryStore):
    """Every run gets the fence of its microsecond, also if another run had the same."""

    def _fence(self, row: Row, now: int) -> int:
        return now


class GivesTokensTwice(MemoryStore):
    """Where nothing waits, what runs is given away once more."""

    def _look(self, queue: str, room: int, request: ClaimRequest, now: int) -> Look:
        look = super()._look(queue, room, request, now)
        again = [row for row in self.data.jobs.values() if row.state is State.RUNNING][:room]
        return look._replace(found=look.found or again)

    def _grant(self, row: Row, worker: str, seq: int, now: int) -> Held:
        return row.as_held() if row.state is State.RUNNING else super()._grant(row, worker, seq, now)


class ChargesNothing(MemoryStore):
    """An attempt is counted when it fails, not when it starts: a job that kills its worker runs for ever."""

    def _grant(self, row: Row, worker: str, seq: int, now: int) -> Held:
        return super()._grant(replace(row, attempt=row.attempt - 1), worker, seq, now)


class LosesRanks(MemoryStore):
    """What is handed back goes to the back of the line."""

    def _apply(self, row: Row, t: Transition, now: int) -> None:
        super()._apply(row, msgspec.structs.replace(t, keep_rank=False), now)


class PromotesEarly(MemoryStore):
    """By a microsecond."""

    def _come_due(self, now: int, limit: int) -> None:
        super()._come_due(now + 1, limit)


class GrantsTheExpired(MemoryStore):
    """Nobody looks at the clock before a start."""

    def _come_due(self, now: int, limit: int) -> None:
        for row in self.data.jobs.until("due", now, limit):
            self.data.jobs[row.new.id] = replace(row, state=State.QUEUED, reason=None, parked_until=None)

    def _look(self, queue: str, room: int, request: ClaimRequest, now: int) -> Look:
        return super()._look(queue, room, request, 0)


class StoresDuplicates(MemoryStore):
    """A re-sent enqueue is another job."""

    def _enqueue(self, job: NewJob, now: int, line: Line | None = None) -> Enqueued:
        self.data.jobs.pop(job.id, None)
        return super()._enqueue(job, now, line)


class DropsChildren(MemoryStore):
    """They are enqueued after the completion, by somebody who did not come to it."""

    def _apply(self, row: Row, t: Transition, now: int) -> None:
        super()._apply(row, msgspec.structs.replace(t, children=()), now)


class CancelBeatsSuccess(MemoryStore):
    """Work that was done is thrown away."""

    def _apply(self, row: Row, t: Transition, now: int) -> None:
        super()._apply(row, msgspec.structs.replace(t, cancel_wins=True), now)


class OpensClosedSeqs(MemoryStore):
    """A claim that was given up as lost still grants when it arrives."""

    def _refuse(self, worker: str, seq: int) -> Claimed | None:
        return super()._refuse(worker, 10**9)


class StopsAtABadRow(MemoryStore):
    """One job whose meta is unreadable keeps its neighbours with the dead."""

    def _reap(self, death: Death, now: int, dice: random.Random) -> Reaped:
        for row in self.data.jobs.line("held", death.worker):
            msgspec.json.decode(row.new.meta)
        return super()._reap(death, now, dice)


class ForgivesNeighbours(MemoryStore):
    """What was lost for another's fault is not counted."""

    def _apply(self, row: Row, t: Transition, now: int) -> None:
        super()._apply(row, msgspec.structs.replace(t, loss=0) if t.suspect is None else t, now)


class TakesAStopForALoss(MemoryStore):
    """A job that is longer than ten deploys dies of them."""

    def _reap(self, death: Death, now: int, dice: random.Random) -> Reaped:
        return super()._reap(msgspec.structs.replace(death, stopped=False), now, dice)


class WalksPastTheUnknown(MemoryStore):
    """What nobody can run stands in front of what everybody could."""

    def _park(self, row: Row, now: int) -> None:
        pass


class SaysNoMore(MemoryStore):
    """And the worker sleeps on a full queue."""

    def _look(self, queue: str, room: int, request: ClaimRequest, now: int) -> Look:
        return super()._look(queue, room, request, now)._replace(more=False)


class SpoilsBatches(MemoryStore):
    """One ghost spoils the whole batch."""

    @plan
    def settle(self, worker: str, transitions: Sequence[Transition]) -> Steps[list[Settled]]:
        now = (yield NOW)[0][0]
        answers = [self._settle(t, now) for t in transitions]
        return [Settled.STALE] * len(answers) if Settled.STALE in answers else answers


class LosesNumbers(MemoryStore):
    """Payloads are parsed and written again on the way."""

    def _enqueue(self, job: NewJob, now: int, line: Line | None = None) -> Enqueued:
        with contextlib.suppress(ValueError, RecursionError):
            text = msgspec.json.encode(msgspec.json.decode(job.payload)).decode()
            job = msgspec.structs.replace(job, payload=text)
        return super()._enqueue(job, now, line)


class ForgetsSomeOwners(MemoryStore):
    """Something that no example is about: a job that was snoozed is not found by its queue any more."""

    def _apply(self, row: Row, t: Transition, now: int) -> None:
        super()._apply(row, t, now)
        if t.outcome == "snoozed":
            moved = msgspec.structs.replace(row.new, queue=row.new.queue + " ")
            self.data.jobs[t.id] = replace(self.data.jobs[t.id], new=moved)


class CountsNoRuns(MemoryStore):
    """Whoever asks for a permit gets one: it was forgotten who has them."""

    def _runs_under(self, key: str) -> int:
        return 0


class LeaksPermits(MemoryStore):
    """A permit is kept for good once its owner has died."""

    leaked = 0

    def _reap(self, death: Death, now: int, dice: random.Random) -> Reaped:
        self.leaked += bool(self.data.jobs.line("held", death.worker))
        return super()._reap(death, now, dice)

    def _runs_under(self, key: str) -> int:
        return super()._runs_under(key) + self.leaked


class CountsOnlyTheOthers(MemoryStore):
    """What one claim grants does not count for the rest of the same claim."""

    def _admit(self, line: Sequence[Row], room: int) -> tuple[list[Row], list[tuple[Row, KeyLimit]]]:
        alone = [super(CountsOnlyTheOthers, self)._admit([row], 1) for row in line]
        return [row for found, _ in alone for row in found][:room], [each for _, kept in alone for each in kept]


class LetsNobodyBack(MemoryStore):
    """What was blocked once stays so until a leader looks."""

    def _free(self, ended: Iterable[Row]) -> bool:
        return False


class LetsOneQueueBack(MemoryStore):
    """A turn falls to one queue only, whether anybody serves it or not."""

    def _blocked_lines(self) -> list[tuple[str, bool, str]]:
        return sorted(super()._blocked_lines())[:1]


class KeepsTurns(MemoryStore):
    """Whoever has a turn and cannot use it lets it lapse."""

    def _keep_back(self, kept: Sequence[tuple[Row, KeyLimit]]) -> bool:
        for row, limit in kept:
            self._block(row, limit)
        return False


class NeverSweeps(MemoryStore):
    """A turn that was wasted is nobody's any more."""

    def _sweep(self) -> None:
        pass


class LimitsNoQueue(MemoryStore):
    """What operators say about a queue is written down and not read."""

    def _queue_room(self, queue: str) -> int | None:
        return None


class KeepsKeysOfTheDead(MemoryStore):
    """A key is given up by whoever settles its job; of one that was reaped, nobody does."""

    def _reap(self, death: Death, now: int, dice: random.Random) -> Reaped:
        orphans = self.data.jobs.line("held", death.worker)
        before = {place: entry for place, entry in self.data.owners.items()}
        answer = super()._reap(death, now, dice)
        for row in orphans:
            place = place_of(row)
            if place is not None and place in before:
                self.data.owners[place] = before[place]
        return answer


class KeepsEveryKey(MemoryStore):
    """A key is never free again."""

    def _give_up(self, rows: Iterable[Row], now: int) -> None:
        pass


class FreesKeysWithTheRun(MemoryStore):
    """A job that is going to be tried again does not live meanwhile."""

    def _over(self, rows: Sequence[Row], now: int) -> None:
        super()._over(rows, now)
        self._give_up(rows, now)


class OwnsNothing(MemoryStore):
    """Keys are written down and not looked at."""

    def _keeps_out(self, entry: Owner, unique: UniqueKey, now: int) -> bool:
        return False


class ForgetsThatItMerged(MemoryStore):
    """A job that took another's place takes it again whenever it is sent again."""

    def _take_place(self, id: str, job: NewJob, unique: UniqueKey, now: int) -> Enqueued:
        answer = super()._take_place(id, job, unique, now)
        del self.data.merged[job.id]
        return answer


class LosesSuccessors(MemoryStore):
    """Whoever waits for the end of the owner waits for ever."""

    def _pass_key(self, place: tuple[str, str, str], entry: Owner, now: int) -> None:
        del self.data.owners[place]


class RevivesBesideTheOwner(MemoryStore):
    """An old job comes back to life, whoever has its key by now."""

    def _may_have_key(self, row: Row) -> bool:
        return True


class RevivesBesideAKey(MemoryStore):
    """Nobody asks whose idempotency key it is by now."""

    def _may_have_idempotency_key(self, row: Row, now: int) -> bool:
        return True


class RevivesWithoutItsKey(MemoryStore):
    """An idempotency key that was freed stays free."""

    def _take_idempotency_key(self, row: Row) -> None:
        pass


class ForgetsWindows(MemoryStore):
    """A throttle ends with its job."""

    def _pass_key(self, place: tuple[str, str, str], entry: Owner, now: int) -> None:
        super()._pass_key(place, replace(entry, until=None), now)


class IsNeverFull(MemoryStore):
    """Bounds are written down and not looked at."""

    def _line(self, jobs: Sequence[NewJob], now: int) -> Line:
        return Line({})


class CountsNoneOfTheBatch(MemoryStore):
    """However many come at once, each is measured by what was there before."""

    @plan
    def enqueue(self, jobs: Sequence[NewJob], *, whole: bool = False) -> Steps[list[Enqueued]]:
        now = (yield NOW)[0][0]
        before = [self._line(jobs, now) for _ in jobs]
        return [self._enqueue(job, now, line) for job, line in zip(jobs, before, strict=True)]


class ReadsTheClockTwice(MemoryStore):
    """One transaction is of two times where the clock is stepped in it."""

    @plan
    def revive(self, selection: Selection) -> Steps[Selected]:
        yield NOW
        return (yield from super().revive(selection))

    @plan(hint=True)
    def fire(self, ticks: Sequence[Tick]) -> Steps[list[Fired]]:
        yield NOW
        return (yield from super().fire(ticks))


class RefusesChildren(MemoryStore):
    """A completion fails for a full queue."""

    def _enqueue(self, job: NewJob, now: int, line: Line | None = None) -> Enqueued:
        return super()._enqueue(job, now, line or self._line([job], now))


class LeadsWithEverybody(MemoryStore):
    """A lock is had by whoever asks."""

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        return (yield from super().lead(name, holder, ttl, 10**6))


class ForgetsTerms(MemoryStore):
    """A name that was forgotten begins anew, below the fences that others have seen."""

    def _prune_leads(self, before: int) -> None:
        super()._prune_leads(before)
        self.data.terms[""] = 0


class CountsTerms(MemoryStore):
    """Terms go up by one, so a store that has lost some gives them again."""

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        leads = self.data.leads.get(name, ())
        before = max([self.data.terms.get("", 0), *(lead.term for lead in leads)])
        answer = yield from super().lead(name, holder, ttl, slots)
        if answer.term <= before:
            return answer
        self.data.leads[name] = tuple(
            lead._replace(term=before + 1) if lead.term == answer.term else lead for lead in self.data.leads[name]
        )
        return replace(answer, term=before + 1)


class CountsOnlyItsOwnSlots(MemoryStore):
    """Those who took a slot beyond the number that is said now do not count."""

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        leads = self.data.leads.get(name, ())
        self.data.leads[name] = tuple(lead for lead in leads if lead.slot < slots)
        return (yield from super().lead(name, holder, ttl, slots))


class LeadsAsLongAsTheClockWasAhead(MemoryStore):
    """A lead ends when it was said to end, whatever became of the clock."""

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        answer = yield from super().lead(name, holder, ttl, slots)
        self.data.leads[name] = tuple(lead._replace(ttl=0) for lead in self.data.leads.get(name, ()))
        return answer


class TakesALongLeadForAnOldOne(MemoryStore):
    """Whoever asks thinks that others have asked for as long as it does."""

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        self.data.leads[name] = tuple(lead._replace(ttl=ttl) for lead in self.data.leads.get(name, ()))
        return (yield from super().lead(name, holder, ttl, slots))


class LeasesAsLongAsTheClockWasAhead(MemoryStore):
    """A beat concerns nobody but the worker whose it is."""

    @plan
    def beat(self, reports: Sequence[WorkerReport]) -> Steps[list[BeatAnswer]]:
        now = (yield NOW)[0][0]
        return [self._beat(report, now) for report in reports]


class FiresWhateverTheCursor(MemoryStore):
    """Whoever comes with a tick is believed, however often it came before."""

    def _refused(self, said: Schedule, tick: Tick, now: int) -> Fired | None:
        at = replace(said, cursor=tick.cursor)
        self.data.jobs.pop(tick.job.id if tick.job else "", None)
        return super()._refused(at, tick, now)


class FiresOldRevisions(MemoryStore):
    """A tick of yesterday's definition goes."""

    def _refused(self, said: Schedule, tick: Tick, now: int) -> Fired | None:
        return super()._refused(replace(said, revision=tick.revision), tick, now)


class LosesTheJob(MemoryStore):
    """The cursor moves first; the job is for whoever comes to it."""

    def _become(self, known: Scheduled, tick: Tick, job: NewJob, now: int) -> Fired:
        answer = super()._become(known, tick, job, now)
        self.data.jobs.pop(job.id, None)
        return answer


class LetsTicksOverlap(MemoryStore):
    """Skip, queue: who cares."""

    def _become(self, known: Scheduled, tick: Tick, job: NewJob, now: int) -> Fired:
        return super()._become(known, replace(tick, overlap="queue"), job, now)


class CatchesUpPauses(MemoryStore):
    """A year's pause is a year's jobs."""

    def _change(self, change: ScheduleChange, now: int) -> ScheduleChanged:
        known = self.data.schedules.get(change.name)
        answer = super()._change(change, now)
        if answer.word == "resumed" and known:
            self._say(self.data.schedules[change.name], cursor=known.said.cursor)
        return answer


class ForgetsRevisions(MemoryStore):
    """A schedule that is made anew counts anew, and its ticks have the ids of old ones."""

    def _create(self, change: ScheduleChange, now: int) -> ScheduleChanged:
        self.data.revisions.pop("", None)
        return super()._create(change, now)


class PlaysPingPong(MemoryStore):
    """Whichever code spoke last is right."""

    def _may_return(self, known: Scheduled, now: int) -> bool:
        return True


class NeverRollsBack(MemoryStore):
    """What was replaced once can never be again."""

    def _may_return(self, known: Scheduled, now: int) -> bool:
        return False


class FansOutForGhosts(MemoryStore):
    """Children are welcome from anybody."""

    @plan(hint=True)
    def fan_out(self, token: Token, name: str, after: int, jobs: Sequence[NewJob]) -> Steps[int]:
        row = self.data.jobs.get(token.id)
        fence = row.fence if row else token.fence
        return (yield from super().fan_out(Token(token.id, fence), name, after, jobs))


class GroupsByMessage(MemoryStore):
    """Every job that died of one cause with another number in its message is a cause of its own."""

    def _apply(self, row: Row, t: Transition, now: int) -> None:
        if t.error is not None and t.state is State.DEAD:
            error = msgspec.json.decode(t.error, type=ErrorInfo)
            error = msgspec.structs.replace(error, fingerprint=error.message)
            t = msgspec.structs.replace(t, error=msgspec.json.encode(error).decode())
        super()._apply(row, t, now)


class CountsTheRevived(MemoryStore):
    """A letter that was sent again still counts."""

    @plan(write=False)
    def dead_groups(self, limit: int) -> Steps[list[DeadGroup]]:
        found = yield from super().dead_groups(limit)
        again = sum("failed" in {a.outcome for a in past} for past in self.data.attempts.values())
        return [msgspec.structs.replace(each, count=max(each.count, again)) for each in found]


class RedrivesAtOnce(MemoryStore):
    """What was to come one by one comes in one flood."""

    def revive(self, selection: Selection) -> Plan[Selected]:
        return super().revive(msgspec.structs.replace(selection, every=0))


class PurgesTheNewest(MemoryStore):
    """What was to be kept goes with the rest."""

    def delete(self, selection: Selection) -> Plan[Selected]:
        return super().delete(msgspec.structs.replace(selection, after=None))


class ForgetsWhatRuns(MemoryStore):
    """A job that runs now may be retried by the new code; nobody looked at it."""

    @plan(write=False)
    def backlog(self, limit: int, after: str | None = None) -> Steps[Backlog]:
        page = yield from super().backlog(limit, after)
        return Backlog([job for job in page.jobs if job.state is not State.RUNNING], page.next)


class SaysTheBacklogIsOver(MemoryStore):
    """After its first page."""

    @plan(write=False)
    def backlog(self, limit: int, after: str | None = None) -> Steps[Backlog]:
        return Backlog((yield from super().backlog(limit, after)).jobs)


class TellsTheOldestEndings(MemoryStore):
    """Of last year."""

    @plan(write=False)
    def endings(self, limit: int) -> Steps[list[Ending]]:
        return (yield from super().endings(10**9))[::-1][:limit]


class RollsNothingBack(MemoryShell):
    """What a failed plan did before it failed stays done."""

    def _transact(self, plan: Plan[T]) -> T:
        answer = drive(iter(plan), self._execute)
        self._store.data.commit()
        return answer


class WaitsForEver(MemoryShell):
    """Deadlines are for others."""

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        return super().run(plan, 3.0)


class LetsEverybodyIn(MemoryShell):
    """Two plans at once, each half-way through the other's changes."""

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        return self._transact(plan)


class KeepsItToItself(MemoryShell):
    """Stores a job and tells nobody."""

    def _transact(self, plan: Plan[T]) -> T:
        plan.hint = False
        return super()._transact(plan)


class LateChildrenTakeKeys(MemoryStore):
    """They are enqueued as all others, and then cancelled."""

    def _enqueue(self, job: NewJob, now: int, line: Line | None = None, stopped: bool = False) -> Enqueued:
        answer = super()._enqueue(replace(job, meta="{}"), now, line)
        if answer.inserted and (stopped or self._is_stopped(job)):
            row = self.data.jobs[job.id]
            ended = replace(row, state=State.CANCELLED, reason="parent_cancelled", finished_at=now)
            self.data.jobs[job.id] = ended
        return answer


class ForgetsThatChildrenAreStopped(MemoryStore):
    """A second cancel takes back what the first said of the children."""

    def _cancel(self, selection: Selection, now: int) -> Selected:
        for id in selection.ids:
            if id in self.data.jobs:
                self.data.jobs[id] = replace(self.data.jobs[id], stops_children=False)
        return super()._cancel(selection, now)


class LosesAChildBetweenPages(MemoryStore):
    """The next page begins one too far."""

    @plan(write=False)
    def children(self, parents: Sequence[str], limit: int, after: str | None = None) -> Steps[Children]:
        page = yield from super().children(parents, limit, after)
        return replace(page, next=page.next and str(int(page.next) + 1))


class LosesChildren(MemoryStore):
    """A child whose key another payload has is left out without a word."""

    def _enqueue(self, job: NewJob, now: int, line: Line | None = None, stopped: bool = False) -> Enqueued:
        return replace(super()._enqueue(job, now, line, stopped), conflict=False)


class LeavesFencesBehind(MemoryStore):
    """Whatever arrives begins anew."""

    def _unpack(self, parcel: Parcel) -> None:
        super()._unpack(replace(parcel, job=replace(parcel.job, fence=0)))


class ForgetsWhatWent(MemoryStore):
    """A job that is sent again where it was is a second one."""

    def _leave(self, row: Row, now: int) -> None:
        super()._leave(row, now)
        del self.data.departed[row.new.id]


class TakesKeysAlong(MemoryStore):
    """Where a job was, its unique key is free."""

    def _leave(self, row: Row, now: int) -> None:
        super()._leave(row, now)
        place = place_of(row)
        if place is not None and place in self.data.owners:
            del self.data.owners[place]


class DoublesKeys(MemoryStore):
    """Nobody asks who has a key."""

    def _other_with_key(self, parcel: Parcel, now: int) -> str:
        return ""


class PartsFamilies(MemoryStore):
    """An owner goes without its successor."""

    def _heir(self, row: Row) -> str | None:
        return None


class TakesWhatRuns(MemoryStore):
    """It runs on, and its job is elsewhere."""

    def _leaving(self, limit: int, stay: set[str]) -> list[Row]:
        return [*self.data.jobs.values()][:limit]


class ListensToTheOvertaken(MemoryStore):
    """A copier that wakes up brings what has long come."""

    @plan(hint=True)
    def arrive(self, source: str, departure: Departure) -> Steps[list[Arrival]]:
        latest = replace(departure, number=self.data.departures.get(source, departure.number))
        return (yield from super().arrive(source, latest))


class TicksOnBothSides(MemoryStore):
    """A schedule goes, and stays."""

    def _pause_for_good(self, stay: set[str]) -> list[Scheduled]:
        before = dict(self.data.schedules)
        found = super()._pause_for_good(stay)
        for each in found:
            self.data.schedules[each.said.name] = replace(before[each.said.name], away=True)
        return found


STORES: dict[type[MemoryStore], tuple[str, ...]] = {
    ForgetsTheFence: ("a_ghost_writes_nothing", "a_resent_settle_finds_its_receipt_later_too"),
    FenceDoesNotGrow: ("the_fence_grows_even_if_the_clock_does_not", "fences_are_exact_beyond_doubles"),
    TakeoverKeepsTheFence: ("a_ghost_writes_nothing", "nobody_knows_who_did_it"),
    GivesTokensTwice: ("no_job_is_granted_twice", "many_claimers"),
    ForgetsReceipts: ("a_resent_settle_is_told_so", "children_come_with_the_completion"),
    ChargesNothing: ("a_grant_carries_the_job", "attempts_have_a_bound"),
    LosesRanks: ("ranks_are_made_anew_or_kept", "an_explained_death_charges_nobody"),
    PromotesEarly: ("no_job_starts_early", "a_retry_is_never_early", "promotion_is_never_early"),
    GrantsTheExpired: ("an_expired_job_is_not_granted", "many_expired_jobs_are_not_granted_either"),
    FreesKeysAtTheEnd: ("a_key_is_kept_for_its_time_after_the_end", "a_key_outlives_the_pruned_owner"),
    StoresDuplicates: ("a_resent_batch_answers_as_the_first_time", "resending_an_ended_job_changes_nothing"),
    DropsChildren: ("children_come_with_the_completion",),
    ReadsTheClockTwice: ("a_redrive_is_of_one_instant", "a_tick_that_cancels_is_of_one_instant"),
    RetryBeatsCancel: ("a_requested_cancel_wins_over_another_run", "a_cancel_comes_true_with_the_takeover"),
    CancelBeatsSuccess: ("a_cancel_that_came_too_late",),
    OpensClosedSeqs: ("a_closed_seq_grants_nothing", "lost_grants_are_recovered"),
    TakesTheLiving: ("a_living_worker_is_left_alone",),
    TrustsAnyReaper: ("a_reaper_that_was_cut_off_itself_takes_nobody", "a_taken_reaper_takes_nobody"),
    RevivesTheTaken: ("a_taken_id_never_comes_back", "beats_come_in_batches"),
    ForgivesNeighbours: ("an_explained_death_charges_nobody",),
    TakesAStopForALoss: ("a_stop_hands_back_what_it_cut_off",),
    StopsAtABadRow: ("an_unreadable_job_does_not_stop_a_takeover",),
    WalksPastTheUnknown: ("a_flood_that_nobody_can_run_does_not_hide_the_rest",),
    SaysNoMore: ("no_more_means_no_more",),
    SpoilsBatches: ("a_mixed_batch_is_answered_in_order",),
    LosesNumbers: ("payloads_come_back_to_the_letter",),
    FiresWhateverTheCursor: ("a_tick_that_is_sent_again_is_fired_once", "of_many_schedulers_one_fires"),
    FiresEarly: ("no_tick_is_early",),
    FiresThePaused: ("a_paused_schedule_is_not_due_and_fires_nothing",),
    FiresOldRevisions: ("a_tick_from_elsewhere_is_stale",),
    LosesTheJob: ("a_tick_becomes_a_job", "of_many_schedulers_one_fires"),
    LetsTicksOverlap: ("skip", "cancel_previous"),
    CatchesUpPauses: ("a_resume_does_not_catch_up",),
    ForgetsRevisions: ("revisions_never_come_back",),
    PlaysPingPong: ("two_versions_of_the_code_do_not_take_turns",),
    NeverRollsBack: ("a_roll_back_is_believed_once_the_new_code_is_gone",),
    FansOutForGhosts: ("a_ghost_fans_out_nothing",),
    ForgetsSomeOwners: ("the_same_as_the_model",),
    LateChildrenLive: ("a_child_that_comes_too_late_is_cancelled", "what_is_fanned_out_too_late_is_cancelled"),
    CompletionsKeepTheirChildren: ("the_children_of_a_completion_that_came_too_late",),
    LateChildrenTakeKeys: ("a_child_that_comes_too_late_takes_no_key",),
    ForgetsThatChildrenAreStopped: ("a_parent_that_is_cancelled_alone_has_children_still",),
    LosesAChildBetweenPages: ("children_are_found_page_by_page", "a_large_family"),
    LosesChildren: ("a_child_whose_key_is_anothers_undoes_the_completion",),
    CountsNoRuns: ("no_more_than_the_limit_run", "many_claimers_keep_within_every_limit"),
    LeaksPermits: ("a_takeover_frees_the_limit",),
    CountsOnlyTheOthers: ("no_more_than_the_limit_run", "many_claimers_keep_within_every_limit"),
    LetsNobodyBack: ("the_end_of_a_run_lets_the_next_in", "as_many_turns_as_runs_have_ended"),
    LetsOneQueueBack: ("a_turn_falls_to_every_queue",),
    KeepsTurns: ("a_turn_is_passed_on",),
    NeverSweeps: ("a_turn_that_was_wasted_is_given_again", "every_key_is_swept_in_its_turn"),
    KeepsKeysOfTheDead: ("the_end_of_a_run_frees_the_key",),
    KeepsEveryKey: ("the_end_of_a_run_frees_the_key", "the_end_of_one_that_waits_frees_the_key"),
    FreesKeysWithTheRun: ("a_run_that_is_not_over_keeps_the_key",),
    OwnsNothing: ("one_lives", "of_many_at_once_one_lives"),
    ForgetsThatItMerged: ("sent_again_it_answers_as_the_first_time",),
    LosesSuccessors: ("a_successor_waits_for_the_end",),
    RevivesBesideTheOwner: ("a_job_whose_key_is_taken_is_not_revived",),
    RevivesBesideAKey: ("a_job_whose_idempotency_key_is_anothers_is_not_revived",),
    RevivesWithoutItsKey: ("a_revived_job_takes_its_key_again",),
    ForgetsWindows: ("a_throttle_outlives_its_owner", "a_window_outlives_the_pruned_owner"),
    IsNeverFull: ("a_full_queue_takes_no_more", "of_many_at_once_as_many_as_there_are_places"),
    CountsNoneOfTheBatch: ("a_full_queue_takes_no_more",),
    RefusesChildren: ("children_are_never_refused",),
    LeadsWithEverybody: ("one_leads", "as_many_as_there_are_slots", "of_many_at_once_as_many_hold_it_as_may"),
    ForgetsTerms: ("terms_grow_across_a_prune",),
    CountsTerms: ("a_lapsed_lead_is_free", "as_many_as_there_are_slots"),
    LeadsAsLongAsTheClockWasAhead: ("after_the_clock_was_set_back_a_dead_leader_leads_for_one_ttl_more",),
    TakesALongLeadForAnOldOne: ("a_lead_for_longer_is_no_clock_that_was_set_back",),
    LeasesAsLongAsTheClockWasAhead: ("after_the_clock_was_set_back_the_dead_are_found_and_the_living_left_alone",),
    CountsOnlyItsOwnSlots: ("those_who_hold_it_count_whatever_slots_they_said",),
    LimitsNoQueue: ("a_queue_with_a_limit", "by_id_a_queue_limit_holds_too"),
    GroupsByMessage: ("the_dead_are_grouped_by_their_cause",),
    CountsTheRevived: ("groups_follow_their_letters",),
    RedrivesAtOnce: ("revived_jobs_may_come_one_by_one",),
    PurgesTheNewest: ("by_filter_only_what_is_older",),
    ForgetsWhatRuns: ("the_backlog_is_what_has_not_ended",),
    SaysTheBacklogIsOver: (
        "the_backlog_is_what_has_not_ended",
        "a_job_that_stays_is_in_the_backlog_whatever_the_others_do",
    ),
    TellsTheOldestEndings: ("the_latest_endings",),
    LeavesFencesBehind: ("everything_moves_as_it_is", "ranks_and_fences_go_on"),
    ForgetsWhatWent: ("an_idempotency_key_goes_with_its_job",),
    TakesKeysAlong: ("a_unique_key_stays_taken_where_its_owner_was",),
    DoublesKeys: ("a_key_that_is_taken_there_is_a_conflict",),
    PartsFamilies: ("a_unique_key_goes_with_its_owner_and_its_successor",),
    TakesWhatRuns: ("everything_moves_as_it_is", "what_runs_stays_until_it_has_ended"),
    ListensToTheOvertaken: ("a_copier_that_was_stopped_brings_nothing_a_second_time",),
    TicksOnBothSides: ("schedules_go_on_there",),
}
SHELLS: dict[type[MemoryShell], tuple[str, ...]] = {
    RollsNothingBack: ("every_plan_is_all_or_nothing", "a_plan_that_raises_changes_nothing"),
    WaitsForEver: ("a_busy_store_times_out",),
    KeepsItToItself: ("an_enqueue_tells_every_listener",),
    LetsEverybodyIn: ("many_claimers", "claimers_are_taken_over_meanwhile"),
}


def named(value: object) -> str:
    return getattr(value, "__name__", str(value))


@contextmanager
def impatient() -> Iterator[None]:
    """Threads take turns as often as they can, so that what is not locked is seen to be torn."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def complaint(store: type[MemoryStore], shell: type[MemoryShell], test: str, path: Path) -> BaseException | None:
    """What one test of the suite says about a store."""

    class Broken(Suite):
        @staticmethod
        def open(path: Path, clock: ManualClock) -> OpenedMemory:
            opened = OpenedMemory(store(), clock)
            broken = shell(opened.store, clock)  # type: ignore[arg-type]  # it is the memory store made above
            opened.shell = broken
            opened._async_shell = AsyncMemoryShell(broken)
            return opened

    path.mkdir(exist_ok=True)

    run = getattr(Broken(), f"test_{test}")
    with open_world(Broken.open, path, "sync") as world:
        arguments = {"world": world, "tmp_path": path}
        try:
            run(**{name: arguments[name] for name in inspect.signature(run).parameters})
        except (Exception, pytest.fail.Exception) as said:
            return said
    return None


def notices(store: type[MemoryStore], shell: type[MemoryShell], test: str, path: Path) -> bool:
    """Whether a test fails; in a race, who meets whom is chance, so it may run a few times."""
    tries = 10 if hasattr(Races, f"test_{test}") or "claimers" in test else 1
    with impatient():
        return any(complaint(store, shell, test, path / str(n)) for n in range(tries))


@pytest.fixture(autouse=True)
def _a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """A glance finds less, and more than a sample finds no more."""
    monkeypatch.setenv("WINDLASS_PROOF", "sample")


@pytest.mark.parametrize(
    ("store", "test"), [(store, test) for store, tests in STORES.items() for test in tests], ids=named
)
def test_a_broken_store_is_caught(store: type[MemoryStore], test: str, tmp_path: Path) -> None:
    assert notices(store, MemoryShell, test, tmp_path), f"{test} does not mind: {store.__doc__}"


@pytest.mark.parametrize(
    ("shell", "test"), [(shell, test) for shell, tests in SHELLS.items() for test in tests], ids=named
)
def test_a_broken_shell_is_caught(shell: type[MemoryShell], test: str, tmp_path: Path) -> None:
    assert notices(MemoryStore, shell, test, tmp_path), f"{test} does not mind: {shell.__doc__}"


@pytest.mark.parametrize("test", sorted({test for tests in [*STORES.values(), *SHELLS.values()] for test in tests}))
def test_an_honest_store_is_not(test: str, tmp_path: Path) -> None:
    with impatient():
        assert complaint(MemoryStore, MemoryShell, test, tmp_path) is None
