"""Schedules: what they are, which are due, and the one transaction in which a tick becomes a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from windlass.core.errors import LeaseLost
from windlass.core.job import NewJob, Token
from windlass.ports import agenda
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.ports.store import (
    DueSchedules,
    Fired,
    Schedule,
    ScheduleChange,
    ScheduleChanged,
    Scheduled,
    Selection,
    Tick,
)
from windlass.stores.sql.operator import Operator
from windlass.stores.sql.text import as_json
from windlass.stores.sql.workers import Workers

AWAY = 2
"""`paused` of a schedule that went to another store."""
FLOOR = "schedules"
"""The mark of the largest revision that a deleted schedule had."""

_names = msgspec.json.Decoder(tuple[str, ...])


class Row(NamedTuple):
    """A row of the table, in its order."""

    name: str
    revision: int
    definition: str
    digest: str
    timing: str
    origin: str
    paused: int
    cursor: int
    next_at: int | None
    created: int
    changed: int
    seen: int | None
    shown: int | None
    past: str = "[]"
    previous: str = "[]"
    last_tick: int | None = None
    last_outcome: str | None = None
    last_job: str | None = None
    fired: int = 0
    skipped: int = 0

    @property
    def scheduled(self) -> Scheduled:
        """All of it, in no store's own layout."""
        past, previous = _names.decode(self.past), _names.decode(self.previous)
        return Scheduled(self.said, self.digest, self.timing, past, self.shown, previous, self.paused == AWAY)

    @property
    def said(self) -> Schedule:
        """As others see it."""
        return Schedule(
            name=self.name,
            revision=self.revision,
            definition=self.definition,
            origin=self.origin,
            paused=bool(self.paused),
            cursor=self.cursor,
            next_at=self.next_at,
            created_at=self.created,
            changed_at=self.changed,
            seen_at=self.seen,
            last_tick=self.last_tick,
            last_outcome=self.last_outcome,
            last_job=self.last_job,
            fired=self.fired,
            skipped=self.skipped,
        )


def row_of(scheduled: Scheduled) -> Row:
    """As the table has it."""
    said = scheduled.said
    what = (said.name, said.revision, said.definition, scheduled.digest, scheduled.timing, said.origin)
    paused = AWAY if scheduled.away else int(said.paused)
    when = (paused, said.cursor, said.next_at, said.created_at, said.changed_at, said.seen_at)
    known = (scheduled.shown_at, as_json(scheduled.past), as_json(scheduled.previous))
    return Row(*what, *when, *known, said.last_tick, said.last_outcome, said.last_job, said.fired, said.skipped)


class Scheduling(Operator, Workers):
    """The operations on schedules, and the fan-out of a job."""

    @plan(write=False)
    def schedules(self, names: Sequence[str] | None = None) -> Steps[list[Schedule]]:
        """See Store.schedules."""
        if names is None:
            rows = yield Statement("schedules_all")
        else:
            rows = yield Statement("schedules_by_name", (as_json(list(names)),))
        return [Row(*row).said for row in rows]

    @plan(write=False)
    def due(self, limit: int) -> Steps[DueSchedules]:
        """See Store.due."""
        now = (yield NOW)[0][0]
        rows = yield Statement("schedules_due", (now, limit))
        following = (yield Statement("schedules_next", (now,)))[0][0]
        return DueSchedules(now, [Row(*row).said for row in rows], following)

    def _schedule(self, name: str) -> Steps[Row | None]:
        rows = yield Statement("schedules_by_name", (as_json([name]),))
        return Row(*rows[0]) if rows else None

    # --- changes -------------------------------------------------------------------------------------------

    @plan
    def change_schedules(self, changes: Sequence[ScheduleChange]) -> Steps[list[ScheduleChanged]]:
        """See Store.change_schedules."""
        now = (yield NOW)[0][0]
        answers = []
        for change in changes:
            known = yield from self._schedule(change.name)
            word, row = yield from self._change(known, change, now)
            if row is not None and row != known:
                yield Statement("schedule_put", row)
            answers.append(ScheduleChanged(word, row.said if row else None))
        return answers

    def _change(self, known: Row | None, change: ScheduleChange, now: int) -> Steps[tuple[str, Row | None]]:
        floor = 0
        if change.action in ("put", "delete"):
            mark = yield Statement("mark_get", (FLOOR,))
            floor = mark[0][0] if mark else 0
        word, after = agenda.changed(known.scheduled if known else None, change, floor, now)
        if word == "deleted" and known is not None:
            yield Statement("mark_put", (FLOOR, max(known.revision, floor)))
            yield Statement("schedule_drop", (change.name,))
        return word, row_of(after) if after else None

    # --- ticks ---------------------------------------------------------------------------------------------

    @plan(hint=True)
    def fire(self, ticks: Sequence[Tick]) -> Steps[list[Fired]]:
        """See Store.fire."""
        now = (yield NOW)[0][0]
        answers = []
        for tick in ticks:
            row = yield from self._schedule(tick.schedule)
            answers.append((yield from self._fire(row.scheduled if row else None, tick, now)))
        return answers

    def _fire(self, known: Scheduled | None, tick: Tick, now: int) -> Steps[Fired]:
        if known is None:
            return Fired.STALE
        before = (yield from self._sent_before(tick.job)) if tick.manual else agenda.refused(known.said, tick, now)
        if before is not None:
            return before
        outcome, after = Fired.MOVED, agenda.moved(known, tick)
        if tick.job is not None:
            outcome, after = yield from self._become(known, tick, tick.job, now)
        yield Statement("schedule_put", row_of(after))
        return outcome

    def _sent_before(self, job: NewJob | None) -> Steps[Fired | None]:
        """How a tick went that no cursor knows again; else it would get in its own way when it is sent again."""
        if job is None:
            return None
        if (yield Statement("ids_known", (as_json([job.id]),))):
            return Fired.FIRED
        return Fired.SKIPPED if (yield from self._merged([job.id])) else None

    def _become(self, known: Scheduled, tick: Tick, job: NewJob, now: int) -> Steps[tuple[Fired, Scheduled]]:
        left = [row[0] for row in (yield Statement("jobs_unended", (as_json(known.previous),)))]
        stored = None
        if not (tick.overlap == "skip" and left):
            if tick.overlap == "cancel-previous" and left:
                yield from self._cancel(Selection(tuple(left)), now)
            (answer,) = yield from self._insert([job], now)
            stored = answer.id if answer.inserted else None
        return Fired.SKIPPED if stored is None else Fired.FIRED, agenda.ticked(known, tick, left, stored)

    # --- fan-out -------------------------------------------------------------------------------------------

    @plan(hint=True)
    def fan_out(self, token: Token, name: str, after: int, jobs: Sequence[NewJob]) -> Steps[int]:
        """See Store.fan_out."""
        now = (yield NOW)[0][0]
        grants, _ = yield from self._grants([token.id])
        grant = grants.get(token.id)
        if grant is None or grant.fence != token.fence:
            raise LeaseLost(token.id, f"job {token.id} was taken over: it fans out no more")
        kept = yield Statement("once_get", (grant.seq, name))
        count = int(kept[0][0]) if kept else 0
        if count != after or not jobs:
            return count
        yield from self._insert(jobs, now)
        yield Statement("once_replace", (grant.seq, name, str(count + len(jobs))))
        return count + len(jobs)
