"""Departure and arrival on Redis: what is to leave is read, packed here, and set aside if nothing has changed since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from windlass.core.errors import StoreCorrupt, StoreError
from windlass.core.family import parent_of
from windlass.core.flow import Bounds
from windlass.core.job import Attempt, Job, LogLine, NewJob, State
from windlass.core.unique import unique_of
from windlass.ports import landing
from windlass.ports.parcel import Arrival, Parcel, Tally, Word, digest_of
from windlass.ports.plan import Steps, plan
from windlass.ports.store import KEY_KEEP, Departure, LeftKey, LeftWindow, QueueRules, Scheduled, Standing
from windlass.stores.redis.asking import Field, ask, raw
from windlass.stores.redis.given import NUMBER_MOST, body, fingerprint, given, limits, riders
from windlass.stores.redis.leads import TERMS, Leading
from windlass.stores.redis.schedules import FLOOR, Scheduling, read_schedules, text_of

WEIGHT_MOST = 8 * 1024 * 1024
"""Bytes of payloads and results in one departure, if it is more than one job: the server waits while they are read."""

_Digest = tuple[int, int, int, int]


class _Leaving(msgspec.Struct, frozen=True, array_like=True):
    """What departure.lua says of a job."""

    job: Job
    head_start: int
    rank: int
    due: int
    attempts: tuple[Attempt, ...]
    logs: tuple[str, ...]
    once: dict[str, str] | list[Any]
    result_until: int | None
    key: str | None
    digest: str
    key_lost: bool
    until: int | None
    follows: str | None
    merged: tuple[str, ...]


_leaving = msgspec.msgpack.Decoder(list[tuple[str, _Leaving]]).decode
_aside = msgspec.msgpack.Decoder(list[tuple[int, int, str, str, str, _Digest]]).decode
_parcel = msgspec.json.Decoder(Parcel).decode
_scheduled = msgspec.json.Decoder(Scheduled).decode
_line = msgspec.json.Decoder(LogLine).decode


class Departing(Scheduling, Leading):
    """The operations from `identity` to `adopt`."""

    @plan
    def identity(self, fresh: str) -> Steps[str]:
        """See Store.identity."""
        return (yield from ask("identity", (fresh,)))  # type: ignore[no-any-return]

    @plan
    def depart(self, target: str, limit: int, stay: Sequence[str] = ()) -> Steps[Departure]:
        """See Store.depart."""
        while True:
            aside = sorted(_aside((yield from raw("departing"))))
            if aside and aside[0][2] != target:
                raise StoreError(
                    f"{len(aside)} jobs are set aside on the way to another store ({aside[0][2]}): "
                    "finish that copy first"
                )
            if aside:
                return Departure(
                    aside[0][0],
                    tuple(_parcel(text) for *_, kind, text, _ in aside if kind == "job"),
                    tuple(_scheduled(text) for *_, kind, text, _ in aside if kind == "schedule"),
                )
            found = _leaving((yield from raw("leaving", (limit, list(stay), WEIGHT_MOST))))
            parcels = [(seen, _packed(each)) for seen, each in found]
            jobs = [(p.job.id, seen, msgspec.json.encode(p).decode(), _digest(p)) for seen, p in parcels]
            schedules = [] if jobs else (yield from self._pausing(set(stay)))
            if not (jobs or schedules):
                return Departure()
            yield from ask("set_aside", (target, jobs, schedules))

    def _pausing(self, stay: set[str]) -> Steps[list[tuple[Any, ...]]]:
        """Schedules that may leave, as set_aside.lua takes them."""
        known, texts, _ = yield from read_schedules()
        names = [name for name, each in sorted(known.items()) if not each.away and name not in stay]
        _, facts = yield from ask("tick", ([(name, known[name].previous, None) for name in names],))
        leaving = []
        for name, (_, left, _) in zip(names, facts, strict=True):
            if not left:
                each = known[name]
                paused = replace(each, away=True, said=replace(each.said, paused=True))
                leaving.append((name, texts[name], text_of(paused), text_of(each), each.previous))
        return leaving

    @plan
    def dismiss(self, gone: Sequence[str], back: Sequence[str]) -> Steps[list[str]]:
        """See Store.dismiss."""
        aside = sorted(_aside((yield from raw("departing")))) if back else []
        jobs = [_parcel(text) for *_, kind, text, _ in aside if kind == "job"]
        schedules = [(_scheduled(text), text) for *_, kind, text, _ in aside if kind == "schedule"]
        returning = [_given(each) for each in jobs if each.job.id in back]
        named = [(each.said.name, text) for each, text in schedules if each.said.name in back]
        return sorted((yield from ask("dismiss", (list(gone), returning, named))))

    @plan(write=False)
    def tallies(self, other: str) -> Steps[tuple[Tally, Tally]]:
        """See Store.tallies."""
        gone, come = yield from ask("tallies", (other,))
        return _tally(*gone), _tally(*come)

    # --- arrival -----------------------------------------------------------------------------------------------------

    @plan(hint=True)
    def arrive(self, source: str, departure: Departure) -> Steps[list[Arrival]]:
        """See Store.arrive."""
        fit = [each for each in departure.jobs if _fits(each)]
        parcels = [_given(each) for each in fit]
        while True:
            answers, fields = yield from self._joining(departure.schedules)
            found = yield from ask("arrive", (source, departure.number, parcels, fields))
            if found is not None:
                break
        last, *rest = found
        if not rest:
            raise landing.overtaken(departure.number, last)
        come = {id: Arrival(id, Word(word), other) for id, word, other in rest[0]}
        yield from self._compare([each for each in fit if come[each.job.id].word is Word.MOVED])
        unfit = {each.job.id: Arrival(each.job.id, Word.UNFIT) for each in departure.jobs if each not in fit}
        return [*((come | unfit)[each.job.id] for each in departure.jobs), *answers]

    @plan(hint=True)
    def deliver(self, source: str, number: int, jobs: Sequence[NewJob]) -> Steps[bool]:
        """See Store.deliver."""
        asked = (source, number, [given(job) for job in jobs])
        return (yield from ask("deliver", asked))  # type: ignore[no-any-return]

    def _joining(self, schedules: Sequence[Scheduled]) -> Steps[tuple[list[Arrival], list[Field]]]:
        known, texts, now = (yield from read_schedules()) if schedules else ({}, {}, 0)
        answers: list[Arrival] = []
        fields: list[Field] = []
        floor = int(texts.get(FLOOR, "0"))
        for each in schedules:
            name = each.said.name
            here = known.get(name)
            if here is not None and landing.has_ticked(here):
                answers.append(Arrival(name, Word.PRESENT))
                continue
            answers.append(Arrival(name, Word.MOVED))
            fields.append((name, texts.get(name), text_of(landing.joined(each, here, floor, now))))
        return answers, fields

    def _compare(self, parcels: Sequence[Parcel]) -> Steps[None]:
        """What cannot be read as it was sent is not kept: it is still at the source."""
        if not parcels:
            return
        ids = [each.job.id for each in parcels]
        read = {each.job.id: each.job for _, each in _leaving((yield from raw("parcels", (ids,))))}
        for each in parcels:
            if _bare(read.get(each.job.id)) != _bare(each.job):
                yield from ask("act", ("delete", ids, None, False, 0, 0, False, None))
                raise StoreCorrupt(f"job {each.job.id} cannot be read as it was written; nothing was stored")

    # --- the rest ----------------------------------------------------------------------------------------------------

    @plan(write=False)
    def standing(self, after: LeftKey | None, limit: int) -> Steps[Standing]:
        """See Store.standing."""
        behind = None if after is None else _place(after)
        departing, queues, left, windows = yield from ask("standing", (behind, limit))
        term = yield from self._greatest_term()
        _, texts, _ = yield from read_schedules()
        return Standing(
            departing=departing,
            queues={queue: rules(each) for queue, each in queues},
            keys=tuple(LeftKey(*_parts(place), id, digest, ended + KEY_KEEP) for place, id, digest, ended in left),
            windows=tuple(LeftWindow(*_parts(place), id, until) for place, id, until in windows),
            term=term,
            revision=int(texts.get(FLOOR, "0")),
        )

    @plan
    def adopt(self, standing: Standing) -> Steps[None]:
        """See Store.adopt."""
        queues = [(queue, said(each)) for queue, each in standing.queues.items()]
        keys = [(_place(k), k.id, k.digest, k.free_at - KEY_KEEP) for k in standing.keys]
        windows = [(_place(w), w.id, w.until) for w in standing.windows]
        yield from ask("adopt", (queues, keys, windows, standing.term, standing.revision, TERMS, FLOOR))


def _place(left: LeftKey | LeftWindow) -> str:
    """Where a key is kept."""
    return f"{left.tenant}\0{left.task}\0{left.key}"


def _parts(place: str) -> tuple[str, str, str]:
    tenant, task, key = place.split("\0", 2)
    return tenant, task, key


def rules(kept: dict[str, Any]) -> QueueRules:
    """The rules of a queue as they are kept."""
    return QueueRules(kept.get("paused", False), kept.get("limit"), msgspec.convert(kept.get("bounds", {}), Bounds))


def said(of: QueueRules) -> dict[str, Any]:
    """As they are kept: what says nothing is left out."""
    kept: dict[str, Any] = {"paused": of.paused}
    if of.limit is not None:
        kept["limit"] = of.limit
    if of.bounds != Bounds():
        kept["bounds"] = msgspec.to_builtins(of.bounds)
    return kept


def _packed(found: _Leaving) -> Parcel:
    job = found.job
    if job.state is State.BLOCKED and job.reason == "limit":  # found again by the claim
        job = replace(job, state=State.QUEUED, reason=None)
    return Parcel(
        job=job,
        head_start=found.head_start,
        rank=found.rank,
        due=found.due,
        attempts=found.attempts,
        logs=tuple(_line(each) for each in found.logs),
        once=dict(sorted(found.once.items())) if isinstance(found.once, dict) else {},
        result_until=found.result_until,
        key=found.key,
        digest=found.digest,
        key_lost=found.key_lost,
        until=found.until,
        follows=found.follows,
        merged=tuple(sorted(found.merged)),
    )


def _given(p: Parcel) -> tuple[Any, ...]:
    """As landing.lua takes it; the job in the order of fields.py."""
    job, unique, ended = p.job, unique_of(p.job.meta), p.job.state.terminal
    ran = ended and job.worker is not None and bool(p.attempts)
    last, past = (p.attempts[-1], p.attempts[:-1]) if ran else (None, p.attempts)
    schedule, tags = riders(job.meta)
    record = (
        *(job.id, job.state.value, False, job.suspect, job.queue, p.rank, p.due),
        False if ended or job.due_at == p.due else job.due_at,
        *(job.created_at, job.expires_at, job.fence, job.attempt, job.crashes, job.losses, job.reason, job.worker),
        None,
        *(job.started_at, job.finished_at, False, False, None, None, limits(job.meta), unique.key if unique else None),
        *(job.task, job.version, job.tenant, job.priority, p.head_start, p.key, p.digest, job.error, job.result),
        *(p.result_until, job.result_expired),
        *(last.outcome if last else None, last.number if last else None),
        *(parent_of(job.meta) or None, schedule, tags, fingerprint(job.error) if job.state is State.DEAD else None),
    )
    return (
        [False if each is None else each for each in record],
        body(job.payload, job.meta),
        [[False if each is None else each for each in msgspec.structs.astuple(attempt)] for attempt in past],
        [msgspec.json.encode(line).decode() for line in p.logs],
        p.once,
        job.progress,
        *(p.key_lost, p.until, p.follows, p.merged, unique.policy if unique else None, _digest(p)),
    )


def _bare(job: Job | None) -> Job | None:
    """Without what depends on who is here already: where it stands in line."""
    return job and replace(job, state=State.QUEUED, reason=None, due_at=0)


def _fits(parcel: Parcel) -> bool:
    """Whether every number in it is one that Lua can count with."""
    numbers = (*msgspec.structs.astuple(parcel.job), parcel.head_start, parcel.rank, parcel.due, parcel.result_until)
    past = (number for attempt in parcel.attempts for number in msgspec.structs.astuple(attempt))
    return all(abs(each) < NUMBER_MOST for each in (*numbers, *past, parcel.until) if isinstance(each, int))


def _digest(parcel: Parcel) -> _Digest:
    """Four signed numbers of 32 bits: as Lua's XOR has them."""
    number = digest_of(parcel)
    a, b, c, d = ((number >> shift) & 0xFFFFFFFF for shift in (96, 64, 32, 0))
    return _signed(a), _signed(b), _signed(c), _signed(d)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word


def _tally(jobs: int, *words: int) -> Tally:
    checksum = 0
    for word in words:
        checksum = checksum << 32 | word & 0xFFFFFFFF
    return Tally(jobs, checksum)
