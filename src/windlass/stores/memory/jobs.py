"""The life of a job: enqueued, claimed, run, settled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from windlass.core.errors import ChildConflict, LeaseLost
from windlass.core.family import STOPPED, parent_of
from windlass.core.flow import Full, Line, limits_of, passed_on
from windlass.core.job import (
    Attempt,
    Held,
    KeyLimit,
    LogLine,
    NewJob,
    Progress,
    Settled,
    State,
    Token,
    Transition,
)
from windlass.core.machine import parked_for
from windlass.core.unique import unique_of
from windlass.ports.plan import NOW, Steps, plan
from windlass.ports.store import CLAIM_WINDOW, KEY_KEEP, LOG_LINES, Claimed, ClaimRequest, Enqueued
from windlass.stores.memory.tables import Key, Row, replace
from windlass.stores.memory.unique import Unique

PROMOTE = 1_000
"""How many jobs a claim promotes on its way, so that its cost has a bound."""


class Look(NamedTuple):
    """What a claim found in one queue."""

    found: list[Row]
    """To be granted."""
    kept: list[tuple[Row, KeyLimit]]
    """Kept back, each by the limit beside it."""
    more: bool
    limited: bool = False
    """The queue is at its limit now."""


class Life(Unique):
    """The operations that move jobs. Every plan reads the clock, then changes things in one go."""

    def __init__(self) -> None:
        super().__init__()
        self._children: list[tuple[NewJob, bool]] = []
        """Of the completions that are being settled: each with whether it is cancelled as it comes."""

    # --- enqueue -------------------------------------------------------------------------------------------

    @plan(hint=True)
    def enqueue(self, jobs: Sequence[NewJob], *, whole: bool = False) -> Steps[list[Enqueued]]:
        """See Store.enqueue."""
        now = (yield NOW)[0][0]
        line = self._line(jobs, now)
        # What went to another store answers as the first time; here it would be a second job.
        departed = self.data.departed
        return [Enqueued(j.id, inserted=True) if j.id in departed else self._enqueue(j, now, line) for j in jobs]

    def _enqueue(
        self, job: NewJob, now: int, line: Line | None = None, stopped: bool = False
    ) -> Enqueued:
        """`line` knows how full the bounded queues are; without it, none is."""
        place = None if job.idempotency_key is None else (job.tenant, job.task, job.idempotency_key)
        owned = self.data.keys.get(place) if place else None
        if owned and not self._live(owned, now):
            owned = None
        if job.id in self.data.jobs or (owned and owned.owner == job.id):
            return Enqueued(job.id, inserted=True)
        if job.id in self.data.merged:
            return Enqueued(self.data.merged[job.id], inserted=False)
        if owned:
            return Enqueued(owned.owner, inserted=False, conflict=owned.digest != job.digest)
        if stopped or self._is_stopped(job):
            self._store_cancelled(job, STOPPED, now)
            return Enqueued(job.id, inserted=True)
        unique = unique_of(job.meta)
        beside = self._beside(job, unique, now) if unique else None
        full = line.take(job, now) if line and beside is None else None
        if full:
            return self._turn_away(job, full, now)
        if beside is None:
            self._store(job, now)
            if unique:
                self._own(job, unique, now)
        answer = beside or Enqueued(job.id, inserted=True)
        if place and answer.inserted:
            self.data.keys[place] = Key(job.id, job.digest)
        return answer

    def _store(self, job: NewJob, now: int) -> Row:
        self.data.enqueued += 1
        row = self.data.jobs[job.id] = _new_row(job, self.data.enqueued, now)
        return row

    def _is_stopped(self, job: NewJob) -> bool:
        """Its parent runs, and was cancelled with its children."""
        parent = self.data.jobs.get(parent_of(job.meta))
        return parent is not None and parent.state is State.RUNNING and parent.stops_children

    def _store_cancelled(self, job: NewJob, reason: str, now: int) -> None:
        row = self._store(job, now)
        self.data.jobs[job.id] = replace(row, state=State.CANCELLED, reason=reason, finished_at=now)

    def _turn_away(self, job: NewJob, full: Full, now: int) -> Enqueued:
        if not self._rules(job.queue).bounds.shed:
            return Enqueued(job.id, inserted=False, full=full)
        self._store_cancelled(job, "shed", now)
        return Enqueued(job.id, inserted=True, full=full)

    def _row(self, job: NewJob, now: int) -> Row:
        return _new_row(job, 0, now)

    def _live(self, key: Key, now: int) -> bool:
        ended = self._ended_at(key)
        return ended is None or now < ended + KEY_KEEP

    def _ended_at(self, key: Key) -> int | None:
        """When the owner of a key ended; None while it has not."""
        owner = self.data.jobs.get(key.owner)
        return owner.finished_at if owner else key.ended_at

    # --- time ----------------------------------------------------------------------------------------------

    @plan
    def promote(self, limit: int) -> Steps[Claimed]:
        """See Store.promote."""
        now = (yield NOW)[0][0]
        self._come_due(now, limit)
        self._sweep()
        more = any(self.data.jobs.until(line, now, 1) for line in ("due", "expiring"))
        ready = [key for name, key in self.data.jobs.lines if name == "ready" and isinstance(key, tuple)]
        suspects = tuple(queue for suspect, queue in ready if suspect and not self._rules(queue).paused)
        return Claimed([], self._next_due(now), more, suspects=suspects)

    def _come_due(self, now: int, limit: int) -> None:
        for row in self.data.jobs.until("due", now, limit):
            self.data.jobs[row.new.id] = replace(row, state=State.QUEUED, reason=None, parked_until=None)
        for row in self.data.jobs.until("expiring", now, limit):
            self._expire(row, now)

    def _expire(self, row: Row, now: int) -> None:
        self._end(row, State.EXPIRED, "expired", now)

    def _end(self, row: Row, state: State, reason: str | None, now: int) -> None:
        """End a job that waits, without an attempt."""
        self.data.jobs[row.new.id] = replace(
            row,
            state=state,
            reason=reason,
            finished_at=now,
            parked_until=None,
            blocked_by=None,
            suspect=False,
            error=None,
        )
        self._give_up([row], now)

    def _next_due(self, now: int) -> int | None:
        due = self.data.jobs.first("due")
        return None if due is None else max(0, due - now)

    # --- claim ---------------------------------------------------------------------------------------------

    @plan
    def claim(self, worker: str, seq: int, request: ClaimRequest) -> Steps[Claimed]:
        """See Store.claim."""
        now = (yield NOW)[0][0]
        refused = self._refuse(worker, seq)
        if refused:
            return refused
        self._come_due(now, PROMOTE)
        granted: list[Held] = []
        more = limited = False
        for quota in request.quotas:
            room = min(quota.limit, request.limit - len(granted))
            look = self._look(quota.queue, room, request, now)
            granted += [self._grant(row, worker, seq, now) for row in look.found]
            more = self._keep_back(look.kept) or more or look.more
            limited = limited or look.limited
        return Claimed(granted, self._next_due(now), more or 0 < request.limit <= len(granted), limited)

    @plan
    def claim_ids(self, worker: str, seq: int, ids: Sequence[str]) -> Steps[Claimed]:
        """See Store.claim_ids."""
        now = (yield NOW)[0][0]
        refused = self._refuse(worker, seq)
        if refused:
            return refused
        self._come_due(now, PROMOTE)
        rows = [self.data.jobs[id] for id in dict.fromkeys(ids) if id in self.data.jobs]
        free = [row for row in rows if not row.suspect and not self._rules(row.new.queue).paused]
        line = self._within_queue_limits([row for row in free if _claimable(row, now)])
        found, kept = self._admit(line, len(line))
        granted = [self._grant(row, worker, seq, now) for row in found]
        self._keep_back(kept)
        return Claimed(granted, self._next_due(now))

    def _within_queue_limits(self, line: list[Row]) -> list[Row]:
        rooms = {row.new.queue: self._queue_room(row.new.queue) for row in line}
        found = []
        for row in line:
            room = rooms[row.new.queue]
            if room is None or room > 0:
                found.append(row)
                rooms[row.new.queue] = None if room is None else room - 1
        return found

    def _refuse(self, worker: str, seq: int) -> Claimed | None:
        known = self.data.workers.get(worker)
        if known is None or known.taken:
            return Claimed([], alive=False)
        return Claimed([]) if seq <= known.closed else None

    def _look(self, queue: str, room: int, request: ClaimRequest, now: int) -> Look:
        """Looks at a bounded window of one queue only: one full of jobs that this worker cannot run is parked, else
        every claim to come would walk past them."""
        within = self._queue_room(queue)
        asked, room = room, room if within is None else min(room, within)
        if room <= 0 or self._rules(queue).paused:
            return Look([], [], more=False, limited=within == 0 and asked > 0 and not self._rules(queue).paused)
        window = self.data.jobs.line("ready", (request.suspects, queue), room + CLAIM_WINDOW)
        ready = [row for row in window if _claimable(row, now)]
        runnable = [row for row in ready if (row.new.task, row.new.version) not in request.exclude]
        found, kept = self._admit(runnable, room)
        full = len(window) == room + CLAIM_WINDOW
        if full and not runnable:
            for row in ready:
                self._park(row, now)
        limited = within is not None and len(found) >= within
        return Look(found, kept, full if len(found) < room else asked == room, limited)

    def _keep_back(self, kept: Sequence[tuple[Row, KeyLimit]]) -> bool:
        """Block what a limit keeps back; answers whether that gave others a turn."""
        for row, limit in kept:
            self._block(row, limit)
        return self._unblock(passed_on((row.limits, limit) for row, limit in kept))

    def _park(self, row: Row, now: int) -> None:
        due = now + round(parked_for(now - row.created_at) * 1e6)
        self.data.jobs[row.new.id] = replace(row, state=State.SCHEDULED, reason="unknown_task", parked_until=due)

    def _grant(self, row: Row, worker: str, seq: int, now: int) -> Held:
        running = replace(
            row,
            state=State.RUNNING,
            fence=self._fence(row, now),
            attempt=row.attempt + 1,
            worker=worker,
            grant=seq,
            started_at=now,
        )
        self.data.jobs[row.new.id] = running
        return running.as_held()

    def _fence(self, row: Row, now: int) -> int:
        """Grows whatever the clock does, and jumps ahead with it: even a store that lost its latest writes is past
        every fence that it gave."""
        return max(row.fence + 1, now)

    @plan
    def recover(self, worker: str, seq: int) -> Steps[list[Held]]:
        """See Store.recover. The original is waited out by the shell's lock."""
        yield NOW
        known = self.data.workers.get(worker)
        if known:
            self.data.workers[worker] = replace(known, closed=max(known.closed, seq))
        return [row.as_held() for row in self.data.jobs.line("held", worker) if row.grant == seq]

    # --- settle --------------------------------------------------------------------------------------------

    @plan
    def settle(self, worker: str, transitions: Sequence[Transition]) -> Steps[list[Settled]]:
        """See Store.settle. The fence alone says who may write, so the name of the worker is not asked."""
        now = (yield NOW)[0][0]
        before = [self.data.jobs.get(t.id) for t in transitions]
        answers = [self._settle(transition, now) for transition in transitions]
        applied = [row for row, answer in zip(before, answers, strict=True) if row and answer is Settled.APPLIED]
        self._over(applied, now)
        return answers

    def _over(self, rows: Sequence[Row], now: int) -> None:
        """These runs are over: what they kept is free, and then their children come."""
        self._free(rows)
        self._give_up([row for row in rows if self.data.jobs[row.new.id].state.terminal], now)
        children, self._children = self._children, []
        for child, stopped in children:
            answer = self._enqueue(child, now, stopped=stopped)
            if answer.conflict:
                raise ChildConflict(str(child.idempotency_key), answer.id)

    def _settle(self, t: Transition, now: int) -> Settled:
        row = self.data.jobs.get(t.id)
        if row is None:
            return Settled.GONE
        if not self._runs(row, t.fence):
            # The history is the receipt: what was settled under this very fence stands in it.
            return Settled.ALREADY if self._receipt(t.id, t.fence) else Settled.STALE
        self._apply(row, t, now)
        return Settled.APPLIED

    def _runs(self, row: Row | None, fence: int) -> bool:
        return row is not None and row.state is State.RUNNING and row.fence == fence

    def _receipt(self, job: str, fence: int) -> bool:
        return any(attempt.fence == fence for attempt in self.data.attempts.get(job, ()))

    def _apply(self, row: Row, t: Transition, now: int) -> None:
        if row.cancelling and t.cancel_wins:
            t = replace(t, state=State.CANCELLED, reason="cancelled", result=None, children=())
        past = Attempt(row.attempt, row.fence, row.worker, row.started_at, now, t.outcome, t.reason, t.error)
        self.data.attempts[t.id] = (*self.data.attempts.get(t.id, ()), past)
        counted = replace(
            row,
            attempt=row.attempt if t.charged else row.attempt - 1,
            crashes=row.crashes + t.crash,
            losses=row.losses + t.loss,
            suspect=row.suspect if t.suspect is None else t.suspect,
            cancelling=False,
            stops_children=False,
        )
        self.data.jobs[t.id] = _ended(counted, t, now) if t.state.terminal else _waiting(counted, t, now)
        self._children += [(child, row.stops_children) for child in t.children]

    # --- what a running job writes -------------------------------------------------------------------------

    @plan
    def report(
        self, progress: Sequence[tuple[Token, Progress]], logs: Sequence[tuple[Token, LogLine]]
    ) -> Steps[list[Token]]:
        """See Store.report."""
        yield NOW
        tokens = dict.fromkeys([token for token, _ in (*progress, *logs)])
        dead = [token for token in tokens if not self._may_speak(self.data.jobs.get(token.id), token.fence)]
        for token, latest in progress:
            if token not in dead:
                text = msgspec.json.encode(latest).decode()
                self.data.jobs[token.id] = replace(self.data.jobs[token.id], progress=text)
        for token, line in logs:
            kept = self.data.logs.get(token.id, ())
            if token not in dead and len(kept) < LOG_LINES:
                self.data.logs[token.id] = (*kept, line)
        return dead

    def _may_speak(self, row: Row | None, fence: int) -> bool:
        return row is not None and row.fence == fence > 0

    @plan
    def once(self, token: Token, name: str, value: str | None) -> Steps[str | None]:
        """See Store.once."""
        yield NOW
        if not self._runs(self.data.jobs.get(token.id), token.fence):
            raise LeaseLost(token.id, f"job {token.id} was taken over: {name!r} was not recorded")
        known = self.data.first_results.get(token.id, {})
        if name not in known and value is not None:
            self.data.first_results[token.id] = known | {name: value}
        return known.get(name, value)


