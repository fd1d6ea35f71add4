"""The Redis store: plans only, whose statements are scripts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.msgpack import Decoder

from windlass.core.errors import ChildConflict, LeaseLost, SchemaError
from windlass.core.flow import Full
from windlass.core.job import Attempt, Held, Job, KeyLimit, LogLine, NewJob, Progress, Settled, State, Token, Transition
from windlass.core.machine import PARK_FIRST, PARK_MOST
from windlass.ports.plan import Plan, Steps, plan
from windlass.ports.store import (
    DEPARTED_KEEP,
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
from windlass.ports.takeover import verdict
from windlass.stores.redis.asking import ask, raw
from windlass.stores.redis.departure import Departing, rules
from windlass.stores.redis.given import given, move

AHEAD = 10_000
"""Where the place in line stops being counted."""
LABELS = 8
"""Labels, each of 256 jobs, that one chore looks at."""
HEADS = 100
"""Of each queue, the first in line among which the one that waits longest is looked for."""
SCHEMA = 1
LOOK = 2_000
"""Jobs that one script looks at on a walk."""

class _Facts(msgspec.Struct, frozen=True, array_like=True):
    """What why.lua answers."""

    job: Job
    now: int
    paused: bool
    ahead: int
    workers: list[tuple[str, str, int, int, int]]
    attempts: tuple[Attempt, ...]
    limit: KeyLimit | None
    running: int
    owner: str | None
    awaited: str | None
    awaited_state: State | None
    queue_limit: int | None
    queue_running: int


_enqueued = Decoder(list[tuple[Any, ...]]).decode
_granted = Decoder(tuple[list[Held], int | None, bool, bool, bool]).decode
_jobs = Decoder(list[Job | None]).decode
_attempts = Decoder(list[Attempt]).decode
_held = Decoder(list[Held]).decode
_orphans = Decoder(list[tuple[bool, bool, list[Held]]]).decode
_facts = Decoder(_Facts | None).decode


class RedisStore(Departing):
    """Every operation of `ports.store.Store`."""

    capabilities = frozenset({"atomic_batch", "durable", "push", "search"})

    def __init__(self) -> None:
        self._label: bytes | None = None
        """The one up to which it was seen whether they are still true."""

    # --- jobs --------------------------------------------------------------------------------------------------------

    @plan(hint=True)
    def enqueue(self, jobs: Sequence[NewJob], *, whole: bool = False) -> Steps[list[Enqueued]]:
        """See Store.enqueue."""
        rows = _enqueued((yield from raw("enqueue", ([given(job) for job in jobs], whole))))
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
        return _held((yield from raw("recover", (worker, seq))))

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

    def reap(self, deaths: Sequence[Death]) -> Plan[list[Reaped]]:
        """See Store.reap."""
        chance = random.random()
        return Plan(lambda: self._reap(deaths, chance), "reap", write=True)

    def _reap(self, deaths: Sequence[Death], chance: float) -> Steps[list[Reaped]]:
        """Decided here, and done if it is still so."""
        who = [(death.worker, death.reaper, death.observed) for death in deaths]
        while True:
            answers, asked, over = [], [], set[str]()
            orphans = _orphans((yield from raw("orphans", (who,))))
            for death, (gone, there, jobs) in zip(deaths, orphans, strict=True):
                # As if they came one after the other: who is taken is judged once, and judges nobody.
                may = there and death.worker not in over and (death.observed or death.reaper not in over)
                answers.append(Reaped(death.worker, gone or may or death.worker in over, len(jobs) if may else 0))
                if may:
                    over.add(death.worker)
                    moves = [move(verdict(held, death, chance)) for held in jobs]
                    asked.append((death.worker, death.reaper, death.observed, moves))
            if not asked or (yield from ask("reap", (asked,))):
                return answers

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
        first, before = 0, None
        if wanted.since is not None or wanted.until is not None:
            first, before = yield from ask("hours", (wanted.since, wanted.until))
        if after is not None:
            place = yield from ask("seq_of", (after,))
            before = place if before is None else min(place, before)
        found: list[str] = []
        while len(found) < limit:
            some, before = yield from ask("walk", (before, first, _filter(wanted), action, limit - len(found), LOOK))
            found += some
            if before is None:
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
        leads = yield from self._forgettable(rules.workers)
        asked = (ages, min(rules.keys, KEY_KEEP), rules.workers, limit, DEPARTED_KEEP, leads)
        jobs, results, keys, workers, more = yield from ask("prune", asked)
        return Pruned(jobs, results, keys, workers, done=not more)

    def chores(self, rules: PruneRules) -> Sequence[Any]:
        """See Store.chores."""
        return (self._relabel(),)

    @plan
    def _relabel(self) -> Steps[bool]:
        """A few labels each time, round and round."""
        more, last = yield from ask("relabel", (self._label, LABELS))
        self._label = last if more else None
        return False

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
        rows, heads, now, said = yield from ask("stats", (HEADS,))
        known_rules = {queue: rules(each) for queue, each in said}
        counts = {(state, queue): n for state, queue, n in rows}
        states = {s.value: sum(n for (state, _), n in counts.items() if state == s) for s in State}
        oldest: dict[str, int] = {}
        for queue, due in heads:
            oldest[queue] = min(due, oldest.get(queue, due))
        known = {queue for (state, queue), n in counts.items() if n and not State(state).terminal} | known_rules.keys()

        def of(queue: str, *names: str) -> int:
            return sum(counts.get((name, queue), 0) for name in names)

        queues = [
            QueueStats(
                queue,
                known_rules.get(queue, QueueRules()).paused,
                queued=of(queue, "queued"),
                waiting=of(queue, "scheduled", "retrying"),
                running=of(queue, "running"),
                oldest_due=max(0, now - oldest[queue]) if queue in oldest else None,
                blocked=of(queue, "blocked"),
                limit=known_rules.get(queue, QueueRules()).limit,
                bounds=known_rules.get(queue, QueueRules()).bounds,
            )
            for queue in sorted(known)
        ]
        return Stats(states, queues, now, exact=True)

    # --- queues, cluster, schema -------------------------------------------------------------------------------------

    @plan
    def queues(self, changes: Sequence[QueueChange] = ()) -> Steps[dict[str, QueueRules]]:
        """See Store.queues."""
        said = [
            (c.queue, c.paused, c.limit, None if c.bounds is None else msgspec.to_builtins(c.bounds)) for c in changes
        ]
        rows = (yield from ask("queues", (said,))) if said else (yield from ask("rules"))
        return {queue: rules(each) for queue, each in rows}

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
        facts = _facts((yield from raw("why", (job, AHEAD, AHEAD))))
        if facts is None:
            return None
        return Why(
            job=facts.job,
            now=facts.now,
            paused=facts.paused,
            ahead=facts.ahead,
            workers=tuple(_info(*each) for each in facts.workers),
            attempts=facts.attempts,
            limit=facts.limit,
            running=facts.running,
            owner=facts.owner,
            awaited=facts.awaited,
            awaited_state=facts.awaited_state,
            queue_limit=facts.queue_limit,
            queue_running=facts.queue_running,
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
        groups: dict[str, list[tuple[int, str]]] = {}
        before = None
        while True:
            some, before = yield from ask("dead", (before, LOOK))
            for fingerprint, died, id in some:
                groups.setdefault(fingerprint, []).append((died, id))
            if before is None:
                break
        chosen = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))[:limit]
        # Newest first, so of those that died at one moment the first met is the one enqueued last.
        latest = [max(dead, key=lambda each: each[0]) for _, dead in chosen]
        jobs = _jobs((yield from raw("fetch", ([id for _, id in latest],))))
        return [
            DeadGroup(name, len(dead), min(dead)[0], died, job)
            for (name, dead), (died, _), job in zip(chosen, latest, jobs, strict=True)
            if job is not None
        ]

    @plan(write=False)
    def endings(self, limit: int) -> Steps[list[Ending]]:
        """See Store.endings."""
        return msgspec.convert((yield from ask("endings", (limit, 20 * limit))), list[Ending])

    @plan
    def migrate(self) -> Steps[int]:
        """See Store.migrate."""
        version, _ = yield from ask("migrate", (SCHEMA, 1))
        if version > SCHEMA:
            raise SchemaError(f"the store has schema {version}, newer than this version of Windlass knows ({SCHEMA})")
        return int(version)

    @plan(write=False)
    def version(self) -> Steps[int]:
        """See Store.version."""
        return (yield from ask("version"))[0]  # type: ignore[no-any-return]

    @plan(write=False)
    def audit(self) -> Steps[list[str]]:
        """See Store.audit."""
        return (yield from ask("audit"))  # type: ignore[no-any-return]


def _filter(f: Filter) -> dict[str, Any]:
    said = {name: v for name in f.__struct_fields__ if (v := getattr(f, name)) not in (None, ())}
    if "until" in said:  # a word of Lua's
        said["until_"] = said.pop("until")
    return said


def _info(id: str, report: str, started: int, beat: int, lease: int) -> WorkerInfo:
    r = msgspec.json.decode(report, type=WorkerReport)
    said = (id, r.supervisor, r.host, r.pid, r.state, r.slots, r.busy, r.queues, r.tasks)
    return WorkerInfo(*said, started, beat, lease, False)
