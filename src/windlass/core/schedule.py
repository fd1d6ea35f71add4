"""Schedules, decided: a rule as a value, which of its ticks are due, and what the job of a tick is.

A tick is (schedule, revision, instant). Everything about its job follows from that and from the definition, its id and
its jitter included, so that a tick that is sent again, by whomever, is the same tick.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

import msgspec

from windlass.core.cron import Cron
from windlass.core.duration import micros
from windlass.core.errors import InvalidSchedule
from windlass.core.job import BACKFILL, PRIORITY, SCHEDULE, KeyLimit, Meta, NewJob
from windlass.core.placement import SHARDS, job_id

EVERY_LEAST = 1_000_000
CATCH_UP_MOST = 10_000
LATE = 60_000_000
"""Microseconds after which a tick that nobody has fired was missed: until then it is merely late, and is fired whatever
the rule says of missed ones. A leader that dies, or is stopped, or a deploy, must not cost a tick."""
WINDOW = 60_000_000
"""How far back the search for the latest ticks looks first; it doubles its way to where they are."""

E = TypeVar("E", bound=StrEnum)

_encode = msgspec.json.encode
_meta = msgspec.json.Decoder(Meta).decode


class Overlap(StrEnum):
    """What becomes of a tick while the job of the one before it has not ended."""

    SKIP = "skip"
    QUEUE = "queue"
    CANCEL_PREVIOUS = "cancel-previous"


class CatchUp(StrEnum):
    """What becomes of ticks that nobody could fire in time."""

    LATEST = "latest"
    NONE = "none"
    ALL = "all"


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a schedule ticks, and how its ticks meet each other. Made by `rule`, which checks; microseconds."""

    cron: str | None = None
    every: int | None = None
    timezone: str = "UTC"
    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.LATEST
    catch_up_limit: int = 100
    jitter: int = 0
    start: int | None = None
    end: int | None = None

    @property
    def timing(self) -> str:
        """What the instants of its ticks depend on, as text: where that is the same, the ticks are."""
        return _encode([self.cron, self.every, self.timezone, self.start, self.end]).decode()


class Definition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule, and the job that each of its ticks becomes."""

    rule: Rule
    task: str
    payload: str
    meta: str = "{}"
    version: int = 1
    queue: str = "default"
    priority: int = PRIORITY
    head_start: int = 0
    expires_after: int | None = None

    @property
    def text(self) -> str:
        """As stored: JSON. Equal definitions have equal texts."""
        return _encode(self).decode()


class Due(NamedTuple):
    """What is to be done about one schedule now."""

    ticks: tuple[int, ...]
    """To be fired, in this order."""
    cursor: int
    """Up to where ticks are dealt with, once these are fired."""
    next: int | None
    """When the next one comes due, if any ever does."""
    caught_up: bool
    """They make up for what was missed, so none of them is skipped because of another."""
    dropped: int | None
    """The first of the ticks that were missed and are not made up for, if there are any."""


read = msgspec.json.Decoder(Definition).decode
"""A Definition from its text; raises msgspec.DecodeError."""


def digest(text: str) -> str:
    """32 hexadecimal digits by which a store knows a definition again."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


# --- what a user may say ---------------------------------------------------------------------------------------------


def rule(given: dict[str, Any]) -> Rule:
    """A Rule from what a user said; raises InvalidSchedule that names the field and says what would be right.

    `cron` is an expression; `every` a duration from 1 second; `jitter` a duration; `start` and `end` are datetimes with
    a time zone; the others are as in Rule. Whether there is such a time zone is for who can load it to find out.
    """
    known = {name: value for name, value in given.items() if value is not None}
    cron, every = known.get("cron"), known.get("every")
    if (cron is None) == (every is None):
        problem = "say either cron or every" if cron is None else "cannot be given together with cron"
        raise InvalidSchedule("every" if cron is not None else "cron", problem)
    return Rule(
        cron=None if cron is None else str(Cron.parse(cron)),
        every=None if every is None else _duration(every, "every", EVERY_LEAST),
        timezone=_text(known.get("timezone", "UTC")),
        overlap=_choice(Overlap, known.get("overlap", Overlap.SKIP), "overlap"),
        catch_up=_choice(CatchUp, known.get("catch_up", CatchUp.LATEST), "catch_up"),
        catch_up_limit=_whole(known.get("catch_up_limit", 100), "catch_up_limit"),
        jitter=_duration(known.get("jitter", 0), "jitter", 0),
        **_span(known.get("start"), known.get("end")),
    )


def _duration(value: Any, field: str, least: int) -> int:
    try:
        found = micros(value, field)
    except ValueError as error:
        raise InvalidSchedule(field, str(error).removeprefix(f"{field}: ")) from None
    if found < least:
        raise InvalidSchedule(field, f"{value!r} must be at least {least / 1e6:g} s")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidSchedule("timezone", f"{value!r} must be the name of a time zone, such as 'Europe/Berlin'")
    return value