def _new_row(job: NewJob, seq: int, now: int) -> Row:
    due = job.at if job.at is not None else now + job.after
    expires = job.expires_at
    if expires is None and job.expires_after is not None:
        expires = now + job.expires_after
    return Row(
        seq=seq,
        new=job,
        payload=job.payload,
        state=State.SCHEDULED if due > now else State.QUEUED,
        created_at=now,
        due_at=due,
        rank=due - job.head_start,
        expires_at=expires,
        limits=limits_of(job.meta),
    )


def _claimable(row: Row, now: int) -> bool:
    return row.state is State.QUEUED and (row.expires_at is None or row.expires_at > now)


def _ended(row: Row, t: Transition, now: int) -> Row:
    return replace(
        row,
        state=t.state,
        reason=t.reason,
        finished_at=now,
        result=t.result,
        result_until=None if t.result is None else now + t.result_ttl,
        error=t.error,
        suspect=False,
    )


def _waiting(row: Row, t: Transition, now: int) -> Row:
    due = row.due_at if t.keep_rank else now + t.after
    return replace(
        row,
        state=t.state,
        reason=None if t.state is State.QUEUED else t.reason,
        due_at=due,
        parked_until=now + t.after if t.keep_rank and t.state is not State.QUEUED else None,
        rank=row.rank if t.keep_rank else due - row.new.head_start,
        worker=None,
        started_at=None,
        error=t.error or row.error,
    )
