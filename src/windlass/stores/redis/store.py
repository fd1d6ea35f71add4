"""The Redis store: plans only, whose statements are scripts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.msgpack import Decoder

from windlass.core.errors import ChildConflict, LeaseLost
from windlass.core.family import parent_of
from windlass.core.flow import Bounds, Full, limits_of
from windlass.core.job import Attempt, Held, Job, LogLine, NewJob, Progress, Settled, State, Token, Transition
from windlass.core.lead import Lead, after_set_back, grant
from windlass.core.machine import PARK_FIRST, PARK_MOST, decide
from windlass.core.unique import unique_of
from windlass.ports.plan import Statement, Steps, plan
from windlass.ports.store import (
    KEY_KEEP,
    LOG_LINES,
    BeatAnswer,
    Claimed,
    ClaimRequest,
    Death,
    Enqueued,
    Filter,
    Leadership,
    Page,
    Pruned,
    PruneRules,
    QueueChange,
    QueueRules,
    QueueStats,
    Reaped,
    Selected,
    Selection,
    Stats,
    WorkerInfo,
    WorkerReport,
    token_hash,
)
from windlass.stores.memory.workers import _policy, _verdict

LOOK = 2_000
"""Jobs that one script looks at on a walk."""

_enqueued = Decoder(list[tuple[Any, ...]]).decode
_granted = Decoder(tuple[list[Held], int | None, bool, bool, bool]).decode
_jobs = Decoder(list[Job | None]).decode
_attempts = Decoder(list[Attempt]).decode
_any = Decoder().decode


def _given(job: NewJob) -> tuple[Any, ...]:
    """As store.lua takes it."""
    limits = limits_of(job.meta)
    unique = unique_of(job.meta)
    return (
        *(job.id, job.task, job.version, job.tenant, job.queue, job.priority, job.head_start, job.meta, job.payload),
        *(job.idempotency_key, job.digest, job.after, job.at, job.expires_after, job.expires_at),
        [(limit.key, limit.most) for limit in limits] or None,
        (unique.key, unique.policy, unique.max_wait, unique.window) if unique else None,
        parent_of(job.meta) or None,
    )


def _move(t: Transition) -> tuple[Any, ...]:
    """As settle_one.lua takes it."""
    return (
        *(t.id, t.fence, t.state.value, t.outcome, t.reason, t.after, t.result, t.error, t.charged, t.crash, t.loss),
        *(t.suspect, t.keep_rank, t.cancel_wins, t.result_ttl, [_given(child) for child in t.children]),
    )


class RedisStore:
    """Every operation of `ports.store.Store`."""

    capabilities = frozenset({"atomic_batch", "durable", "search"})

    # --- jobs --------------------------------------------------------------------------------------------------------

    @plan(hint=True)
    def enqueue(self, jobs: Sequence[NewJob]) -> Steps[list[Enqueued]]:
        """See Store.enqueue."""
        rows = _enqueued((yield Statement("enqueue", ([_given(job) for job in jobs],))))
        return [
            Enqueued(id, stored, bool(more and more[0]), bool(more[1:] and more[1]), Full(*more[2]) if more[2:] else None)
            for id, stored, *more in rows
        ]

    @plan
    def claim(self, worker: str, seq: int, request: ClaimRequest) -> Steps[Claimed]:
        """See Store.claim."""
        quotas = [(quota.queue, quota.limit) for quota in request.quotas]
        park = (round(PARK_FIRST * 1e6), round(PARK_MOST * 1e6))
        given = (worker, seq, request.limit, quotas, request.exclude, request.suspects, *park)
        return Claimed(*_granted((yield Statement("claim", given))))

    @plan
    def claim_ids(self, worker: str, seq: int, ids: Sequence[str]) -> Steps[Claimed]:
        """See Store.claim_ids."""
        return Claimed(*_granted((yield Statement("claim_ids", (worker, seq, ids)))))

    @plan
    def settle(self, worker: str, transitions: Sequence[Transition]) -> Steps[list[Settled]]:
        """See Store.settle."""
        words, *conflict = _any((yield Statement("settle", ([_move(t) for t in transitions],))))
        if words is None:
            raise ChildConflict(*conflict[0])
        return [Settled(word) for word in words]

    @plan
    def report(
        self, progress: Sequence[tuple[Token, Progress]], logs: Sequence[tuple[Token, LogLine]]
    ) -> Steps[list[Token]]:
        """See Store.report."""
        latest = [(t.id, t.fence, msgspec.json.encode(said).decode()) for t, said in progress]
        lines = [(t.id, t.fence, msgspec.json.encode(line).decode()) for t, line in logs]
        return [Token(*each) for each in _any((yield Statement("report", (latest, lines, LOG_LINES))))]

    @plan
    def once(self, token: Token, name: str, value: str | None) -> Steps[str | None]:
        """See Store.once."""
        runs, kept = _any((yield Statement("once", (token.id, token.fence, name, value))))
        if not runs:
            raise LeaseLost(token.id, f"job {token.id} was taken over: {name!r} was not recorded")
        return kept  # type: ignore[no-any-return]

    # --- grants ------------------------------------------------------------------------------------------------------

    @plan
    def recover(self, worker: str, seq: int) -> Steps[list[Held]]:
        """See Store.recover. A script has the server to itself, so the original is over."""
        return msgspec.convert(_any((yield Statement("recover", (worker, seq)))), list[Held])

    @plan(write=False)
    def held(self, worker: str) -> Steps[list[Token]]:
        """See Store.held."""
        return [Token(*each) for each in _any((yield Statement("held", (worker,))))]

    # --- workers -----------------------------------------------------------------------------------------------------

    @plan
    def beat(self, reports: Sequence[WorkerReport]) -> Steps[list[BeatAnswer]]:
        """See Store.beat."""
        given = [(r.id, r.hold, msgspec.json.encode(r).decode()) for r in reports]
        answers = []
        for said, (id, taken, cancel, tokens, lease) in zip(reports, _any((yield Statement("beat", (given,)))), strict=True):
            mixed = 0
            for token in tokens:
                mixed ^= token_hash(Token(*token))
            mismatch = not taken and (said.held, said.held_hash) != (len(tokens), mixed)
            answers.append(BeatAnswer(id, taken, tuple(cancel), mismatch, lease))
        return answers

    @plan
    def reap(self, deaths: Sequence[Death]) -> Steps[list[Reaped]]:
        """See Store.reap."""
        dice = [random.Random() for _ in deaths]
        answers = []
        for death, each in zip(deaths, dice, strict=True):
            answers.append((yield from self._reap(death, each)))
        return answers

    def _reap(self, death: Death, dice: random.Random) -> Steps[Reaped]:
        """Decided here, and done if it is still so."""
        who = (death.worker, death.reaper, death.observed)
        while True:
            taken, may, rows = _any((yield Statement("orphans", who)))
            if not may:
                return Reaped(death.worker, taken=taken)
            orphans = msgspec.convert(rows, list[Held])
            moves = [decide(held, _policy(held), _verdict(held, death), dice.random()) for held in orphans]
            if _any((yield Statement("reap", (*who, [_move(t) for t in moves])))):
                return Reaped(death.worker, taken=True, jobs=len(orphans))

    @plan(write=False)
    def lapsed(self, reaper: str) -> Steps[list[str]]:
        """See Store.lapsed."""
        return _any((yield Statement("lapsed", (reaper,))))  # type: ignore[no-any-return]

    @plan(write=False)
    def workers(self) -> Steps[list[WorkerInfo]]:
        """See Store.workers."""
        return [_info(*each) for each in _any((yield Statement("worker_list")))]

    # --- operator ----------------------------------------------------------------------------------------------------

    @plan
    def cancel(self, selection: Selection) -> Steps[Selected]:
        """See Store.cancel."""
        return (yield from self._act("cancel", selection))

    @plan
    def revive(self, selection: Selection) -> Steps[Selected]:
        """See Store.revive."""
        return (yield from self._act("revive", selection))

    @plan
    def edit(self, job: str, payload: str) -> Steps[Selected]:
        """See Store.edit."""
        return (yield from self._act("edit", Selection((job,)), payload))

    @plan
    def delete(self, selection: Selection) -> Steps[Selected]:
        """See Store.delete."""
        return (yield from self._act("delete", selection))

    def _act(self, action: str, s: Selection, payload: str | None = None) -> Steps[Selected]:
        wanted = None if s.filter is None else _filter(s.filter)
        ids, more = list(dict.fromkeys(s.ids)), False
        if s.filter is not None and not s.ids:
            ids = yield from self._walk(s.filter, s.limit, s.after, action)
            more = len(ids) == s.limit
        given = (action, ids, wanted, s.dry_run, s.delay, s.every, s.children, payload)
        found: dict[str, list[str]] = {"changed": [], "asked": [], "untouched": [], "missing": []}
        for id, word in zip(ids, _any((yield Statement("act", given))), strict=True):
            found[word].append(id)
        return Selected(**{word: tuple(each) for word, each in found.items()}, next=ids[-1] if more else None)

    def _walk(self, wanted: Filter, limit: int, after: str | None, action: str | None = None) -> Steps[list[str]]:
        place = None if after is None else _any((yield Statement("seq_of", (after,))))
        found: list[str] = []
        while len(found) < limit:
            given = (place, _filter(wanted), action, limit - len(found), LOOK)
            some, place = _any((yield Statement("walk", given)))
            found += [id for id, _ in some]
            if place is None:
                break
        return found

    # --- time --------------------------------------------------------------------------------------------------------

    @plan
    def promote(self, limit: int) -> Steps[Claimed]:
        """See Store.promote."""
        due, more, suspects = _any((yield Statement("promote", (limit,))))
        return Claimed([], due, more, suspects=tuple(suspects))

    @plan
    def prune(self, rules: PruneRules, limit: int) -> Steps[Pruned]:
        """See Store.prune."""
        ages = {s.value: age for s in State if s.terminal and (age := getattr(rules, s.value)) is not None}
        given = (ages, min(rules.keys, KEY_KEEP), rules.workers, limit)
        jobs, results, keys, workers, more = _any((yield Statement("prune", given)))
        return Pruned(jobs, results, keys, workers, done=not more)

    def chores(self, rules: PruneRules) -> Sequence[Any]:
        """See Store.chores."""
        return ()

    # --- reading -----------------------------------------------------------------------------------------------------

    @plan(write=False)
    def fetch(self, ids: Sequence[str]) -> Steps[list[Job | None]]:
        """See Store.fetch."""
        return _jobs((yield Statement("fetch", (ids,))))

    @plan(write=False)
    def attempts(self, job: str) -> Steps[list[Attempt]]:
        """See Store.attempts."""
        return _attempts((yield Statement("attempts", (job,))))

    @plan(write=False)
    def logs(self, job: str, after: int = 0) -> Steps[list[LogLine]]:
        """See Store.logs."""
        return [msgspec.json.decode(each, type=LogLine) for each in _any((yield Statement("logs", (job, after))))]

    @plan(write=False)
    def search(self, filter: Filter, limit: int, after: str | None = None) -> Steps[Page]:
        """See Store.search."""
        ids = yield from self._walk(filter, limit + 1, after)
        jobs = [job for job in _jobs((yield Statement("fetch", (ids[:limit],)))) if job is not None]
        return Page(jobs, ids[limit - 1] if len(ids) > limit else None)

    @plan(write=False)
    def stats(self, exact: bool = False) -> Steps[Stats]:
        """See Store.stats. Counted as jobs move, so these are always exact."""
        rows, heads, now = _any((yield Statement("stats", (1_000,))))
        rules = yield from self._rules()
        counts = {(state, queue): n for state, queue, n in rows}
        states = {s.value: sum(n for (state, _), n in counts.items() if state == s) for s in State}
        oldest: dict[str, int] = {}
        for queue, due in heads:
            oldest[queue] = min(due, oldest.get(queue, due))
        known = {queue for (state, queue), n in counts.items() if n and not State(state).terminal} | rules.keys()
        of = lambda queue, *names: sum(counts.get((name, queue), 0) for name in names)
        queues = [
            QueueStats(
                queue,
                rules.get(queue, QueueRules()).paused,
                queued=of(queue, "queued"),
                waiting=of(queue, "scheduled", "retrying"),
                running=of(queue, "running"),
                oldest_due=max(0, now - oldest[queue]) if queue in oldest else None,
                blocked=of(queue, "blocked"),
                limit=rules.get(queue, QueueRules()).limit,
                bounds=rules.get(queue, QueueRules()).bounds,
            )
            for queue in sorted(known)
        ]
        return Stats(states, queues, now, exact=True)

    # --- queues, cluster, schema -------------------------------------------------------------------------------------

    @plan
    def queues(self, changes: Sequence[QueueChange] = ()) -> Steps[dict[str, QueueRules]]:
        """See Store.queues."""
        return (yield from self._rules(changes))

    def _rules(self, changes: Sequence[QueueChange] = ()) -> Steps[dict[str, QueueRules]]:
        given = [(c.queue, c.paused, c.limit, None if c.bounds is None else msgspec.to_builtins(c.bounds)) for c in changes]
        rows = _any((yield Statement("queues", (given,))))
        return {
            queue: QueueRules(said.get("paused", False), said.get("limit"), msgspec.convert(said.get("bounds", {}), Bounds))
            for queue, said in rows
        }

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        """See Store.lead."""
        while True:
            kept, terms, now = _any((yield Statement("lead_get", (name,))))
            leads = _leads(kept)
            cut = {lead.slot: lead for lead in after_set_back(leads, now)}
            leads = [cut.get(lead.slot, lead) for lead in leads]
            owner, term, leading, slot = grant(leads, holder, now, slots, terms)
            if leading:
                leads = [lead for lead in leads if lead.slot != slot] + [Lead(slot, holder, term, now + ttl, ttl)]
            if not (leading or cut) or _any((yield Statement("lead", (name, kept, _text(leads))))):
                return Leadership(owner, term, leading)

    @plan
    def resign(self, name: str, holder: str) -> Steps[None]:
        """See Store.resign."""
        while True:
            kept, _, now = _any((yield Statement("lead_get", (name,))))
            leads = [
                lead._replace(until=min(lead.until, now)) if lead.holder == holder else lead for lead in _leads(kept)
            ]
            if kept is None or _any((yield Statement("lead", (name, kept, _text(leads))))):
                return

    @plan
    def migrate(self) -> Steps[int]:
        """See Store.migrate."""
        yield Statement("now")
        return 1

    @plan(write=False)
    def version(self) -> Steps[int]:
        """See Store.version."""
        yield Statement("now")
        return 1

    @plan(write=False)
    def audit(self) -> Steps[list[str]]:
        """See Store.audit."""
        return _any((yield Statement("audit")))  # type: ignore[no-any-return]


def _leads(kept: str | None) -> list[Lead]:
    return [] if kept is None else msgspec.json.decode(kept, type=list[Lead])


def _text(leads: list[Lead]) -> str:
    return msgspec.json.encode(leads).decode()


def _filter(f: Filter) -> dict[str, Any]:
    said = {name: v for name in f.__struct_fields__ if (v := getattr(f, name)) is not None}
    if "until" in said:  # a word of Lua's
        said["until_"] = said.pop("until")
    return said


def _info(id: str, report: str, started: int, beat: int, lease: int) -> WorkerInfo:
    r = msgspec.json.decode(report, type=WorkerReport)
    said = (id, r.supervisor, r.host, r.pid, r.state, r.slots, r.busy, r.queues, r.tasks)
    return WorkerInfo(*said, started, beat, lease, False)