def _choice(kind: type[E], value: Any, field: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise InvalidSchedule(field, f"{value!r} must be one of {', '.join(kind)}") from None


def _whole(value: Any, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= CATCH_UP_MOST:
        raise InvalidSchedule(field, f"{value!r} must be a whole number, 1..{CATCH_UP_MOST}")
    return value


def _span(start: Any, end: Any) -> dict[str, int | None]:
    first = None if start is None else instant(start, "start")
    last = None if end is None else instant(end, "end")
    if first is not None and last is not None and last < first:
        raise InvalidSchedule("end", f"{end} lies before start")
    return {"start": first, "end": last}


def instant(value: Any, field: str) -> int:
    """A datetime as microseconds since 1970. Raises InvalidSchedule that names the field."""
    if not isinstance(value, datetime):
        raise InvalidSchedule(field, f"{value!r} must be a datetime with a time zone")
    if value.utcoffset() is None:
        raise InvalidSchedule(field, f"{value.isoformat()} has no time zone; write datetime(..., tzinfo=UTC)")
    found = (value - _EPOCH) // _MICRO
    if found < 0:
        raise InvalidSchedule(field, f"{value.isoformat()} lies before 1970")
    if found > LAST:
        raise InvalidSchedule(field, f"{value.isoformat()} lies behind the year 9998, where calendars end")
    return found


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MICRO = timedelta(microseconds=1)
LAST = (datetime.fromisoformat("9999-01-01T00:00:00+00:00") - _EPOCH) // _MICRO - 1
"""The last instant at which anything ticks: a year before Python's calendar ends, since whoever looks for the next tick
looks beyond it."""


# --- when it ticks ---------------------------------------------------------------------------------------------------


def next_tick(rule: Rule, after: int, zone: tzinfo) -> int | None:
    """The first tick strictly after `after`, in microseconds since 1970; None if there is none any more."""
    floor = after if rule.start is None else max(after, rule.start - 1)
    if rule.every is not None:
        # Counted from an anchor, so that two schedulers agree and nothing drifts.
        anchor = rule.start or 0
        tick: int | None = anchor + ((floor - anchor) // rule.every + 1) * rule.every
    else:
        tick = _cron(rule.cron or "").next(floor, zone)
    last = LAST if rule.end is None else min(rule.end, LAST)
    return None if tick is None or tick > last else tick


def ticks(rule: Rule, after: int, until: int, zone: tzinfo) -> Iterator[int]:
    """The ticks after `after`, up to and including `until`, in order; how many to take is the caller's to decide."""
    tick = next_tick(rule, after, zone)
    while tick is not None and tick <= until:
        yield tick
        tick = next_tick(rule, tick, zone)


def latest(rule: Rule, after: int, until: int, zone: tzinfo, most: int) -> list[int]:
    """The last `most` ticks of that span. Costs about as much as there are among them, however long the span is."""
    window = WINDOW if rule.every is None else rule.every * most
    while True:
        begin = max(after, until - window)
        found = deque(ticks(rule, begin, until, zone), maxlen=most)
        if begin == after or len(found) == most:
            return list(found)
        window *= 2


def due(rule: Rule, cursor: int, now: int, zone: tzinfo) -> Due:
    """What is due at `now`, when everything up to `cursor` was dealt with; applies the rule's catch-up."""
    if now <= cursor:
        return Due((), cursor, next_tick(rule, cursor, zone), False, None)
    begin = max(cursor, now - LATE)
    late = list(ticks(rule, begin, now, zone))
    most = {CatchUp.NONE: 0, CatchUp.LATEST: 0 if late else 1, CatchUp.ALL: max(0, rule.catch_up_limit - len(late))}
    missed = latest(rule, cursor, begin, zone, most[rule.catch_up]) if begin > cursor and most[rule.catch_up] else []
    found = (*missed, *late)
    first = next_tick(rule, cursor, zone)
    dropped = first if first is not None and first < (found[0] if found else now + 1) else None
    caught_up = len(found) > 1 or (rule.catch_up is CatchUp.ALL and bool(missed))
    # Past what is dropped as well: it must not be looked for again.
    return Due(found, found[-1] if found else now, next_tick(rule, now, zone), caught_up, dropped)


@lru_cache(maxsize=1_024)
def _cron(text: str) -> Cron:
    return Cron.parse(text)


# --- what a tick becomes ---------------------------------------------------------------------------------------------


def tick_job(name: str, revision: int, definition: Definition, tick: int) -> NewJob:
    """The job of one tick: due at the tick and its jitter."""
    hashed = blake2b(f"{name}\n{revision}\n{tick}".encode(), digest_size=16).digest()
    jitter = math.floor(definition.rule.jitter * int.from_bytes(hashed[10:], "big") / 2**48)
    meta = _meta(definition.meta)
    shard = zlib.crc32(meta.partition_key.encode()) % SHARDS if meta.partition_key else None
    id = job_id(tick // 1_000, hashed[:10], shard)
    return new_job(id, definition, _ticked(meta, name, tick, SCHEDULE + name), at=tick + jitter)


def new_job(id: str, definition: Definition, meta: Meta, at: int | None = None) -> NewJob:
    """A job of a schedule under an id; due at once unless `at` says when."""
    return NewJob(
        id=id,
        task=definition.task,
        payload=definition.payload,
        meta=_encode(meta).decode(),
        version=definition.version,
        queue=definition.queue,
        priority=definition.priority,
        head_start=definition.head_start,
        at=at,
        expires_after=definition.expires_after,
    )


def run_job(id: str, name: str, definition: Definition, now: int) -> NewJob:
    """The job of a run that a person asked for, at `now`."""
    return new_job(id, definition, _ticked(_meta(definition.meta), name, now, SCHEDULE + name))


def backfill_job(name: str, revision: int, definition: Definition, tick: int) -> NewJob:
    """The job of a tick of the past: under the tick's own id, so that one that was fired is not run again, but due at
    once, and one after the other among themselves, so that the schedule itself goes on beside them."""
    job = tick_job(name, revision, definition, tick)
    meta = _ticked(_meta(definition.meta), name, tick, BACKFILL + name)
    return msgspec.structs.replace(job, at=None, meta=_encode(meta).decode())


def _ticked(meta: Meta, name: str, tick: int, key: str) -> Meta:
    return msgspec.structs.replace(meta, schedule=name, tick=tick, limits=(*meta.limits, KeyLimit(key, 1)))
