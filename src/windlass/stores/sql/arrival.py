"""Arrival: jobs and schedules of another store, stored as they left it, and compared before that is committed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from windlass.core.errors import StoreCorrupt
from windlass.core.job import Job, NewJob, State
from windlass.core.unique import Arrival as Meeting
from windlass.core.unique import unique_of
from windlass.ports import landing
from windlass.ports.parcel import Arrival, Parcel, Tally, Word
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.ports.store import FOREVER, KEY_KEEP, Departure, LeftKey, LeftWindow, Scheduled, Standing
from windlass.stores.sql.enqueue import keeps_out
from windlass.stores.sql.parcels import FROM, TO, Parcels
from windlass.stores.sql.schedules import FLOOR, Scheduling, row_of
from windlass.stores.sql.text import as_json
from windlass.stores.sql.unique import Owner, place_of

Place = tuple[str, str, str]
LAST = "last from:"
"""How the marks begin of the last departure that came from each store."""


class Berth(NamedTuple):
    """Where an arriving job will lie."""

    parcel: Parcel
    """As it will be read."""
    owns: Place | None = None
    behind: Place | None = None
    """Whose successor it is to be."""
    ousts: str = ""
    """Whom it asks to cancel."""
    heir: int | None = None
    """Who waits behind it already."""


class Arriving(Scheduling, Parcels):
    """The operations `arrive`, `standing` and `adopt`."""

    @plan(hint=True)
    def arrive(self, source: str, departure: Departure) -> Steps[list[Arrival]]:
        """See Store.arrive."""
        now = (yield NOW)[0][0]
        mark = yield Statement("mark_get", (LAST + source,))
        last = mark[0][0] if mark else 0
        if departure.number < last:
            raise landing.overtaken(departure.number, last)
        yield Statement("mark_put", (LAST + source, departure.number))
        answers = yield from self._store_parcels(departure.jobs, now)
        come = landing.come(answers, again=departure.number == last)
        yield from self._add_up(FROM + source, [each for each in departure.jobs if each.job.id in come])
        for scheduled in departure.schedules:
            answers.append((yield from self._go_on(scheduled, now)))
        return answers

    @plan(hint=True)
    def deliver(self, source: str, number: int, jobs: Sequence[NewJob]) -> Steps[bool]:
        """See Store.deliver."""
        now = (yield NOW)[0][0]
        mark = yield Statement("mark_get", (LAST + source,))
        if number <= (mark[0][0] if mark else 0):
            return False
        yield Statement("mark_put", (LAST + source, number))
        yield from self._insert(jobs, now)
        return True

    def _tallies(self, other: str) -> Steps[tuple[Tally, Tally]]:
        return (yield from self._tally(TO + other)), (yield from self._tally(FROM + other))

    # --- jobs --------------------------------------------------------------------------------------------------

    def _storable(self, parcel: Parcel) -> Parcel | None:
        """As this store can hold it; None if it cannot."""
        return parcel

    def _store_parcels(self, parcels: Sequence[Parcel], now: int) -> Steps[list[Arrival]]:
        ids = [each.job.id for each in parcels]
        known = {row[0] for row in (yield Statement("ids_known", (as_json(ids),)))}
        answers = {id: Arrival(id, Word.PRESENT) for id in ids if id in known}
        fresh = []
        for each in parcels:
            found = self._storable(each)
            if found is None:
                answers.setdefault(each.job.id, Arrival(each.job.id, Word.UNFIT))
            elif each.job.id not in known:
                fresh.append(found)
        fresh = yield from self._with_their_keys(fresh, answers, now)
        berths = yield from self._berths(fresh, answers, now)
        if berths:
            yield from self._moor(berths, answers, now)
        return [answers[id] for id in ids]

    def _with_their_keys(
        self, parcels: Sequence[Parcel], answers: dict[str, Arrival], now: int
    ) -> Steps[list[Parcel]]:
        """Those that may come in as far as idempotency keys go, which are free for them then."""
        wanted = [key for each in parcels if (key := _key_of(each))]
        taken: dict[Place, str] = {}
        for (text,) in (yield Statement("keys_find", (as_json(wanted),))) if wanted else []:
            tenant, task, key, owner, _, free_at, finished = msgspec.json.decode(text)
            free = free_at if free_at is not None else None if finished is None else finished + KEY_KEEP
            if free_at != FOREVER and (free is None or free > now):
                taken[tenant, task, key] = owner
            else:
                yield Statement("key_part", (tenant, task, key))
        found = []
        for each in parcels:
            place = _key_of(each)
            other = taken.get(place, each.job.id) if place else each.job.id
            if other == each.job.id:
                found.append(each)
            elif each.job.state.terminal:
                answers[each.job.id] = Arrival(each.job.id, Word.KEYLESS, other)
                found.append(replace(each, key_lost=True))
            else:
                answers[each.job.id] = Arrival(each.job.id, Word.CONFLICT, other)
        return found

    def _berths(self, parcels: Sequence[Parcel], answers: dict[str, Arrival], now: int) -> Steps[list[Berth]]:
        """Of those parcels: where each will lie, if its unique key lets it in."""
        pairs = [(p.job, u) for p in parcels if not p.job.state.terminal and (u := unique_of(p.job.meta))]
        owners = (yield from self._owners(pairs, now)) if pairs else {}
        found = []
        for each in parcels:
            unique = None if each.job.state.terminal else unique_of(each.job.meta)
            if unique is None:
                # What is left of a throttle is kept beside it.
                found.append(Berth(replace(each, until=None) if each.job.state.terminal else each))
                continue
            place = place_of(each.job, unique)
            owner = owners.get(place) if keeps_out(owners, each.job, unique, now) else None
            berth = _berth(each, unique.policy, owner, place, now)
            away = each.follows in answers and answers[each.follows].word is Word.CONFLICT
            if berth is None or away:
                other = owner.id if owner else each.follows or ""
                answers[each.job.id] = Arrival(each.job.id, Word.CONFLICT, other)
                continue
            owners[place] = _after(owner, berth, place)
            found.append(berth)
        return found

    def _moor(self, berths: Sequence[Berth], answers: dict[str, Arrival], now: int) -> Steps[None]:
        """Store them, and read them again."""
        ids = as_json([each.parcel.job.id for each in berths])
        seqs = [row[0] for row in (yield Statement("seqs_next", (ids,)))]
        made = {berth.parcel.job.id: seq for berth, seq in zip(berths, seqs, strict=True)}
        yield Statement("job_insert", many=[_job_row(b.parcel, made[b.parcel.job.id]) for b in berths])
        stored: dict[str, int] = dict((yield Statement("seqs_by_id", (ids,))))
        # Somebody else may have brought one in at this very moment.
        ours = [b for b in berths if stored[b.parcel.job.id] == made[b.parcel.job.id]]
        for berth in berths:
            word = Word.MOVED if berth in ours else Word.PRESENT
            answers.setdefault(berth.parcel.job.id, Arrival(berth.parcel.job.id, word))
        parcels = {made[b.parcel.job.id]: b.parcel for b in ours}
        yield from self._write(parcels)
        yield from self._line_up(ours, made)
        yield from self._windows([each.parcel for each in ours], now)
        yield Statement("departed_drop", many=[(each.job.id,) for each in parcels.values()])
        read = yield from self._parcels([each.job.id for each in parcels.values()])
        for each in parcels.values():
            if read.get(each.job.id) != each:
                raise StoreCorrupt(f"job {each.job.id} cannot be read as it was written; nothing was stored")

    def _write(self, parcels: dict[int, Parcel]) -> Steps[None]:
        """All but their places in line, by their seqs."""
        turned = [
            (p.job.attempt, p.job.crashes, p.job.losses, p.job.fence, int(p.job.suspect), None, _error(p.job), seq)
            for seq, p in parcels.items()
        ]
        yield Statement("job_turned", many=turned)
        past = [(seq, p) for seq, p in parcels.items() if p.attempts]
        attempts = [(seq, p.attempts[:-1] if _ran(p.job) else p.attempts) for seq, p in past]
        rows = [
            (seq, a.fence, a.number, a.worker, a.started_at, a.ended_at, a.outcome, a.reason, a.error)
            for seq, each in attempts
            for a in each
        ]
        yield Statement("attempt_insert", many=rows)
        lines = [(seq, n, x.at, x.level, x.message) for seq, p in parcels.items() for n, x in enumerate(p.logs)]
        yield Statement("log_insert", many=lines)
        yield Statement("once_put", many=[(seq, *each) for seq, p in parcels.items() for each in p.once.items()])
        progress = [(seq, p.job.progress) for seq, p in parcels.items() if p.job.progress is not None]
        yield Statement("progress_put", many=progress)
        yield Statement("merged_put", many=[(id, seq) for seq, p in parcels.items() for id in p.merged])
        keys = [(p.job.tenant, p.job.task, p.key, p.digest, p.job.id) for p in parcels.values() if _key_of(p)]
        yield Statement("key_insert", many=keys)
        lost = [
            (seq, p.job.id, p.job.tenant, p.job.task, p.key, p.digest) for seq, p in parcels.items() if p.key_lost
        ]
        yield Statement("key_never_had", many=lost)

    def _line_up(self, berths: Sequence[Berth], seqs: dict[str, int]) -> Steps[None]:
        jobs = [(seqs[b.parcel.job.id], b.parcel) for b in berths]
        yield Statement("ready_insert", many=[(seq,) for seq, p in jobs if p.job.state is State.QUEUED])
        early = [(seq, p.job) for seq, p in jobs if p.job.state in {State.SCHEDULED, State.RETRYING}]
        waiting = [(seq, job.due_at, job.state.value, job.reason) for seq, job in early]
        yield Statement("waiting_insert", many=waiting)
        yield Statement("expiring_insert", many=[(seq,) for seq, p in jobs if not p.job.state.terminal])
        yield Statement("ended_put", many=[_ended_row(p, seq) for seq, p in jobs if p.job.state.terminal])
        for berth in berths:
            id = berth.parcel.job.id
            if berth.owns is not None:
                yield Statement("unique_put", many=[(*berth.owns, berth.parcel.until, id)])
            if berth.owns is not None and berth.heir is not None:
                yield Statement("unique_succeed", (*berth.owns, berth.heir))
            if berth.behind is not None:
                yield Statement("blocked_insert_unique", (seqs[id],))
                yield Statement("unique_succeed", (*berth.behind, seqs[id]))
            if berth.ousts:
                yield Statement("held_cancel", many=[(berth.ousts, 1)])

    def _windows(self, parcels: Sequence[Parcel], now: int) -> Steps[None]:
        rows = []
        for each in parcels:
            unique = unique_of(each.job.meta) if each.job.state.terminal else None
            if unique is not None and each.until is not None and each.until > now:
                rows.append((*place_of(each.job, unique), each.job.id, each.until))
        yield Statement("window_leave", many=rows)

    # --- schedules, and the rest -------------------------------------------------------------------------------

    def _go_on(self, scheduled: Scheduled, now: int) -> Steps[Arrival]:
        name = scheduled.said.name
        known = yield from self._schedule(name)
        before = known.scheduled if known else None
        if before and landing.has_ticked(before):
            return Arrival(name, Word.PRESENT)
        floor = yield Statement("mark_get", (FLOOR,))
        found = landing.joined(scheduled, before, floor[0][0] if floor else 0, now)
        yield Statement("schedule_put", row_of(found))
        return Arrival(name, Word.MOVED)

    @plan(write=False)
    def standing(self, after: LeftKey | None, limit: int) -> Steps[Standing]:
        """See Store.standing."""
        now = (yield NOW)[0][0]
        place = ("", "", "") if after is None else (after.tenant, after.task, after.key)
        keys = yield Statement("keys_left", (*place, FOREVER, limit))
        windows = yield Statement("windows_left", (now,))
        floor = yield Statement("mark_get", (FLOOR,))
        return Standing(
            departing=(yield Statement("departing_count"))[0][0],
            queues=(yield from self._rules()),
            keys=tuple(LeftKey(*row) for row in keys),
            windows=tuple(LeftWindow(*row) for row in windows),
            term=(yield Statement("terms_most"))[0][0],
            revision=floor[0][0] if floor else 0,
        )

    @plan
    def adopt(self, standing: Standing) -> Steps[None]:
        """See Store.adopt."""
        known = yield from self._rules()
        new = [(name, r) for name, r in standing.queues.items() if name not in known]
        yield Statement("queue_put", many=[(name, r.paused, r.limit, as_json(r.bounds)) for name, r in new])
        yield Statement("key_leave", many=[(k.tenant, k.task, k.key, k.id, k.digest, k.free_at) for k in standing.keys])
        yield Statement("window_leave", many=[(w.tenant, w.task, w.key, w.id, w.until) for w in standing.windows])
        for name, least in (("terms", standing.term), (FLOOR, standing.revision)):
            mark = yield Statement("mark_get", (name,))
            if least > (mark[0][0] if mark else 0):
                yield Statement("mark_put", (name, least))


def _berth(parcel: Parcel, policy: str, owner: Owner | None, place: Place, now: int) -> Berth | None:
    """Where a living job with a unique key will lie; None if another one has the key. A key that was left behind when
    its owner departed keeps out nobody but those who follow that owner."""
    if owner is None or owner.id == parcel.job.id or (owner.seq is None and owner.live and parcel.follows != owner.id):
        return Berth(landing.in_front(parcel, now), owns=place, heir=owner.successor if owner else None)
    running, succeeded = bool(owner.running), owner.successor is not None
    meeting = landing.follows(parcel, policy, owner.id, running=running, succeeded=succeeded)
    if meeting is None:
        return None
    ousts = owner.id if meeting is Meeting.OUST else ""
    return Berth(landing.behind(parcel, owner.id), behind=place, ousts=ousts)


def _after(owner: Owner | None, berth: Berth, place: Place) -> Owner:
    """How a row of `unique` stands with that job in it."""
    if berth.behind is not None and owner is not None:
        return owner._replace(successor=0, successor_id=berth.parcel.job.id)
    return Owner(*place, berth.parcel.job.id, 0, 1, berth.heir, berth.parcel.until, 0, None, None, None, 0)


def _key_of(parcel: Parcel) -> Place | None:
    lost = parcel.key is None or parcel.key_lost
    return None if lost else (parcel.job.tenant, parcel.job.task, parcel.key or "")


def _ran(job: Job) -> bool:
    """Whether a run ended it, rather than an operator or its expiry."""
    return job.state.terminal and job.worker is not None


def _error(job: Job) -> str | None:
    return None if job.state.terminal else job.error


def _job_row(p: Parcel, seq: int) -> tuple[object, ...]:
    """As `job_insert` takes it."""
    job = p.job
    start = (seq, job.id, job.tenant, job.task, job.version, job.queue, job.priority, p.head_start)
    return (*start, job.created_at, p.due, p.rank, job.expires_at, job.payload, job.meta)


def _ended_row(p: Parcel, seq: int) -> tuple[object, ...]:
    job, last = p.job, p.attempts[-1] if _ran(p.job) else None
    start = (seq, job.state.value, job.reason, job.finished_at, job.fence)
    if last is None:
        return (*start, None, 0, None, None, None, None, job.error, None)
    run = (last.number, job.attempt - last.number + 1, last.worker, last.started_at, last.outcome)
    return (*start, *run, job.result, job.error, p.result_until)
