"""What operators do to jobs, and what time does to old ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from windlass.core.job import TERMINAL, Job, State
from windlass.core.unique import unique_of
from windlass.ports.plan import NOW, Plan, Statement, Steps, plan
from windlass.ports.store import (
    DEPARTED_KEEP,
    KEY_KEEP,
    Filter,
    Pruned,
    PruneRules,
    QueueChange,
    QueueRules,
    Selected,
    Selection,
)
from windlass.stores.sql.enqueue import WITH_CHILDREN
from windlass.stores.sql.reading import Reading
from windlass.stores.sql.text import as_json
from windlass.stores.sql.unique import Unique

EARLY = frozenset({State.SCHEDULED, State.RETRYING})
WAITING = EARLY | {State.QUEUED, State.BLOCKED}
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
    tenant: str
    task: str


class Chosen(NamedTuple):
    """The jobs of a selection: those that it means, those that it names but no longer means, the ids that are not
    there, and where the next selection goes on."""

    places: list[Place]
    others: list[Place]
    missing: tuple[str, ...]
    next: str | None


Fits = Callable[[Sequence[Job]], Steps[list[str]]]


class Operator(Reading, Unique):
    """The operations by ids or by filter; each answers what it changed, and changes nothing on a dry run."""

    @plan
    def cancel(self, selection: Selection) -> Steps[Selected]:
        """See Store.cancel."""
        return (yield from self._cancel(selection, (yield NOW)[0][0]))

    def _cancel(self, selection: Selection, now: int) -> Steps[Selected]:
        chosen = yield from self._chosen(selection, WAITING | {State.RUNNING}, _uncancelled)
        waiting = [p for p in chosen.places if p.state in WAITING]
        running = [p for p in chosen.places if p.state is State.RUNNING]
        if not selection.dry_run:
            yield from self._unplace(waiting)
            ended = [(p.seq, State.CANCELLED.value, "cancelled", now, p.fence) for p in waiting]
            yield Statement("ended_insert_unrun", many=ended)
            yield from self._give_up_of(waiting, now)
            yield Statement("held_cancel", many=[(p.id, WITH_CHILDREN if selection.children else 1) for p in running])
        return _selected(chosen, waiting, asked=running)

    @plan
    def revive(self, selection: Selection) -> Steps[Selected]:
        """See Store.revive."""
        now = (yield NOW)[0][0]
        chosen = yield from self._chosen(selection, TERMINAL | EARLY, lambda jobs: self._revivable(jobs, now))
        places = chosen.places
        again = {p.seq for p in (yield from self._again([p for p in places if p.state.terminal], now))}
        changed = [p for p in places if p.seq in again or p.state in EARLY]
        due = {p.seq: now + selection.delay + n * selection.every for n, p in enumerate(changed)}
        ended, early = [p for p in changed if p.state.terminal], [p for p in changed if not p.state.terminal]
        if not selection.dry_run:
            for p in ended:
                fence = (yield Statement("ended_fence", (p.seq,)))[0][0]
                yield Statement("attempt_from_ended", (p.seq,))
                yield Statement("ended_remove", (p.seq,))
                yield Statement("job_revive", (max(fence + 1, p.fence + 1, now), due[p.seq], p.seq))
            yield Statement("unique_retake", many=[(p.id, *key) for p in ended if (key := _unique(p))])
            yield from self._retake(ended)
            yield Statement("waiting_remove", many=[(p.seq,) for p in early])
            yield Statement("job_due_at", many=[(due[p.seq], p.seq) for p in early])
            later = [(seq, at, State.SCHEDULED.value, "redriven") for seq, at in due.items() if at > now]
            yield Statement("waiting_insert", many=later)
            yield Statement("ready_insert", many=[(seq,) for seq, at in due.items() if at <= now])
        return _selected(chosen, changed)

    @plan
    def edit(self, job: str, payload: str) -> Steps[Selected]:
        """See Store.edit."""
        chosen = yield from self._chosen(Selection((job,)), STILL)
        still = [p for p in chosen.places if p.state is not State.RUNNING]
        yield Statement("job_edit", many=[(payload, p.seq) for p in still])
        return _selected(chosen, still)

    @plan
    def delete(self, selection: Selection) -> Steps[Selected]:
        """See Store.delete."""
        now = (yield NOW)[0][0]
        chosen = yield from self._chosen(selection, STILL)
        still = [p for p in chosen.places if p.state is not State.RUNNING]
        if not selection.dry_run:
            yield from self._unplace([p for p in still if not p.state.terminal])
            yield from self._give_up_of([p for p in still if not p.state.terminal], now)
            yield Statement("unique_drop", many=[(p.seq,) for p in still])
            yield Statement("keys_drop_of", many=[(p.seq,) for p in still])
            yield from self._drop([p.seq for p in still])
        return _selected(chosen, still)

    def _give_up_of(self, places: Sequence[Place], now: int) -> Steps[None]:
        unique = [p.seq for p in places if unique_of(p.meta)]
        if unique:
            yield from self._give_up(unique, now)

    def _retake(self, revived: Sequence[Place]) -> Steps[None]:
        """They have the idempotency keys again that were freed; whoever had one since, has ended and lost it."""
        for (found,) in (yield Statement("keys_again", (as_json([p.id for p in revived]),))):
            yield Statement("key_part", tuple(msgspec.json.decode(found)[1:4]))
        yield Statement("key_retake", many=[(p.id, p.seq) for p in revived])
        yield Statement("drop_past_keys", many=[(p.seq,) for p in revived])

    def _again(self, ended: Sequence[Place], now: int) -> Steps[list[Place]]:
        """Of ended jobs: those that may live again, as no other has a key of theirs, nor does one before them here."""
        unique = {p.id: key for p in ended if (key := _unique(p))}
        fresh = yield from self._with_keys([p.id for p in ended], unique, now)
        return [p for p in ended if p.id in fresh]

    def _revivable(self, jobs: Sequence[Job], now: int) -> Steps[list[str]]:
        ended = [job for job in jobs if job.state.terminal]
        unique = {job.id: (job.tenant, job.task, u.key) for job in ended if (u := unique_of(job.meta))}
        fresh = yield from self._with_keys([job.id for job in ended], unique, now)
        return [job.id for job in jobs if job.id in fresh or not job.state.terminal]

    def _with_keys(self, ids: Sequence[str], unique: dict[str, tuple[str, str, str]], now: int) -> Steps[set[str]]:
        """Those of the jobs whose keys, of either kind, are theirs or free; of several with one key the first."""
        if not ids:
            return set()
        rows = (yield Statement("unique_live", (as_json(list(unique.values())),))) if unique else []
        taken: set[tuple[str, ...]] = {("unique", *row) for row in rows}
        wanted: dict[str, list[tuple[str, ...]]] = {id: [("unique", *key)] for id, key in unique.items()}
        others: set[str] = set()
        for (found,) in (yield Statement("keys_again", (as_json(list(ids)),))):
            id, tenant, task, key, owner, free_at, finished = msgspec.json.decode(found)
            wanted.setdefault(id, []).append(("key", tenant, task, key))
            free = free_at if free_at is not None else None if finished is None else finished + KEY_KEEP
            if owner not in (id, None) and (free is None or free > now):
                others.add(id)
        fresh = set()
        for id in ids:
            keys = wanted.get(id, [])
            if id not in others and taken.isdisjoint(keys):
                fresh.add(id)
                taken.update(keys)
        return fresh

    def _chosen(self, selection: Selection, states: frozenset[State], fits: Fits | None = None) -> Steps[Chosen]:
        """What was selected. A filter alone finds only jobs in `states`, which the action can change, and that are
        fit for it: else a thousand that are not would hide the rest for ever."""
        ids: Sequence[str] = selection.ids
        wanted, last = selection.filter, None
        if wanted is not None and not ids:
            ids = yield from self._found(selection, states, fits)
            last = ids[-1] if len(ids) == selection.limit else None
        look = "places_by_id" if selection.dry_run else "places_to_change"
        rows = yield Statement(look, (as_json(list(dict.fromkeys(ids))),))
        places = [Place(r[0], r[1], State(r[2]), *r[3:]) for r in rows]
        known = {p.id for p in places}
        # Judged again under the locks of `look`: what was found in another transaction may have moved since.
        meant = known if wanted is None else (yield from self._matching(sorted(known), wanted))
        return Chosen(
            [p for p in places if p.id in meant],
            [p for p in places if p.id not in meant],
            tuple(i for i in ids if i not in known),
            last,
        )

    def _found(self, selection: Selection, states: frozenset[State], fits: Fits | None) -> Steps[list[str]]:
        filter, limit, after = selection.filter or Filter(), selection.limit, selection.after
        wanted = states & set(filter.states) if filter.states else states
        narrow = msgspec.structs.replace(filter, states=tuple(sorted(wanted)))
        ids: list[str] = []
        while wanted and len(ids) < limit:
            found = yield from self._search(narrow, limit, after)
            ids += (yield from fits(found)) if fits else [job.id for job in found]
            if len(found) < limit:
                break
            after = found[-1].id
        return ids[:limit]

    def _unplace(self, places: Sequence[Place]) -> Steps[None]:
        queued = [(p.lane, p.queue, p.rank, p.seq) for p in places if p.state is State.QUEUED]
        yield Statement("ready_remove", many=queued)
        yield Statement("waiting_remove", many=[(p.seq,) for p in places])
        yield Statement("blocked_remove", many=[(p.seq,) for p in places if p.state is State.BLOCKED])

    def _drop(self, seqs: Sequence[int]) -> Steps[None]:
        rows = [(seq,) for seq in seqs]
        for table in ("ended", "attempts", "once", "progress", "logs", "merged", "past_keys", "job"):
            yield Statement(f"drop_{table}", many=rows)

    @plan
    def prune(self, rules: PruneRules, limit: int) -> Steps[Pruned]:
        """See Store.prune."""
        return (yield from self._prune_slice(rules, limit, (yield NOW)[0][0]))

    def chores(self, rules: PruneRules) -> Sequence[Plan[bool]]:
        """See Store.chores."""
        return ()

    def _prune_slice(
        self, rules: PruneRules, limit: int, now: int, stays: Callable[[int, State], bool] | None = None
    ) -> Steps[Pruned]:
        """Walks `ended` in slices, remembering where it stopped: an index on the time of the end would cost every job a
        b-tree write to save this walk a few reads. What `stays`, by its place and state, is not removed this way."""
        mark = yield Statement("mark_get", ("prune",))
        start = mark[0][0] if mark else 0
        rows = yield Statement("prune_slice", (start, limit))
        keep = {s: getattr(rules, s.value) for s in State if s.terminal}
        early = KEY_KEEP - min(rules.keys, KEY_KEEP)
        aged = [r for r in rows if (age := keep[State(r[1])]) is not None and r[2] + age <= now]
        due = [r[0] for r in rows if r[2] + KEY_KEEP - early <= now]
        free = yield from self._unlocked([*due, *(r[0] for r in aged)])
        old = [r[0] for r in aged if r[0] in free and (stays is None or not stays(r[0], State(r[1])))]
        gone = set(old)
        stale = [(r[0],) for r in rows if r[0] not in gone and r[3] and r[4] is not None and r[4] <= now]
        spent = [(seq,) for seq in due if seq in free]
        yield Statement("key_part_of", many=spent)
        keys = yield from self._count("keys_drop_of", many=spent)
        yield Statement("unique_prune", (now,))
        yield from self._forget(old)
        yield Statement("result_drop", many=stale)
        done = len(rows) < limit
        reached = 0 if done else rows[-1][0]
        if reached != start:
            yield Statement("mark_put", ("prune", reached))
        keys += yield from self._count("keys_prune", (now + early,))
        workers = yield from self._count("workers_prune", (now - rules.workers, now))
        yield Statement("departed_prune", (now - DEPARTED_KEEP,))
        yield from self._prune_leads(now - rules.workers)
        return Pruned(len(old), len(stale), keys, workers, done)

    def _unlocked(self, seqs: Sequence[int]) -> Steps[set[int]]:
        """Of these jobs: those with whose keys nobody else does anything."""
        return set(seqs)
        yield

    def _forget(self, seqs: Sequence[int]) -> Steps[None]:
        """Remove these jobs, of which only the keys that they leave behind are known from now on."""
        yield Statement("keys_outlive", many=[(KEY_KEEP, seq) for seq in seqs])
        yield Statement("unique_outlive", many=[(seq,) for seq in seqs])
        yield from self._drop(seqs)

    def _prune_leads(self, before: int) -> Steps[None]:
        """Locks have names without number. Their terms must go on growing all the same."""
        term = (yield Statement("leads_old", (before,)))[0][0]
        if term:
            mark = yield Statement("mark_get", ("terms",))
            yield Statement("mark_put", ("terms", max(term, mark[0][0] if mark else 0)))
            yield Statement("leads_prune", (before,))

    def _count(
        self, name: str, params: tuple[int, ...] = (), many: Sequence[tuple[int, ...]] | None = None
    ) -> Steps[int]:
        before = (yield Statement("changes"))[0][0]
        yield Statement(name, params, many)
        return int((yield Statement("changes"))[0][0] - before)

    @plan
    def queues(self, changes: Sequence[QueueChange] = ()) -> Steps[dict[str, QueueRules]]:
        """See Store.queues."""
        bounds = [None if c.bounds is None else as_json(c.bounds) for c in changes]
        rows = [(c.queue, c.paused, c.limit, b) for c, b in zip(changes, bounds, strict=True)]
        yield Statement("queue_put", many=rows)
        return (yield from self._rules())


def _unique(place: Place) -> tuple[str, str, str] | None:
    unique = unique_of(place.meta)
    return None if unique is None else (place.tenant, place.task, unique.key)


def _selected(chosen: Chosen, changed: Sequence[Place], asked: Sequence[Place] = ()) -> Selected:
    touched = {p.id for p in [*changed, *asked]}
    ids: Callable[[Sequence[Place]], tuple[str, ...]] = lambda some: tuple(p.id for p in some)
    rest = [p for p in chosen.places if p.id not in touched]
    return Selected(ids(changed), ids(asked), ids([*rest, *chosen.others]), chosen.missing, chosen.next)


def _uncancelled(jobs: Sequence[Job]) -> Steps[list[str]]:
    """A job that runs and was asked already would be asked for ever by whoever repeats until done."""
    return [job.id for job in jobs if not job.cancelling]
    yield
