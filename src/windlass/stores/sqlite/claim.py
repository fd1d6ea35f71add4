"""Claim: due jobs to a worker, by rank; and what comes due or expires on the way."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from windlass.core.job import Held, State
from windlass.core.machine import parked_for
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.ports.store import Claimed, ClaimRequest
from windlass.stores.sqlite.enqueue import as_json

WINDOW = 256
"""How far past its limit a claim looks for jobs that the worker can run. A window full of jobs that it cannot run is
parked, so that a claim costs the same however many such jobs there are."""

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
        for quota in request.quotas:
            room = min(quota.limit, request.limit - len(granted))
            if room > 0 and quota.queue not in skip:
                granted += yield from self._claim_queue(now, worker, seq, lane, quota.queue, room, exclude)
        return Claimed(list(granted), None if due is None else max(0, due - now), len(granted) >= request.limit)

    def _claim_queue(
        self, now: int, worker: str, seq: int, lane: int, queue: str, room: int, exclude: set[tuple[str, int]]
    ) -> Steps[list[HeldRow]]:
        look = room + WINDOW if exclude else room
        found = held_rows.decode((yield Statement("ready_window", (now, lane, queue, look)))[0][0])
        take = [row for row in found if (row.task, row.version) not in exclude][:room] if exclude else found
        if not take:
            if len(found) == look:
                yield from self._park(found, now)
            return []
        yield from self._grant(take, now, worker, seq, lane, queue)
        return take

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
        yield from self._come_due(now, due, expires, PROMOTE)
        found = held_rows.decode((yield Statement("ready_by_id", (now, as_json(list(ids)))))[0][0])
        skip = set(msgspec.json.decode(paused))
        take = [row for row in found if row.queue not in skip]
        for row in take:
            yield from self._grant([row], now, worker, seq, int(row.suspect), row.queue)
        return Claimed(list(take))

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
        return Claimed([], None if due is None else max(0, due - now), moved >= limit, suspects=suspects)

    def _come_due(self, now: int, due: int | None, expires: int | None, limit: int) -> Steps[tuple[int | None, int]]:
        """Queue what is due, then expire what is past its time; answer the next due instant and how many moved."""
        moved = 0
        if due is not None and due <= now:
            before = (yield Statement("changes"))[0][0]
            yield Statement("promote_ready", (now, limit))
            yield Statement("promote_waiting", (now, limit))
            moved = ((yield Statement("changes"))[0][0] - before) // 2
            due = (yield Statement("time_gate"))[0][0]
        if expires is not None and expires <= now:
            moved += yield from self._expire(now, limit)
        return due, moved

    def _expire(self, now: int, limit: int) -> Steps[int]:
        rows = yield Statement("expired_find", (now, limit))
        waiting = [r for r in rows if r[1] is not None and not r[8] and not r[9]]
        yield Statement("expiring_delete", many=[(r[0], r[1]) for r in rows if r[1] is not None])
        if waiting:
            yield Statement("ready_remove", many=[(r[4], r[5], r[6], r[1]) for r in waiting])
            yield Statement("waiting_remove", many=[(r[1],) for r in waiting])
            ended = [(r[1], State.EXPIRED.value, "expired", now, r[3]) for r in waiting]
            yield Statement("ended_insert_unrun", many=ended)
        return len(rows)
