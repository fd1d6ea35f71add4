"""Claim: due jobs to a worker, by rank; and what comes due or expires on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from windlass.core.flow import concerns_flow
from windlass.core.job import Held, State
from windlass.core.machine import parked_for
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.ports.store import CLAIM_WINDOW, Claimed, ClaimRequest
from windlass.stores.sql.flow import Flow, Kept
from windlass.stores.sql.text import as_json
from windlass.stores.sql.unique import Unique

PROMOTE = 1_000
MANY = 8
"""Quotas above which a claim first asks which queues hold anything: of 500 queues that are served, most are empty."""


class HeldRow(Held, frozen=True, array_like=True):
    """A Held with the store's own columns behind it."""

    seq: int = 0
    rank: int = 0
    grant_seq: int = 0
    part: int = 0
    place: str = ""


held_rows = msgspec.json.Decoder(list[HeldRow])
_rules = msgspec.json.Decoder(list[tuple[str, int, int | None]])


class Grants(NamedTuple):
    """To whom a claim grants, and how far it looks."""

    worker: str
    seq: int
    now: int
    lane: int
    exclude: set[tuple[str, int]]


class Claiming(Unique, Flow):
    """The operations `claim`, `claim_ids`, `recover` and `promote`."""

    @plan
    def claim(self, worker: str, seq: int, request: ClaimRequest) -> Steps[Claimed]:
        """See Store.claim."""
        now = (yield NOW)[0][0]
        gate = yield Statement("claim_gate", (worker,))
        if not gate or gate[0][0]:
            return Claimed([], alive=False)
        _, closed, due, expires, rules = gate[0]
        if seq <= closed:
            return Claimed([])
        due, _ = yield from self._come_due(now, due, expires, PROMOTE)
        paused, limits = _read(rules)
        to = Grants(worker, seq, now, int(request.suspects), set(request.exclude))
        granted: list[HeldRow] = []
        more = limited = False
        quotas = request.quotas
        if len(quotas) > MANY:
            filled = {row[0] for row in (yield Statement("ready_queues", (to.lane,)))}
            quotas = tuple(quota for quota in quotas if quota.queue in filled)
        for quota in quotas:
            room = min(quota.limit, request.limit - len(granted))
            if room > 0 and quota.queue not in paused:
                within = yield from self._queue_room(quota.queue, limits.get(quota.queue))
                found, cut = yield from self._claim_queue(to, quota.queue, room, within)
                granted += found
                more = more or cut
                limited = limited or (within is not None and len(found) >= within)
        return Claimed(list(granted), _until(due, now), more or 0 < request.limit <= len(granted), limited)

    def _claim_queue(self, to: Grants, queue: str, asked: int, within: int | None) -> Steps[tuple[list[HeldRow], bool]]:
        """Grant from one queue, of which `within` may still start; answer also whether there may be more."""
        room = asked if within is None else min(asked, within)
        if room <= 0:
            return [], room < 0
        look = room + CLAIM_WINDOW if to.exclude else room
        while True:
            found, meta = yield from self._window(to, queue, look)
            full = len(found) == look
            in_time = [row for row in found if _in_time(row, to.now)]
            line = [row for row in in_time if (row.task, row.version) not in to.exclude] if to.exclude else in_time
            take, kept, unsure = line[:room], list[Kept](), False
            concerns = meta and concerns_flow({row.meta for row in line})
            if concerns:
                take, kept, unsure = yield from self._admit(line, room)
            if not (kept and full and len(take) < room) or look > room:
                break
            look = room + CLAIM_WINDOW  # past what a limit keeps back; mostly there is nothing of that sort
        late = [(row.seq,) for row in found if not _in_time(row, to.now)]
        if late:  # of a row that was made by hand, nothing else says when it expires: it would lie in front for ever
            yield Statement("expiring_insert", many=late)
        if take:
            yield from self._grant(take, to.now, to.worker, to.seq, to.lane, queue)
        elif full and in_time and not line:
            yield from self._park(in_time, to.now)
        if concerns:
            yield from self._note(take)
        passed = (yield from self._keep_back(kept)) if kept else False
        return take, passed or unsure or (full if len(take) < room else asked == room)

    def _window(self, to: Grants, queue: str, look: int) -> Steps[tuple[list[HeldRow], bool]]:
        """The first so many in line, and whether some have a meta."""
        window, meta = (yield Statement("ready_window", (to.now, to.lane, queue, look)))[0]
        return held_rows.decode(window), bool(meta)

    def _grant(
        self, rows: Sequence[HeldRow], now: int, worker: str, seq: int, lane: int, queue: str
    ) -> Steps[None]:
        """Out of the line, and held."""
        raise NotImplementedError
        yield

    def _park(self, rows: Sequence[HeldRow], now: int) -> Steps[None]:
        wait = [(r.seq, now + round(parked_for(now - r.created_at) * 1e6), "scheduled", "unknown_task") for r in rows]
        yield Statement("ready_remove", many=[(int(r.suspect), r.queue, r.rank, r.seq) for r in rows])
        yield Statement("waiting_insert", many=wait)

    @plan
    def claim_ids(self, worker: str, seq: int, ids: Sequence[str]) -> Steps[Claimed]:
        """See Store.claim_ids."""
        now = (yield NOW)[0][0]
        gate = yield Statement("claim_gate", (worker,))
        if not gate or gate[0][0]:
            return Claimed([], alive=False)
        _, closed, due, expires, rules = gate[0]
        if seq <= closed:
            return Claimed([])
        due, _ = yield from self._come_due(now, due, expires, PROMOTE)
        order = {id: place for place, id in enumerate(dict.fromkeys(ids))}
        found = held_rows.decode((yield Statement("ready_by_id", (now, as_json(list(order)))))[0][0])
        paused, limits = _read(rules)
        line = [row for row in found if row.queue not in paused and not row.suspect and _in_time(row, now)]
        line.sort(key=lambda row: order[row.id])
        if limits:
            line = yield from self._within_queue_limits(line, limits)
        take, kept, _ = yield from self._admit(line, len(line))
        for row in take:
            yield from self._grant([row], now, worker, seq, 0, row.queue)
        yield from self._note(take)
        if kept:
            yield from self._keep_back(kept)
        return Claimed(list(take), _until(due, now))

    def _within_queue_limits(self, line: Sequence[HeldRow], limits: dict[str, int]) -> Steps[list[HeldRow]]:
        rooms: dict[str, int | None] = {}
        found = []
        for row in line:
            if row.queue not in rooms:
                rooms[row.queue] = yield from self._queue_room(row.queue, limits.get(row.queue))
            room = rooms[row.queue]
            if room is None or room > 0:
                found.append(row)
                rooms[row.queue] = None if room is None else room - 1
        return found

    @plan
    def recover(self, worker: str, seq: int) -> Steps[list[Held]]:
        """See Store.recover. A writing transaction waits out the claim whose answer was lost."""
        yield Statement("worker_close_seq", (seq, worker))
        rows = held_rows.decode((yield Statement("held_of", (worker,)))[0][0])
        return [row for row in rows if row.grant_seq == seq]

    @plan
    def promote(self, limit: int) -> Steps[Claimed]:
        """See Store.promote."""
        now = (yield NOW)[0][0]
        due, expires = (yield Statement("time_gate"))[0]
        due, moved = yield from self._come_due(now, due, expires, limit)
        yield from self._sweep(limit)
        suspects = msgspec.json.decode((yield Statement("suspect_queues"))[0][0], type=tuple[str, ...])
        return Claimed([], _until(due, now), moved >= limit, suspects=suspects)

    def _come_due(self, now: int, due: int | None, expires: int | None, limit: int) -> Steps[tuple[int | None, int]]:
        """Queue what is due, then expire what is past its time; answer the next due instant and how many moved."""
        moved = 0
        if due is not None and due <= now:
            moved = yield from self._promote(now, limit)
        if expires is not None and expires <= now:
            moved += yield from self._expire(now, limit)
        if moved:
            due = (yield Statement("time_gate"))[0][0]
        return due, moved

    def _promote(self, now: int, limit: int) -> Steps[int]:
        """Queue what is due; answer how many."""
        raise NotImplementedError
        yield

    def _expire(self, now: int, limit: int) -> Steps[int]:
        rows = yield Statement("expired_find", (now, limit))
        waiting = [r for r in rows if r[2]]
        yield Statement("expiring_delete", many=[(r[0], r[1]) for r in rows])
        if waiting:
            yield Statement("ready_remove", many=[(r[4], r[5], r[6], r[1]) for r in waiting])
            yield Statement("waiting_remove", many=[(r[1],) for r in waiting])
            yield Statement("blocked_remove", many=[(r[1],) for r in waiting])
            ended = [(r[1], State.EXPIRED.value, "expired", now, r[3]) for r in waiting]
            yield Statement("ended_insert_unrun", many=ended)
            yield from self._give_up([r[1] for r in waiting], now)
        return len(rows)


def _read(rules: str) -> tuple[set[str], dict[str, int]]:
    """The queues that are paused, and those that have a limit."""
    said = _rules.decode(rules)
    return {name for name, paused, _ in said if paused}, {name: most for name, _, most in said if most is not None}


def _in_time(row: HeldRow, now: int) -> bool:
    """A claim expires a bounded number of jobs on its way; what that left behind must not be granted either."""
    return row.expires_at is None or row.expires_at > now


def _until(due: int | None, now: int) -> int | None:
    return None if due is None else max(0, due - now)
