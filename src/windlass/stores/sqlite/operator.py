"""What operators do to jobs, and what time does to old ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from windlass.core.job import TERMINAL, State
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.ports.store import KEY_KEEP, Filter, Pruned, PruneRules, QueueChange, Selected, Selection
from windlass.stores.sqlite.enqueue import as_json
from windlass.stores.sqlite.reading import Reading

EARLY = frozenset({State.SCHEDULED, State.RETRYING})
WAITING = EARLY | {State.QUEUED, State.BLOCKED}
EVERY = 2**31
STILL = WAITING | TERMINAL
"""All but running."""


class Place(NamedTuple):
    """Where a job lies, as much as moving it takes."""

    id: str
    seq: int
    state: State
    fence: int
    lane: int
    queue: str
    rank: int
    meta: str


class Operator(Reading):
    """The operations by ids or by filter; each answers what it changed, and changes nothing on a dry run."""

    @plan
    def cancel(self, selection: Selection) -> Steps[Selected]:
        """See Store.cancel."""
        now = (yield NOW)[0][0]
        places, missing = yield from self._places(selection, WAITING | {State.RUNNING})
        waiting = [p for p in places if p.state in WAITING]
        running = [p for p in places if p.state is State.RUNNING]
        if not selection.dry_run:
            yield from self._unplace(waiting)
            ended = [(p.seq, State.CANCELLED.value, "cancelled", now, p.fence) for p in waiting]
            yield Statement("ended_insert_unrun", many=ended)
            yield Statement("held_cancel", many=[(p.id,) for p in running])
        return _selected(places, waiting, missing, asked=running)

    @plan
    def revive(self, selection: Selection) -> Steps[Selected]:
        """See Store.revive."""
        now = (yield NOW)[0][0]
        places, missing = yield from self._places(selection, TERMINAL | EARLY)
        changed = [p for p in places if p.state.terminal or p.state in EARLY]
        due = {p.seq: now + selection.delay + n * selection.every for n, p in enumerate(changed)}
        early = [p for p in changed if not p.state.terminal]
        if not selection.dry_run:
            for p in changed:
                if p.state.terminal:
                    fence = (yield Statement("ended_fence", (p.seq,)))[0][0]
                    yield Statement("attempt_from_ended", (p.seq,))
                    yield Statement("ended_remove", (p.seq,))
                    yield Statement("job_revive", (max(fence + 1, p.fence + 1, now), due[p.seq], p.seq))
            yield Statement("waiting_remove", many=[(p.seq,) for p in early])
            yield Statement("job_due_at", many=[(due[p.seq], p.seq) for p in early])
            later = [(seq, at, State.SCHEDULED.value, "redriven") for seq, at in due.items() if at > now]
            yield Statement("waiting_insert", many=later)
            yield Statement("ready_insert", many=[(seq,) for seq, at in due.items() if at <= now])
        return _selected(places, changed, missing)

    @plan
    def edit(self, job: str, payload: str) -> Steps[Selected]:
        """See Store.edit."""
        places, missing = yield from self._places(Selection((job,)), STILL)
        still = [p for p in places if p.state is not State.RUNNING]
        yield Statement("job_edit", many=[(payload, p.seq) for p in still])
        return _selected(places, still, missing)

    @plan
    def delete(self, selection: Selection) -> Steps[Selected]:
        """See Store.delete."""
        places, missing = yield from self._places(selection, STILL)
        still = [p for p in places if p.state is not State.RUNNING]
        if not selection.dry_run:
            yield from self._unplace([p for p in still if not p.state.terminal])
            yield Statement("keys_drop_of", many=[(p.seq,) for p in still])
            yield from self._drop([p.seq for p in still])
        return _selected(places, still, missing)

    def _places(
        self, selection: Selection, states: frozenset[State]
    ) -> Steps[tuple[list[Place], tuple[str, ...]]]:
        """What was selected, and the ids that are not there. A filter finds only jobs in `states`, which the action
        can change: else a thousand that it cannot would hide the rest for ever."""
        ids: Sequence[str] = selection.ids
        if selection.filter is not None:
            ids = yield from self._found(selection.filter, states, selection.limit, selection.after)
        rows = yield Statement("places_by_id", (as_json(list(dict.fromkeys(ids))),))
        places = [Place(r[0], r[1], State(r[2]), *r[3:]) for r in rows]
        known = {p.id for p in places}
        return places, tuple(i for i in ids if i not in known)

    def _found(
        self, filter: Filter, states: frozenset[State], limit: int, after: str | None
    ) -> Steps[list[str]]:
        wanted = states & set(filter.states) if filter.states else states
        ids: list[str] = []
        # Those that run are few; of them, those that were asked to cancel before are not asked again.
        for part, most in ((wanted & {State.RUNNING}, EVERY), (wanted - {State.RUNNING}, limit)):
            if part:
                narrow = msgspec.structs.replace(filter, states=tuple(sorted(part)))
                found = yield from self._search(narrow, most, after)
                ids += [job.id for job in found if not job.cancelling]
        return ids[:limit]

    def _unplace(self, places: Sequence[Place]) -> Steps[None]:
        queued = [(p.lane, p.queue, p.rank, p.seq) for p in places if p.state is State.QUEUED]
        yield Statement("ready_remove", many=queued)
        yield Statement("waiting_remove", many=[(p.seq,) for p in places])

    def _drop(self, seqs: Sequence[int]) -> Steps[None]:
        rows = [(seq,) for seq in seqs]
        for table in ("ended", "attempts", "once", "progress", "logs", "job"):
            yield Statement(f"drop_{table}", many=rows)

    @plan
    def prune(self, rules: PruneRules, limit: int) -> Steps[Pruned]:
        """See Store.prune. Walks `ended` in slices, remembering where it stopped: an index on the time of the end
        would cost every job a b-tree write to save this walk a few reads."""
        now = (yield NOW)[0][0]
        mark = yield Statement("mark_get", ("prune",))
        start = mark[0][0] if mark else 0
        rows = yield Statement("prune_slice", (start, limit))
        keep = {s: getattr(rules, s.value) for s in State if s.terminal}
        old = [r[0] for r in rows if (age := keep[State(r[1])]) is not None and r[2] + age <= now]
        gone = set(old)
        stale = [(r[0],) for r in rows if r[0] not in gone and r[3] and r[4] is not None and r[4] <= now]
        early = KEY_KEEP - min(rules.keys, KEY_KEEP)
        spent = [(r[0],) for r in rows if r[2] + KEY_KEEP - early <= now]
        keys = yield from self._count("keys_drop_of", many=spent)
        yield Statement("keys_outlive", many=[(KEY_KEEP, seq) for seq in old])
        yield from self._drop(old)
        yield Statement("result_drop", many=stale)
        done = len(rows) < limit
        yield Statement("mark_put", ("prune", 0 if done else rows[-1][0]))
        keys += yield from self._count("keys_prune", (now + early,))
        workers = yield from self._count("workers_prune", (now - rules.workers, now))
        return Pruned(len(old), len(stale), keys, workers, done)

    def _count(
        self, name: str, params: tuple[int, ...] = (), many: Sequence[tuple[int, ...]] | None = None
    ) -> Steps[int]:
        before = (yield Statement("changes"))[0][0]
        yield Statement(name, params, many)
        return int((yield Statement("changes"))[0][0] - before)

    @plan
    def queues(self, changes: Sequence[QueueChange] = ()) -> Steps[dict[str, bool]]:
        """See Store.queues."""
        yield Statement("queue_put", many=[(c.queue, int(c.paused)) for c in changes])
        return {name: bool(paused) for name, paused in (yield Statement("queues_all"))}


def _selected(
    places: Sequence[Place], changed: Sequence[Place], missing: tuple[str, ...], asked: Sequence[Place] = ()
) -> Selected:
    touched = {p.id for p in [*changed, *asked]}
    ids: Callable[[Sequence[Place]], tuple[str, ...]] = lambda some: tuple(p.id for p in some)
    return Selected(ids(changed), ids(asked), ids([p for p in places if p.id not in touched]), missing)
