"""The Redis store: plans only, whose statements are scripts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.msgpack import Decoder

from windlass.core.errors import ChildConflict, LeaseLost
from windlass.core.flow import Bounds, Full
from windlass.core.job import Attempt, Held, Job, KeyLimit, LogLine, NewJob, Progress, Settled, State, Token, Transition
from windlass.core.lead import Lead, after_set_back, grant
from windlass.core.machine import PARK_FIRST, PARK_MOST, decide
from windlass.ports.plan import Steps, plan
from windlass.ports.store import (
    KEY_KEEP,
    LOG_LINES,
    Backlog,
    BeatAnswer,
    Children,
    Claimed,
    ClaimRequest,
    DeadGroup,
    Death,
    Ending,
    Enqueued,
    Filter,
    Leadership,
    Page,
    Pending,
    Pruned,
    PruneRules,
    QueueChange,
    QueueRules,
    QueueStats,
    Reaped,
    Selected,
    Selection,
    Stats,
    Why,
    WorkerInfo,
    WorkerReport,
    token_hash,
)
from windlass.stores.memory.workers import _policy, _verdict
from windlass.stores.redis.asking import ask, raw
from windlass.stores.redis.given import given, move
from windlass.stores.redis.schedules import Scheduling

AHEAD = 10_000
"""Where the place in line stops being counted."""
TERMS = "terms"
"""Beside the leads, whose names begin with an n: the greatest term that was forgotten."""
LOOK = 2_000
"""Jobs that one script looks at on a walk."""

_enqueued = Decoder(list[tuple[Any, ...]]).decode
_granted = Decoder(tuple[list[Held], int | None, bool, bool, bool]).decode
_jobs = Decoder(list[Job | None]).decode
_attempts = Decoder(list[Attempt]).decode


class RedisStore(Scheduling):
    """Every operation of `ports.store.Store`."""

    capabilities = frozenset({"atomic_batch", "durable", "search"})

    # --- jobs --------------------------------------------------------------------------------------------------------

    @plan(hint=True)
    def enqueue(self, jobs: Sequence[NewJob]) -> Steps[list[Enqueued]]:
        """See Store.enqueue."""
        rows = _enqueued((yield from raw("enqueue", ([given(job) for job in jobs],))))
        return [
            Enqueued(
                id, stored, bool(more[:1] and more[0]), bool(more[1:] and more[1]), Full(*more[2]) if more[2:] else None
            )
            for id, stored, *more in rows
        ]

    @plan
    def claim(self, worker: str, seq: int, request: ClaimRequest) -> Steps[Claimed]:
        """See Store.claim."""
        quotas = [(quota.queue, quota.limit) for quota in request.quotas]
        park = (round(PARK_FIRST * 1e6), round(PARK_MOST * 1e6))
        asked = (worker, seq, request.limit, quotas, request.exclude, request.suspects, *park)
        return Claimed(*_granted((yield from raw("claim", asked))))

    @plan
    def claim_ids(self, worker: str, seq: int, ids: Sequence[str]) -> Steps[Claimed]:
        """See Store.claim_ids."""
        return Claimed(*_granted((yield from raw("claim_ids", (worker, seq, ids)))))

    @plan
    def settle(self, worker: str, transitions: Sequence[Transition]) -> Steps[list[Settled]]:
        """See Store.settle."""
        words, *conflict = yield from ask("settle", ([move(t) for t in transitions],))
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
        return [Token(*each) for each in (yield from ask("report", (latest, lines, LOG_LINES)))]

    @plan
    def once(self, token: Token, name: str, value: str | None) -> Steps[str | None]:
        """See Store.once."""
        runs, kept = yield from ask("once", (token.id, token.fence, name, value))
        if not runs:
            raise LeaseLost(token.id, f"job {token.id} was taken over: {name!r} was not recorded")
        return kept  # type: ignore[no-any-return]

    # --- grants ------------------------------------------------------------------------------------------------------

    @plan
    def recover(self, worker: str, seq: int) -> Steps[list[Held]]:
        """See Store.recover. A script has the server to itself, so the original is over."""
        return msgspec.convert((yield from ask("recover", (worker, seq))), list[Held])

    @plan(write=False)
    def held(self, worker: str) -> Steps[list[Token]]:
        """See Store.held."""
        return [Token(*each) for each in (yield from ask("held", (worker,)))]

    # --- workers -----------------------------------------------------------------------------------------------------

    @plan
    def beat(self, reports: Sequence[WorkerReport]) -> Steps[list[BeatAnswer]]:
        """See Store.beat."""
        said_ = [(r.id, r.hold, msgspec.json.encode(r).decode()) for r in reports]
        answers = []
        for said, (id, taken, cancel, tokens, lease) in zip(reports, (yield from ask("beat", (said_,))), strict=True):
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
            taken, may, rows = yield from ask("orphans", who)
            if not may:
                return Reaped(death.worker, taken=taken)
            orphans = msgspec.convert(rows, list[Held])
            moves = [decide(held, _policy(held), _verdict(held, death), dice.random()) for held in orphans]
            if (yield from ask("reap", (*who, [move(t) for t in moves]))):
                return Reaped(death.worker, taken=True, jobs=len(orphans))

    @plan(write=False)
    def lapsed(self, reaper: str) -> Steps[list[str]]:
        """See Store.lapsed."""
        return (yield from ask("lapsed", (reaper,)))  # type: ignore[no-any-return]

    @plan(write=False)
    def workers(self) -> Steps[list[WorkerInfo]]:
        """See Store.workers."""
        return [_info(*each) for each in (yield from ask("worker_list"))]

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
        asked = (action, ids, wanted, s.dry_run, s.delay, s.every, s.children, payload)
        found: dict[str, list[str]] = {"changed": [], "asked": [], "untouched": [], "missing": []}
        for id, word in zip(ids, (yield from ask("act", asked)), strict=True):
            found[word].append(id)
        return Selected(**{word: tuple(each) for word, each in found.items()}, next=ids[-1] if more else None)

    def _walk(self, wanted: Filter, limit: int, after: str | None, action: str | None = None) -> Steps[list[str]]:
        place = None if after is None else (yield from ask("seq_of", (after,)))
        found: list[str] = []
        while len(found) < limit:
            asked = (place, _filter(wanted), action, limit - len(found), LOOK)
            some, place = yield from ask("walk", asked)
            found += [id for id, _ in some]
            if place is None:
                break
        return found

    # --- time --------------------------------------------------------------------------------------------------------

    @plan
    def promote(self, limit: int) -> Steps[Claimed]:
        """See Store.promote."""
        due, more, suspects = yield from ask("promote", (limit,))
        return Claimed([], due, more, suspects=tuple(suspects))

    @plan
    def prune(self, rules: PruneRules, limit: int) -> Steps[Pruned]:
        """See Store.prune."""
        ages = {s.value: age for s in State if s.terminal and (age := getattr(rules, s.value)) is not None}
        asked = (ages, min(rules.keys, KEY_KEEP), rules.workers, limit)
        jobs, results, keys, workers, more = yield from ask("prune", asked)
        yield from self._prune_leads(rules.workers)
        return Pruned(jobs, results, keys, workers, done=not more)

    def chores(self, rules: PruneRules) -> Sequence[Any]:
        """See Store.chores."""
        return ()

    # --- reading -----------------------------------------------------------------------------------------------------

    @plan(write=False)
    def fetch(self, ids: Sequence[str]) -> Steps[list[Job | None]]:
        """See Store.fetch."""
        return _jobs((yield from raw("fetch", (ids,))))

    @plan(write=False)
    def attempts(self, job: str) -> Steps[list[Attempt]]:
        """See Store.attempts."""
        return _attempts((yield from raw("attempts", (job,))))

    @plan(write=False)
    def logs(self, job: str, after: int = 0) -> Steps[list[LogLine]]:
        """See Store.logs."""
        return [msgspec.json.decode(each, type=LogLine) for each in (yield from ask("logs", (job, after)))]

    @plan(write=False)
    def search(self, filter: Filter, limit: int, after: str | None = None) -> Steps[Page]:
        """See Store.search."""
        ids = yield from self._walk(filter, limit + 1, after)
        jobs = [job for job in _jobs((yield from raw("fetch", (ids[:limit],)))) if job is not None]
        return Page(jobs, ids[limit - 1] if len(ids) > limit else None)

    @plan(write=False)
    def stats(self, exact: bool = False) -> Steps[Stats]:
        """See Store.stats. Counted as jobs move, so these are always exact."""
        rows, heads, now = yield from ask("stats", (1_000,))
        rules = yield from self._rules()
        counts = {(state, queue): n for state, queue, n in rows}
        states = {s.value: sum(n for (state, _), n in counts.items() if state == s) for s in State}
        oldest: dict[str, int] = {}
        for queue, due in heads:
            oldest[queue] = min(due, oldest.get(queue, due))
        known = {queue for (state, queue), n in counts.items() if n and not State(state).terminal} | rules.keys()

        def of(queue: str, *names: str) -> int:
            return sum(counts.get((name, queue), 0) for name in names)

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
        said = [
            (c.queue, c.paused, c.limit, None if c.bounds is None else msgspec.to_builtins(c.bounds)) for c in changes
        ]
        rows = yield from ask("queues", (said,))
        return {
            queue: QueueRules(
                each.get("paused", False), each.get("limit"), msgspec.convert(each.get("bounds", {}), Bounds)
            )
            for queue, each in rows
        }

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        """See Store.lead."""
        while True:
            kept, now = yield from ask("cas_get", ("leads", "n" + name))
            terms, _ = yield from ask("cas_get", ("leads", TERMS))
            leads = _leads(kept)
            cut = {lead.slot: lead for lead in after_set_back(leads, now)}
            leads = [cut.get(lead.slot, lead) for lead in leads]
            owner, term, leading, slot = grant(leads, holder, now, slots, int(terms or 0))
            if leading:
                leads = [lead for lead in leads if lead.slot != slot] + [Lead(slot, holder, term, now + ttl, ttl)]
            fields = [("n" + name, kept, _text(leads)), (TERMS, terms, terms)]
            if not (leading or cut) or (yield from ask("cas_put", ("leads", fields))):
                return Leadership(owner, term, leading)

    @plan
    def resign(self, name: str, holder: str) -> Steps[None]:
        """See Store.resign."""
        while True:
            kept, now = yield from ask("cas_get", ("leads", "n" + name))
            leads = [
                lead._replace(until=min(lead.until, now)) if lead.holder == holder else lead for lead in _leads(kept)
            ]
            if kept is None or (yield from ask("cas_put", ("leads", [("n" + name, kept, _text(leads))]))):
                return

    def _prune_leads(self, age: int) -> Steps[None]:
        """Locks have names without number. Their terms must go on growing all the same."""
        flat, now = yield from ask("cas_get", ("leads", None))
        kept = dict(zip(flat[::2], flat[1::2], strict=True))
        terms = kept.pop(TERMS, None)
        for name, text in kept.items():
            leads = _leads(text)
            old = [lead for lead in leads if lead.until < now - age]
            if old:
                greatest = str(max(int(terms or 0), *(lead.term for lead in old)))
                left = [lead for lead in leads if lead not in old]
                fields = [(name, text, _text(left) if left else None), (TERMS, terms, greatest)]
                if not (yield from ask("cas_put", ("leads", fields))):
                    return  # another time
                terms = greatest

    @plan(hint=True)
    def fan_out(self, token: Token, name: str, after: int, jobs: Sequence[NewJob]) -> Steps[int]:
        """See Store.fan_out."""
        asked = (token.id, token.fence, name, after, [given(job) for job in jobs])
        runs, count = yield from ask("fan_out", asked)
        if not runs:
            raise LeaseLost(token.id, f"job {token.id} was taken over: it fans out no more")
        return int(count)

    # --- surveys -----------------------------------------------------------------------------------------------------

    @plan(write=False)
    def why(self, job: str) -> Steps[Why | None]:
        """See Store.why."""
        facts = yield from ask("why", (job, AHEAD, AHEAD))
        if facts is None:
            return None
        found, now, paused, ahead, workers, attempts, limit, running, owner, awaited, state, most, busy = facts
        return Why(
            job=msgspec.convert(found, Job),
            now=now,
            paused=paused,
            ahead=ahead,
            workers=tuple(_info(*each) for each in workers),
            attempts=msgspec.convert(attempts, tuple[Attempt, ...]),
            limit=None if limit is None else KeyLimit(*limit),
            running=running,
            owner=owner,
            awaited=awaited,
            awaited_state=None if state is None else State(state),
            queue_limit=most,
            queue_running=busy,
        )

    @plan(write=False)
    def backlog(self, limit: int, after: str | None = None) -> Steps[Backlog]:
        """See Store.backlog. In the order of enqueue; `next` is the number of the last job."""
        place = int(after or 0)
        found: list[Pending] = []
        while len(found) < limit:
            some, reached = yield from ask("backlog", (place, limit - len(found), LOOK))
            found += [msgspec.convert(each, Pending) for each in some]
            if reached is None:
                return Backlog(found, None)
            place = reached
        return Backlog(found, str(place))

    @plan(write=False)
    def children(self, parents: Sequence[str], limit: int, after: str | None = None) -> Steps[Children]:
        """See Store.children. `next` is the place of the last one's parent, and its own."""
        parent, seq = (1, 0) if after is None else msgspec.json.decode(after)
        found = yield from ask("families", (parents, parent, seq, limit))
        last = msgspec.json.encode(found[-1][1:]).decode() if len(found) == limit else None
        return Children([each[0] for each in found], last)

    @plan(write=False)
    def dead_groups(self, limit: int) -> Steps[list[DeadGroup]]:
        """See Store.dead_groups."""
        groups = [
            DeadGroup(name, count, first, last, msgspec.convert(job, Job))
            for name, count, first, last, job in (yield from ask("dead"))
        ]
        return sorted(groups, key=lambda group: (-group.count, group.fingerprint))[:limit]

    @plan(write=False)
    def endings(self, limit: int) -> Steps[list[Ending]]:
        """See Store.endings."""
        return msgspec.convert((yield from ask("endings", (limit, 20 * limit))), list[Ending])

    @plan
    def migrate(self) -> Steps[int]:
        """See Store.migrate."""
        yield from ask("now")
        return 1

    @plan(write=False)
    def version(self) -> Steps[int]:
        """See Store.version."""
        yield from ask("now")
        return 1

    @plan(write=False)
    def audit(self) -> Steps[list[str]]:
        """See Store.audit."""
        return (yield from ask("audit"))  # type: ignore[no-any-return]


def _answer(
    id: str, inserted: bool, conflict: bool = False, refused: bool = False, full: list[Any] | None = None
) -> Enqueued:
    return Enqueued(id, inserted, conflict, refused, Full(*full) if full else None)


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
