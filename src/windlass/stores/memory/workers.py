"""Workers: their leases, their deaths, and the lead among their supervisors."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from windlass.core.job import ErrorInfo, Failed, Held, Lost, Outcome, Policy, Released, Token, read_meta
from windlass.core.lead import Lead, after_set_back, grant
from windlass.core.machine import decide
from windlass.ports.plan import NOW, Steps, plan
from windlass.ports.store import (
    BeatAnswer,
    Death,
    Leadership,
    Reaped,
    WorkerInfo,
    WorkerReport,
    token_hash,
)
from windlass.stores.memory.jobs import Life
from windlass.stores.memory.tables import Row, Worker, replace


class Liveness(Life):
    """Who is alive, who is not, and what becomes of the jobs of the dead."""

    @plan
    def beat(self, reports: Sequence[WorkerReport]) -> Steps[list[BeatAnswer]]:
        """See Store.beat."""
        now = (yield NOW)[0][0]
        for id, other in self.data.workers.items():
            if not other.taken and other.lease_until > now + other.report.hold:
                self.data.workers[id] = replace(other, lease_until=now + other.report.hold)
        return [self._beat(report, now) for report in reports]

    def _beat(self, report: WorkerReport, now: int) -> BeatAnswer:
        known = self.data.workers.get(report.id)
        if known and known.taken:
            return BeatAnswer(report.id, taken=True)
        unbroken = known is not None and known.since <= now <= known.lease_until
        self.data.workers[report.id] = Worker(
            report=report,
            started_at=known.started_at if known else now,
            since=known.since if known and unbroken else now,
            beat_at=now,
            lease_until=now + report.hold,
            closed=known.closed if known else 0,
        )
        held = self.data.jobs.line("held", report.id)
        mixed = 0
        for row in held:
            mixed ^= token_hash(_token(row))
        cancel = tuple(row.new.id for row in held if row.cancelling)
        mismatch = (report.held, report.held_hash) != (len(held), mixed)
        return BeatAnswer(report.id, False, cancel, mismatch, now + report.hold)

    @plan(write=False)
    def held(self, worker: str) -> Steps[list[Token]]:
        """See Store.held."""
        yield NOW
        return [_token(row) for row in self.data.jobs.line("held", worker)]

    @plan
    def reap(self, deaths: Sequence[Death]) -> Steps[list[Reaped]]:
        """See Store.reap."""
        dice = random.Random()
        now = (yield NOW)[0][0]
        return [self._reap(death, now, dice) for death in deaths]

    def _reap(self, death: Death, now: int, dice: random.Random) -> Reaped:
        known = self.data.workers.get(death.worker)
        if known is None or known.taken:
            return Reaped(death.worker, taken=known is not None)
        if not death.observed and death.worker not in self._lapsed(death.reaper, now):
            return Reaped(death.worker, taken=False)
        self.data.workers[death.worker] = replace(known, taken=True)
        orphans = self.data.jobs.line("held", death.worker)
        for row in orphans:
            fenced = replace(row, fence=self._fence(row, now))
            held = fenced.as_held()
            self._apply(fenced, decide(held, _policy(held), _verdict(held, death), dice.random()), now)
        self._over(orphans, now)
        return Reaped(death.worker, taken=True, jobs=len(orphans))

    @plan(write=False)
    def lapsed(self, reaper: str) -> Steps[list[str]]:
        """See Store.lapsed."""
        now = (yield NOW)[0][0]
        return self._lapsed(reaper, now)

    def _lapsed(self, reaper: str, now: int) -> list[str]:
        judge = self.data.workers.get(reaper)
        if judge is None or judge.taken or now > judge.lease_until or now < judge.since + judge.report.hold:
            return []  # a reaper that was cut off itself cannot tell who was
        return [id for id, other in self.data.workers.items() if not other.taken and now > other.lease_until]

    @plan(write=False)
    def workers(self) -> Steps[list[WorkerInfo]]:
        """See Store.workers."""
        yield NOW
        return self._untaken()

    def _untaken(self) -> list[WorkerInfo]:
        return [_info(worker) for worker in self.data.workers.values() if not worker.taken]

    # --- cluster -------------------------------------------------------------------------------------------

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        """See Store.lead."""
        now = (yield NOW)[0][0]
        leads = self.data.leads.get(name, ())
        for lead in after_set_back(leads, now):
            leads = self.data.leads[name] = tuple(lead if each.slot == lead.slot else each for each in leads)
        owner, term, leading, slot = grant(leads, holder, now, slots, self.data.terms.get("", 0))
        if leading:
            others = tuple(lead for lead in leads if lead.slot != slot)
            self.data.leads[name] = (*others, Lead(slot, holder, term, now + ttl, ttl))
        return Leadership(owner, term, leading)

    @plan
    def resign(self, name: str, holder: str) -> Steps[None]:
        """See Store.resign."""
        now = (yield NOW)[0][0]
        leads = self.data.leads.get(name, ())
        if leads:
            self.data.leads[name] = tuple(
                lead._replace(until=min(lead.until, now)) if lead.holder == holder else lead for lead in leads
            )

    def _prune_leads(self, before: int) -> None:
        for name, leads in list(self.data.leads.items()):
            old = [lead for lead in leads if lead.until < before]
            if old:
                self.data.terms[""] = max(self.data.terms.get("", 0), *(lead.term for lead in old))
                self.data.leads[name] = tuple(lead for lead in leads if lead not in old)
                if not self.data.leads[name]:
                    del self.data.leads[name]


def _token(row: Row) -> Token:
    return Token(row.new.id, row.fence)


def _policy(held: Held) -> Policy:
    try:
        return read_meta(held.meta).policy
    except msgspec.DecodeError:
        return Policy()  # one unreadable row must not keep its neighbours from being taken over (I23)


def _verdict(held: Held, death: Death) -> Outcome:
    guilt = dict(death.guilty).get(held.id)
    if guilt is not None:
        kind = guilt.replace("_", " ").title().replace(" ", "")
        return Failed(ErrorInfo(kind, death.detail), reason=guilt)
    if death.stopped:
        return Released(death.detail or "stopped")
    started = death.executing is None or held.id in death.executing
    return Lost(started, death.alone and started, death.explained, death.detail)


def _info(worker: Worker) -> WorkerInfo:
    said = worker.report
    return WorkerInfo(
        said.id,
        said.supervisor,
        said.host,
        said.pid,
        said.state,
        said.slots,
        said.busy,
        said.queues,
        said.tasks,
        worker.started_at,
        worker.beat_at,
        worker.lease_until,
        worker.taken,
    )
