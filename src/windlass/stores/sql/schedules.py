"""Schedules: what they are, which are due, and the one transaction in which a tick becomes a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from windlass.core.errors import LeaseLost
from windlass.core.job import NewJob, Token
from windlass.ports.plan import NOW, Statement, Steps, plan
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
        if change.action == "put":
            if known is not None:
                return _put(known, change, now)
            floor = yield Statement("mark_get", (FLOOR,))
            return "created", _created(change, floor[0][0] if floor else 0, now)
        if known is None:
            return "missing", None
        if change.action == "delete":
            floor = yield Statement("mark_get", (FLOOR,))
            yield Statement("mark_put", (FLOOR, max(known.revision, floor[0][0] if floor else 0)))
            yield Statement("schedule_drop", (change.name,))
            return "deleted", None
        pausing = change.action == "pause"
        if bool(known.paused) == pausing:
            return "unchanged", known
        if pausing:
            return "paused", known._replace(paused=1)
        return "resumed", known._replace(paused=0, cursor=max(known.cursor, now), next_at=now)

    # --- ticks ---------------------------------------------------------------------------------------------

    @plan(hint=True)
    def fire(self, ticks: Sequence[Tick]) -> Steps[list[Fired]]:
        """See Store.fire."""
        now = (yield NOW)[0][0]
        answers = []
        for tick in ticks:
            row = yield from self._schedule(tick.schedule)
            answers.append((yield from self._fire(row, tick, now)))
        return answers

    def _fire(self, row: Row | None, tick: Tick, now: int) -> Steps[Fired]:
        if row is None:
            return Fired.STALE
        if tick.manual:
            before = yield from self._sent_before(tick.job)
            if before is not None:
                return before
        else:
            refused = _refused(row, tick, now)
            if refused is not None:
                return refused
            row = row._replace(cursor=tick.to, next_at=tick.next_at)
        outcome = Fired.MOVED
        if tick.job is not None:
            outcome, row = yield from self._become(row, tick, tick.job, now)
        yield Statement("schedule_put", row)
        return outcome

    def _sent_before(self, job: NewJob | None) -> Steps[Fired | None]:
        """How a tick went that no cursor knows again; else it would get in its own way when it is sent again."""
        if job is None:
            return None
        if (yield Statement("ids_known", (as_json([job.id]),))):
            return Fired.FIRED
        return Fired.SKIPPED if (yield from self._merged([job.id])) else None

    def _become(self, row: Row, tick: Tick, job: NewJob, now: int) -> Steps[tuple[Fired, Row]]:
        left = [found[0] for found in (yield Statement("jobs_unended", (row.previous,)))]
        outcome, id = Fired.SKIPPED, row.last_job
        if not (tick.overlap == "skip" and left):
            if tick.overlap == "cancel-previous" and left:
                yield from self._cancel(Selection(tuple(left)), now)
            (answer,) = yield from self._insert([job], now)
            if answer.inserted:
                outcome, id = Fired.FIRED, answer.id
                left.append(answer.id)  # never whom it merged into: the next tick would cancel somebody else's job
        return outcome, row._replace(
            previous=as_json(left[-PREVIOUS_JOBS:]),
            last_tick=row.last_tick if tick.manual else tick.to,
            last_outcome=outcome.value,
            last_job=id,
            fired=row.fired + (outcome is Fired.FIRED),
            skipped=row.skipped + (outcome is Fired.SKIPPED),
        )

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


def _created(change: ScheduleChange, floor: int, now: int) -> Row:
    seen = now if change.origin == "code" else None
    said = (change.definition, change.digest, change.timing, change.origin)
    return Row(change.name, floor + 1, *said, 0, now, now, now, now, seen, seen)


def _put(known: Row, change: ScheduleChange, now: int) -> tuple[str, Row]:
    by_code = change.origin == "code"
    row = known._replace(seen=now) if by_code else known
    if change.digest == known.digest:
        return "unchanged", row._replace(origin="code", shown=now) if by_code else row
    past = _names.decode(known.past)
    if by_code and change.digest in past and not _may_return(known, now):
        return "superseded", row
    edited = not by_code and known.origin != "operator"
    past = tuple(each for each in (*past, known.digest) if each != change.digest)[-PAST_DEFINITIONS:]
    changed: dict[str, Any] = {"shown": now} if by_code else {}
    if change.timing != known.timing:
        changed["cursor"] = max(known.cursor, now)
    return "replaced", row._replace(
        revision=known.revision + 1,
        definition=change.definition,
        digest=change.digest,
        timing=change.timing,
        origin="edited" if edited else change.origin,
        next_at=now,
        changed=now,
        past=as_json(past),
        **changed,
    )


def _may_return(known: Row, now: int) -> bool:
    """Whether nobody shows the present definition any more, so that an older one is no longer old."""
    return known.origin == "code" and known.shown is not None and now - known.shown > CODE_SEEN


def _refused(row: Row, tick: Tick, now: int) -> Fired | None:
    if row.paused or row.revision != tick.revision:
        return Fired.STALE
    if row.cursor != tick.cursor:
        return Fired.ALREADY if row.cursor >= tick.to else Fired.STALE
    if tick.to < row.cursor or (tick.to == row.cursor and tick.job is not None):
        return Fired.ALREADY
    return Fired.EARLY if now < tick.to != row.cursor else None
