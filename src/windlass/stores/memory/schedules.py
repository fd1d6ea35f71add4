"""Schedules: what they are, which are due, and the one transaction in which a tick becomes a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from windlass.core.errors import LeaseLost
from windlass.core.job import NewJob, Token
from windlass.ports.plan import NOW, Steps, plan
from windlass.ports.store import (
    CODE_SEEN,
    PAST_DEFINITIONS,
    PREVIOUS_JOBS,
    DueSchedules,
    Fired,
    Schedule,
    ScheduleChange,
    ScheduleChanged,
    Scheduled,
    Selection,
    Tick,
)
from windlass.stores.memory.operator import Operator
from windlass.stores.memory.tables import replace


class Scheduling(Operator):
    """The operations on schedules, and the fan-out of a job."""

    @plan(write=False)
    def schedules(self, names: Sequence[str] | None = None) -> Steps[list[Schedule]]:
        """See Store.schedules."""
        yield NOW
        known = self.data.schedules
        return [known[name].said for name in sorted(known if names is None else known.keys() & set(names))]

    @plan(write=False)
    def due(self, limit: int) -> Steps[DueSchedules]:
        """See Store.due."""
        now = (yield NOW)[0][0]
        waiting = [each.said for each in self.data.schedules.values() if not each.said.paused]
        line = sorted((said.next_at, said.name, said) for said in waiting if said.next_at is not None)
        found = [said for at, _, said in line if at <= now]
        return DueSchedules(now, found[:limit], next((at for at, _, _ in line if at > now), None))

    # --- changes -------------------------------------------------------------------------------------------

    @plan
    def change_schedules(self, changes: Sequence[ScheduleChange]) -> Steps[list[ScheduleChanged]]:
        """See Store.change_schedules."""
        now = (yield NOW)[0][0]
        return [self._change(change, now) for change in changes]

    def _change(self, change: ScheduleChange, now: int) -> ScheduleChanged:
        known = self.data.schedules.get(change.name)
        if change.action == "put":
            return self._create(change, now) if known is None else self._put(known, change, now)
        if known is None:
            return ScheduleChanged("missing")
        if change.action == "delete":
            self.data.revisions[""] = max(self.data.revisions.get("", 0), known.said.revision)
            del self.data.schedules[change.name]
            return ScheduleChanged("deleted")
        pausing = change.action == "pause"
        if known.said.paused == pausing:
            return ScheduleChanged("unchanged", known.said)
        if pausing:
            return ScheduleChanged("paused", self._say(known, paused=True))
        cursor, known = max(known.said.cursor, now), replace(known, away=False)
        return ScheduleChanged("resumed", self._say(known, paused=False, cursor=cursor, next_at=now))

    def _create(self, change: ScheduleChange, now: int) -> ScheduleChanged:
        said = Schedule(
            name=change.name,
            revision=self.data.revisions.get("", 0) + 1,
            definition=change.definition,
            origin=change.origin,
            paused=False,
            cursor=now,
            next_at=now,
            created_at=now,
            changed_at=now,
            seen_at=now if change.origin == "code" else None,
        )
        self.data.schedules[change.name] = Scheduled(said, change.digest, change.timing, shown_at=said.seen_at)
        return ScheduleChanged("created", said)

    def _put(self, known: Scheduled, change: ScheduleChange, now: int) -> ScheduleChanged:
        by_code = change.origin == "code"
        if by_code:
            self._say(known, seen_at=now)
            known = self.data.schedules[change.name]
        if change.digest == known.digest:
            if by_code:
                self._say(known, origin="code")
                self.data.schedules[change.name] = replace(self.data.schedules[change.name], shown_at=now)
            return ScheduleChanged("unchanged", self.data.schedules[change.name].said)
        if by_code and change.digest in known.past and not self._may_return(known, now):
            return ScheduleChanged("superseded", known.said)
        return ScheduleChanged("replaced", self._replace(known, change, now))

    def _may_return(self, known: Scheduled, now: int) -> bool:
        """Whether nobody shows the present definition any more, so that an older one is no longer old."""
        return known.said.origin == "code" and known.shown_at is not None and now - known.shown_at > CODE_SEEN

    def _replace(self, known: Scheduled, change: ScheduleChange, now: int) -> Schedule:
        by_code, same = change.origin == "code", change.timing == known.timing
        past = [each for each in (*known.past, known.digest) if each != change.digest]
        self.data.schedules[change.name] = replace(
            known,
            digest=change.digest,
            timing=change.timing,
            past=tuple(past[-PAST_DEFINITIONS:]),
            shown_at=now if by_code else known.shown_at,
        )
        edited = not by_code and known.said.origin != "operator"
        return self._say(
            self.data.schedules[change.name],
            revision=known.said.revision + 1,
            definition=change.definition,
            origin="edited" if edited else change.origin,
            cursor=known.said.cursor if same else max(known.said.cursor, now),
            next_at=now,
            changed_at=now,
        )

    def _say(self, known: Scheduled, **changes: Any) -> Schedule:
        said = replace(known.said, **changes)
        self.data.schedules[said.name] = replace(known, said=said)
        return said

    # --- ticks ---------------------------------------------------------------------------------------------

    @plan(hint=True)
    def fire(self, ticks: Sequence[Tick]) -> Steps[list[Fired]]:
        """See Store.fire."""
        now = (yield NOW)[0][0]
        return [self._fire(tick, now) for tick in ticks]

    def _fire(self, tick: Tick, now: int) -> Fired:
        known = self.data.schedules.get(tick.schedule)
        if known is None:
            return Fired.STALE
        if tick.manual:
            before = self._sent_before(tick.job)
            if before is not None:
                return before
        else:
            refused = self._refused(known.said, tick, now)
            if refused is not None:
                return refused
            self._say(known, cursor=tick.to, next_at=tick.next_at)
        if tick.job is None:
            return Fired.MOVED
        return self._become(self.data.schedules[tick.schedule], tick, tick.job, now)

    def _sent_before(self, job: NewJob | None) -> Fired | None:
        """How a tick went that no cursor knows again; else it would get in its own way when it is sent again."""
        if job is None:
            return None
        return Fired.FIRED if job.id in self.data.jobs else Fired.SKIPPED if job.id in self.data.merged else None

    def _refused(self, said: Schedule, tick: Tick, now: int) -> Fired | None:
        if said.paused or said.revision != tick.revision:
            return Fired.STALE
        if said.cursor != tick.cursor:
            return Fired.ALREADY if said.cursor >= tick.to else Fired.STALE
        if tick.to < said.cursor or (tick.to == said.cursor and tick.job is not None):
            return Fired.ALREADY
        return Fired.EARLY if now < tick.to != said.cursor else None

    def _become(self, known: Scheduled, tick: Tick, job: NewJob, now: int) -> Fired:
        left = [id for id in known.previous if id in self.data.jobs and not self.data.jobs[id].state.terminal]
        outcome, id = Fired.SKIPPED, known.said.last_job
        if not (tick.overlap == "skip" and left):
            if tick.overlap == "cancel-previous":
                self._cancel(Selection(tuple(left)), now)
            answer = self._enqueue(job, now)
            if answer.inserted:
                outcome, id = Fired.FIRED, answer.id
                left.append(answer.id)  # never whom it merged into: the next tick would cancel somebody else's job
        self.data.schedules[tick.schedule] = replace(known, previous=tuple(left[-PREVIOUS_JOBS:]))
        said = known.said
        self._say(
            self.data.schedules[tick.schedule],
            last_tick=said.last_tick if tick.manual else tick.to,
            last_outcome=outcome.value,
            last_job=id,
            fired=said.fired + (outcome is Fired.FIRED),
            skipped=said.skipped + (outcome is Fired.SKIPPED),
        )
        return outcome

    # --- fan-out -------------------------------------------------------------------------------------------

    @plan(hint=True)
    def fan_out(self, token: Token, name: str, after: int, jobs: Sequence[NewJob]) -> Steps[int]:
        """See Store.fan_out."""
        now = (yield NOW)[0][0]
        if not self._runs(self.data.jobs.get(token.id), token.fence):
            raise LeaseLost(token.id, f"job {token.id} was taken over: it fans out no more")
        known = self.data.first_results.get(token.id, {})
        count = int(known.get(name, "0"))
        if count != after or not jobs:
            return count
        for job in jobs:
            self._enqueue(job, now)
        self.data.first_results[token.id] = known | {name: str(count + len(jobs))}
        return count + len(jobs)
