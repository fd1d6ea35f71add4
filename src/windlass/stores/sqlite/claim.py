"""Claim: due jobs to a worker, by rank; and what comes due or expires on the way."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from windlass.core.job import Held, State
from windlass.core.machine import parked_for
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.ports.store import CLAIM_WINDOW, Claimed, ClaimRequest
from windlass.stores.sqlite.enqueue import as_json

PROMOTE = 1_000


class HeldRow(Held, frozen=True, array_like=True):
    """A Held with the store's own columns behind it."""

    seq: int = 0
    rank: int = 0
    grant_seq: int = 0


held_rows = msgspec.json.Decoder(list[HeldRow])


class Claiming:
    """The operations `claim`, `claim_ids`, `recover` and `promote`."""

    @plan
    def claim(self, worker: str, seq: int, request: ClaimRequest) -> Steps[Claimed]:
        """See Store.claim."""
        now = (yield NOW)[0][0]
        gate = yield Statement("claim_gate", (worker,))
        if not gate or gate[0][0]:
            return Claimed([], alive=False)
        _, closed, due, expires, paused = gate[0]
        if seq <= closed:
            return Claimed([])
        due, _ = yield from self._come_due(now, due, expires, PROMOTE)
        skip = set(msgspec.json.decode(paused))
        exclude = set(request.exclude)
        lane = int(request.suspects)
        granted: list[HeldRow] = []
        more = False
        for quota in request.quotas:
            room = min(quota.limit, request.limit - len(granted))
            if room > 0 and quota.queue not in skip:
                found, cut = yield from self._claim_queue(now, worker, seq, lane, quota.queue, room, exclude)
                granted += found
                more = more or cut
        return Claimed(list(granted), _until(due, now), more or 0 < request.limit <= len(granted))

    def _claim_queue(
        self, now: int, worker: str, seq: int, lane: int, queue: str, room: int, exclude: set[tuple[str, int]]
    ) -> Steps[tuple[list[HeldRow], bool]]:
        """Grant from one queue; answer also whether there may be more."""
        look = room + CLAIM_WINDOW if exclude else room
        found = held_rows.decode((yield Statement("ready_window", (now, lane, queue, look)))[0][0])
        full = len(found) == look
        in_time = [row for row in found if _in_time(row, now)]
        take = [row for row in in_time if (row.task, row.version) not in exclude][:room] if exclude else in_time
        if take:
            yield from self._grant(take, now, worker, seq, lane, queue)
        elif full and in_time:
            yield from self._park(in_time, now)
        return take, full or len(take) == room

    def _grant(
        self, rows: Sequence[HeldRow], now: int, worker: str, seq: int, lane: int, queue: str
    ) -> Steps[None]:
        seqs = as_json([row.seq for row in rows])
        yield Statement("held_insert", (worker, seq, now, seqs))
        # Bounded by rank and seq: a million jobs of one instant have one rank, and a claim must not walk them all.
        rank, last = max((row.rank, row.seq) for row in rows)
        yield Statement("ready_take", (lane, queue, rank, last, seqs))

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
        _, closed, due, expires, paused = gate[0]
        if seq <= closed:
            return Claimed([])
        due, _ = yield from self._come_due(now, due, expires, PROMOTE)
        order = {id: place for place, id in enumerate(dict.fromkeys(ids))}
        found = held_rows.decode((yield Statement("ready_by_id", (now, as_json(list(order)))))[0][0])
        skip = set(msgspec.json.decode(paused))
        take = [row for row in found if row.queue not in skip and not row.suspect and _in_time(row, now)]
        take.sort(key=lambda row: order[row.id])
        for row in take:
            yield from self._grant([row], now, worker, seq, 0, row.queue)
        return Claimed(list(take), _until(due, now))

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
        suspects = msgspec.json.decode((yield Statement("suspect_queues"))[0][0], type=tuple[str, ...])
        return Claimed([], _until(due, now), moved >= limit, suspects=suspects)

    def _come_due(self, now: int, due: int | None, expires: int | None, limit: int) -> Steps[tuple[int | None, int]]:
        """Queue what is due, then expire what is past its time; answer the next due instant and how many moved."""
        moved = 0
        if due is not None and due <= now:
            before = (yield Statement("changes"))[0][0]
            yield Statement("promote_ready", (now, limit))
            yield Statement("promote_waiting", (now, limit))
            moved = ((yield Statement("changes"))[0][0] - before) // 2
        if expires is not None and expires <= now:
            moved += yield from self._expire(now, limit)
        if moved:
            due = (yield Statement("time_gate"))[0][0]
        return due, moved

    def _expire(self, now: int, limit: int) -> Steps[int]:
        rows = yield Statement("expired_find", (now, limit))
        waiting = [r for r in rows if r[2]]
        yield Statement("expiring_delete", many=[(r[0], r[1]) for r in rows])
        if waiting:
            yield Statement("ready_remove", many=[(r[4], r[5], r[6], r[1]) for r in waiting])
            yield Statement("waiting_remove", many=[(r[1],) for r in waiting])
            ended = [(r[1], State.EXPIRED.value, "expired", now, r[3]) for r in waiting]
            yield Statement("ended_insert_unrun", many=ended)
        return len(rows)


def _in_time(row: HeldRow, now: int) -> bool:
    """A claim expires a bounded number of jobs on its way; what that left behind must not be granted either."""
    return row.expires_at is None or row.expires_at > now


def _until(due: int | None, now: int) -> int | None:
    return None if due is None else max(0, due - now)
