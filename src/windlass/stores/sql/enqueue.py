"""Enqueue: from new jobs to rows, once each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from windlass.core.family import STOPPED, parent_of
from windlass.core.flow import Bounds, Full, Line, due_at
from windlass.core.job import Job, NewJob, UniqueKey
from windlass.core.unique import unique_of
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.ports.store import KEY_KEEP, Enqueued
from windlass.stores.sql.text import as_json
from windlass.stores.sql.unique import Owner, Unique, place_of

WITH_CHILDREN = 2
"""`held.cancelling` of a job that is cancelled with its children: what it still enqueues is cancelled as it comes."""
NONE: frozenset[str] = frozenset()

_lines = msgspec.json.Decoder(dict[str, Bounds])


class Enqueueing(Unique):
    """The operation `enqueue`, also used for the children of a completed job."""

    @plan(hint=True)
    def enqueue(self, jobs: Sequence[NewJob], *, whole: bool = False) -> Steps[list[Enqueued]]:
        """See Store.enqueue."""
        now = (yield NOW)[0][0]
        bounds, departed = (yield Statement("queue_bounds"))[0]
        line = Line(_lines.decode(bounds))
        if departed:
            return (yield from self._insert_but_departed(jobs, now, line))
        return (yield from self._insert(jobs, now, line))

    def _insert_but_departed(self, jobs: Sequence[NewJob], now: int, line: Line) -> Steps[list[Enqueued]]:
        """What went to another store answers as the first time; here it would be a second job."""
        rows = yield Statement("departed_find", (as_json([job.id for job in jobs]),))
        gone = {row[0] for row in rows}
        answers = iter((yield from self._insert([job for job in jobs if job.id not in gone], now, line)))
        return [Enqueued(job.id, True) if job.id in gone else next(answers) for job in jobs]

    def _insert(
        self, jobs: Sequence[NewJob], now: int, line: Line | None = None, stopped: frozenset[str] | None = None
    ) -> Steps[list[Enqueued]]:
        """`line` knows which queues are bounded; without it, none is. `stopped` are those to be stored as cancelled,
        for their parent's sake; without it, the parents are asked."""
        rich = any(job.meta != "{}" for job in jobs)  # plain jobs are not looked at twice
        if rich and stopped is None and any('"parent_id"' in job.meta for job in jobs):
            stopped = yield from self._stopped(jobs)
        bounded = line is not None and line.bounds and any(job.queue in line.bounds for job in jobs)
        if bounded or stopped or (rich and any('"unique"' in job.meta for job in jobs)):
            return (yield from self._insert_with_care(jobs, now, line if bounded else None, stopped or NONE))
        answers: list[Enqueued | None] = [None] * len(jobs)
        keyed = [job for job in jobs if job.idempotency_key is not None]
        if keyed:
            yield from self._known_keys(jobs, answers, now)
        fresh = [job for job, answer in zip(jobs, answers, strict=True) if answer is None] if keyed else jobs
        if fresh:
            yield from self._store(fresh, now)
            if keyed:
                yield Statement("key_insert", many=[_key(job) for job in fresh if job.idempotency_key is not None])
        return [answer or Enqueued(job.id, True) for job, answer in zip(jobs, answers, strict=True)]

    def _stopped(self, jobs: Sequence[NewJob]) -> Steps[frozenset[str]]:
        """Those whose parent runs and was cancelled with its children."""
        parents = {job.id: parent_of(job.meta) for job in jobs}
        found = {row[0] for row in (yield Statement("held_stopped", (as_json(list({*parents.values()})),)))}
        return frozenset(id for id, parent in parents.items() if parent in found)

    def _store(self, jobs: Sequence[NewJob], now: int) -> Steps[None]:
        """Write these jobs and put them in line. An id that is stored already is this same job, sent again because its
        answer was lost: it is left alone."""
        raise NotImplementedError
        yield

    def _insert_with_care(
        self, jobs: Sequence[NewJob], now: int, line: Line | None, stopped: frozenset[str]
    ) -> Steps[list[Enqueued]]:
        """A batch in which some jobs are unique, go to bounded queues or are cancelled as they come: at once where
        nothing stands in the way of any, else one by one."""
        pairs = [(job, unique) for job in jobs if (unique := unique_of(job.meta))]
        ids = [job.id for job in jobs]
        known = (yield Statement("ids_known", (as_json(ids),))) or (yield from self._merged(ids))
        owners = (yield from self._owners(pairs, now)) if pairs else {}
        alone = len({place_of(*pair) for pair in pairs}) == len(pairs) and len(set(ids)) == len(ids)
        keyed = any(job.idempotency_key is not None for job in jobs)
        if line is not None:
            yield from self._look_at(line, jobs, now)
        free = not (keyed or known or stopped or any(keeps_out(owners, *pair, now) for pair in pairs))
        if alone and free and (line is None or line.has_room_for(jobs, now)):
            yield from self._store(jobs, now)
            yield from self._own(pairs, now)
            return [Enqueued(job.id, True) for job in jobs]
        answers = []
        for job in jobs:
            answers.append((yield from self._insert_one(job, unique_of(job.meta), now, line, job.id in stopped)))
        return answers

    def _look_at(self, line: Line, jobs: Sequence[NewJob], now: int) -> Steps[None]:
        """See how full the queues are to which these jobs go."""
        for queue in sorted({job.queue for job in jobs} & line.bounds.keys()):
            depth = (yield Statement("queue_depth", (queue, line.bounds[queue].depth or 0)))[0][0]
            head = (yield Statement("ready_head", (0, queue, 1)))[0][0]
            line.looks(queue, depth, 0 if head is None else max(0, now - head))

    def _insert_one(
        self, job: NewJob, unique: UniqueKey | None, now: int, line: Line | None, stopped: bool
    ) -> Steps[Enqueued]:
        answers: list[Enqueued | None] = [None]
        if (yield Statement("ids_known", (as_json([job.id]),))):
            return Enqueued(job.id, True)
        into = yield from self._merged([job.id])
        if into:
            return Enqueued(into[job.id], False)
        if job.idempotency_key is not None:
            yield from self._known_keys([job], answers, now)
            if answers[0] is not None:
                return answers[0]
        if stopped:
            yield from self._store_cancelled(job, STOPPED, now)
            return Enqueued(job.id, True)
        owners = (yield from self._owners([(job, unique)], now)) if unique else {}
        if unique and keeps_out(owners, job, unique, now):
            answer = yield from self._follow(job, unique, owners[place_of(job, unique)], now)
            if answer is not None:
                return answer
        else:
            full = line.take(job, now) if line else None
            if full is not None:
                return (yield from self._turn_away(job, full, line, now))
            yield from self._store([job], now)
            if unique:
                yield from self._own([(job, unique)], now)
        if job.idempotency_key is not None:
            yield Statement("key_insert", many=[_key(job)])
        return Enqueued(job.id, True)

    def _turn_away(self, job: NewJob, full: Full, line: Line | None, now: int) -> Steps[Enqueued]:
        if line is None or not line.bounds[job.queue].shed:
            return Enqueued(job.id, False, full=full)
        yield from self._store_cancelled(job, "shed", now)
        return Enqueued(job.id, True, full=full)

    def _store_cancelled(self, job: NewJob, reason: str, now: int) -> Steps[None]:
        seq = (yield Statement("seqs_next", (as_json([job.id]),)))[0][0]
        yield Statement("job_insert", row_of(job, seq, now))
        yield from self._check_stored(job.id, seq)
        yield Statement("ended_insert_unrun", (seq, "cancelled", reason, now, 0))
        if job.idempotency_key is not None:
            key = (job.tenant, job.task, job.idempotency_key, job.digest)
            yield Statement("key_never_had", (seq, job.id, *key))

    def _check_stored(self, id: str, seq: int) -> Steps[None]:
        """Where others write at the same time, one of them may have stored that job first."""
        yield from ()

    def _follow(self, job: NewJob, unique: UniqueKey, owner: Owner, now: int) -> Steps[Enqueued | None]:
        """The answer for a job whose key is taken; None if it was stored, as the owner's successor."""
        seq = (yield Statement("seqs_next", (as_json([job.id]),)))[0][0]
        row = row_of(job, seq, now)
        answer = yield from self._beside(job, unique, owner, row)
        if answer is None:
            yield Statement("job_insert", row)
            yield Statement("blocked_insert_unique", (seq,))
            yield Statement("expiring_insert", (seq,))
            yield Statement("unique_succeed", (*place_of(job, unique), seq))
        return answer

    def _known_keys(self, jobs: Sequence[NewJob], answers: list[Enqueued | None], now: int) -> Steps[None]:
        """Answer the jobs whose key is taken; of two with one key in the batch, the first takes it."""
        wanted = [(j.tenant, j.task, j.idempotency_key) for j in jobs if j.idempotency_key is not None]
        owners: dict[tuple[str, str, str | None], tuple[str, str]] = {}
        for (found,) in (yield Statement("keys_find", (as_json(wanted),))):
            tenant, task, key, owner, digest, free_at, finished = msgspec.json.decode(found)
            free = free_at if free_at is not None else None if finished is None else finished + KEY_KEEP
            if free is None or free > now:
                owners[tenant, task, key] = (owner, digest)
            else:
                yield Statement("key_part", (tenant, task, key))
        stored = set(owners)
        for n, job in enumerate(jobs):
            if job.idempotency_key is None:
                continue
            place = (job.tenant, job.task, job.idempotency_key)
            owner, digest = owners.setdefault(place, (job.id, job.digest))
            if owner != job.id:
                answers[n] = Enqueued(owner, False, conflict=digest != job.digest)
            elif place in stored:
                # Sent again. Its row may have been pruned, so only the key knows that it has run.
                answers[n] = Enqueued(job.id, True)
        yield from self._known_ids(jobs, answers)

    def _known_ids(self, jobs: Sequence[NewJob], answers: list[Enqueued | None]) -> Steps[None]:
        """A job that is stored answers as the first time, also if its key has gone to another since."""
        second = [job.id for job, answer in zip(jobs, answers, strict=True) if answer and not answer.inserted]
        if not second:
            return
        known = {row[0] for row in (yield Statement("ids_known", (as_json(second),)))}
        for n, job in enumerate(jobs):
            if job.id in known:
                answers[n] = Enqueued(job.id, True)


def keeps_out(
    owners: dict[tuple[str, str, str], Owner], job: NewJob | Job, unique: UniqueKey, now: int
) -> bool:
    """Whether the key of that job is another's."""
    owner = owners.get(place_of(job, unique))
    if owner is None or owner.live:
        return owner is not None
    return unique.policy == "throttle" and owner.until is not None and now < owner.until


def _key(job: NewJob) -> tuple[Any, ...]:
    return (job.tenant, job.task, job.idempotency_key, job.digest, job.id)


def row_of(job: NewJob, seq: int, now: int) -> tuple[Any, ...]:
    """A job as `job_insert` takes it."""
    due = due_at(job, now)
    expires = job.expires_at
    if expires is None and job.expires_after is not None:
        expires = now + job.expires_after
    return (
        seq,
        job.id,
        job.tenant,
        job.task,
        job.version,
        job.queue,
        job.priority,
        job.head_start,
        now,
        due,
        due - job.head_start,
        expires,
        job.payload,
        job.meta,
    )
