"""What becomes of a schedule when it is changed and when it ticks, decided once for every store. (The memory store,
which is the specification, says it in its own words, so that the model check compares two.)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from windlass.ports.store import (
    CODE_SEEN,
    PAST_DEFINITIONS,
    PREVIOUS_JOBS,
    Fired,
    Schedule,
    ScheduleChange,
    Scheduled,
    Tick,
)


def changed(known: Scheduled | None, change: ScheduleChange, floor: int, now: int) -> tuple[str, Scheduled | None]:
    """The word for it, and the schedule as it is then; None where there is none. `floor` is the greatest revision that
    a deleted schedule had: revisions never come back, as the ids of ticks follow from them."""
    if change.action == "put":
        return ("created", _created(change, floor, now)) if known is None else _put(known, change, now)
    if known is None:
        return "missing", None
    if change.action == "delete":
        return "deleted", None
    pausing = change.action == "pause"
    if known.said.paused == pausing:
        return "unchanged", known
    if pausing:
        return "paused", _say(known, paused=True)
    return "resumed", _say(replace(known, away=False), paused=False, cursor=max(known.said.cursor, now), next_at=now)


def _created(change: ScheduleChange, floor: int, now: int) -> Scheduled:
    seen = now if change.origin == "code" else None
    said = Schedule(
        name=change.name,
        revision=floor + 1,
        definition=change.definition,
        origin=change.origin,
        paused=False,
        cursor=now,
        next_at=now,
        created_at=now,
        changed_at=now,
        seen_at=seen,
    )
    return Scheduled(said, change.digest, change.timing, shown_at=seen)


def _put(known: Scheduled, change: ScheduleChange, now: int) -> tuple[str, Scheduled]:
    by_code = change.origin == "code"
    seen = _say(known, seen_at=now) if by_code else known
    if change.digest == known.digest:
        return "unchanged", replace(_say(seen, origin="code"), shown_at=now) if by_code else seen
    if by_code and change.digest in known.past and not _may_return(known, now):
        return "superseded", seen
    past = tuple(each for each in (*known.past, known.digest) if each != change.digest)[-PAST_DEFINITIONS:]
    edited = not by_code and known.said.origin != "operator"
    after = replace(
        seen,
        digest=change.digest,
        timing=change.timing,
        past=past,
        shown_at=now if by_code else known.shown_at,
    )
    return "replaced", _say(
        after,
        revision=known.said.revision + 1,
        definition=change.definition,
        origin="edited" if edited else change.origin,
        cursor=known.said.cursor if change.timing == known.timing else max(known.said.cursor, now),
        next_at=now,
        changed_at=now,
    )


def _may_return(known: Scheduled, now: int) -> bool:
    """Whether nobody shows the present definition any more, so that an older one is no longer old."""
    return known.said.origin == "code" and known.shown_at is not None and now - known.shown_at > CODE_SEEN


def refused(said: Schedule, tick: Tick, now: int) -> Fired | None:
    """Why a tick is not to be dealt with, if it is not: a manual one always is."""
    if tick.manual:
        return None
    if said.paused or said.revision != tick.revision:
        return Fired.STALE
    if said.cursor != tick.cursor:
        return Fired.ALREADY if said.cursor >= tick.to else Fired.STALE
    if tick.to < said.cursor or (tick.to == said.cursor and tick.job is not None):
        return Fired.ALREADY
    return Fired.EARLY if now < tick.to != said.cursor else None


def moved(known: Scheduled, tick: Tick) -> Scheduled:
    """It stands behind the tick, unless somebody asked for that by hand."""
    return known if tick.manual else _say(known, cursor=tick.to, next_at=tick.next_at)


def ticked(known: Scheduled, tick: Tick, left: Sequence[str], job: str | None) -> Scheduled:
    """The same, once its tick has become the job of this id, or none; `left` are those of its jobs that had not ended.
    Never is a job remembered into which the tick merged: the next one would cancel somebody else's."""
    known = moved(known, tick)
    previous = tuple(left) if job is None else (*left, job)
    said = known.said
    return _say(
        replace(known, previous=previous[-PREVIOUS_JOBS:]),
        last_tick=said.last_tick if tick.manual else tick.to,
        last_outcome=(Fired.SKIPPED if job is None else Fired.FIRED).value,
        last_job=job or said.last_job,
        fired=said.fired + (job is not None),
        skipped=said.skipped + (job is None),
    )


def apart(ticks: Sequence[Tick]) -> Iterator[list[Tick]]:
    """In runs in which no schedule ticks twice: what the second becomes depends on how the first went."""
    run: dict[str, Tick] = {}
    for tick in ticks:
        if tick.schedule in run:
            yield list(run.values())
            run = {}
        run[tick.schedule] = tick
    if run:
        yield list(run.values())


def _say(known: Scheduled, **changes: Any) -> Scheduled:
    return replace(known, said=replace(known.said, **changes))
