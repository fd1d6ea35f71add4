"""Workers: their leases, their deaths, and the lead among their supervisors."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from windlass.core.job import Token
from windlass.core.lead import Lead, after_set_back, grant
from windlass.ports.plan import NOW, Plan, Statement, Steps, plan
from windlass.ports.store import (
    BeatAnswer,
    Death,
    Leadership,
    Reaped,
    WorkerInfo,
    WorkerReport,
    token_hash,
)
from windlass.ports.takeover import verdict
from windlass.stores.sql.claim import held_rows
from windlass.stores.sql.settle import Settling, under_fence
from windlass.stores.sql.text import as_json

_holdings = msgspec.json.Decoder(list[tuple[str, str, int, int]])
_infos = msgspec.json.Decoder(list[WorkerInfo])


class Workers(Settling):
    """The operations of liveness."""

    @plan
    def beat(self, reports: Sequence[WorkerReport]) -> Steps[list[BeatAnswer]]:
        """See Store.beat."""
        now = (yield NOW)[0][0]
        yield Statement("workers_set_back", (now,))
        # Of all at once: PostgreSQL has no index for it, and one look through what is held does for all of them.
        holdings = yield from self._holdings([r.id for r in reports])
        answers = []
        for r in reports:
            state = yield Statement("worker_state", (r.id,))
            if state and state[0][0]:
                answers.append(BeatAnswer(r.id, taken=True))
                continue
            row = (r.id, r.supervisor, r.host, r.pid, r.state, r.slots, r.busy, as_json(r.queues), as_json(r.tasks))
            yield Statement("worker_beat", (*row, now, r.hold))
            found = holdings.get(r.id, [])
            mixed = 0
            for token, _ in found:
                mixed ^= token_hash(token)
            mismatch = (r.held, r.held_hash) != (len(found), mixed)
            cancel = tuple(token.id for token, cancelling in found if cancelling)
            answers.append(BeatAnswer(r.id, False, cancel, mismatch, now + r.hold))
        return answers

    @plan(write=False)
    def held(self, worker: str) -> Steps[list[Token]]:
        """See Store.held."""
        found = yield from self._holdings([worker])
        return [token for token, _ in found.get(worker, [])]

    def _holdings(self, workers: Sequence[str]) -> Steps[dict[str, list[tuple[Token, int]]]]:
        """What each of these workers holds, and whether it is being cancelled."""
        holdings: dict[str, list[tuple[Token, int]]] = {}
        rows = (yield Statement("held_tokens", (as_json(list(workers)),)))[0][0]
        for worker, id, fence, cancelling in _holdings.decode(rows):
            holdings.setdefault(worker, []).append((Token(id, fence), cancelling))
        return holdings

    def reap(self, deaths: Sequence[Death]) -> Plan[list[Reaped]]:
        """See Store.reap."""
        # Drawn before the first yield: a plan that is restarted must decide the same.
        return self._reap(deaths, random.random())

    @plan
    def _reap(self, deaths: Sequence[Death], chance: float) -> Steps[list[Reaped]]:
        now = (yield NOW)[0][0]
        answers = []
        for death in deaths:
            state = yield Statement("worker_state", (death.worker,))
            if not state or state[0][0]:
                # A takeover that is sent again is answered as it was; a worker that never beat has nothing to take.
                answers.append(Reaped(death.worker, bool(state)))
                continue
            may = yield from self._may_take(death, now)
            jobs = (yield from self._take(death, now, chance)) if may else 0
            answers.append(Reaped(death.worker, may, jobs))
        return answers

    def _may_take(self, death: Death, now: int) -> Steps[bool]:
        if death.observed:
            return True
        lapsed = yield Statement("workers_lapsed", (death.reaper, now))
        return (death.worker,) in lapsed

    def _take(self, death: Death, now: int, chance: float) -> Steps[int]:
        # Order matters: once the worker is marked and its fences are moved, nothing that it still sends can apply.
        yield Statement("worker_take", (death.worker,))
        yield Statement("held_refence", (now, death.worker))
        rows = held_rows.decode((yield Statement("held_of", (death.worker,)))[0][0])
        if not rows:
            return 0
        moves = [verdict(row, death, chance) for row in rows]
        grants, given = yield from self._hand_in(moves)
        yield from self._apply([(grants[t.id], under_fence(grants[t.id], t)) for t in moves], given, now)
        return len(rows)

    @plan(write=False)
    def lapsed(self, reaper: str) -> Steps[list[str]]:
        """See Store.lapsed."""
        now = (yield NOW)[0][0]
        return [row[0] for row in (yield Statement("workers_lapsed", (reaper, now)))]

    @plan(write=False)
    def workers(self) -> Steps[list[WorkerInfo]]:
        """See Store.workers."""
        return _infos.decode((yield Statement("workers_list"))[0][0])

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        """See Store.lead."""
        now = (yield NOW)[0][0]
        found = [Lead(*row) for row in (yield Statement("lead_get", (name,)))]
        for lead in after_set_back(found, now):
            yield Statement("lead_put", (name, *lead))
            found = [lead if each.slot == lead.slot else each for each in found]
        mark = yield Statement("mark_get", ("terms",))
        owner, term, leading, slot = grant(found, holder, now, slots, mark[0][0] if mark else 0)
        if leading:
            yield Statement("lead_put", (name, slot, holder, term, now + ttl, ttl))
        return Leadership(owner, term, leading)

    @plan
    def resign(self, name: str, holder: str) -> Steps[None]:
        """See Store.resign."""
        now = (yield NOW)[0][0]
        yield Statement("lead_free", (now, name, holder))
