"""A schedule as a user says it, made into a definition; and a handle to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import msgspec

from windlass.core import words
from windlass.core.backoff import Backoff
from windlass.core.document import raw
from windlass.core.duration import Duration
from windlass.core.errors import InvalidSchedule, PayloadInvalid
from windlass.core.job import Meta, read_meta
from windlass.core.placement import head_start
from windlass.core.schedule import Definition, Rule, digest, next_tick, rule
from windlass.declaration import Call
from windlass.handle import Job
from windlass.names import valid_name
from windlass.options import JobOptions, Terms
from windlass.ports.store import Schedule as Record
from windlass.ports.store import ScheduleChange
from windlass.runtime import zones
from windlass.task import Task

if TYPE_CHECKING:
    from windlass.app import Windlass
    from windlass.keys import Key
    from windlass.limits import Limit

_RULE = frozenset(Rule.__struct_fields__)
_OF_ONE_JOB = ("delay", "at", "idempotency_key")
_OF_ARGUMENTS = ("limit", "limit_key", "unique")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ScheduleOptions(TypedDict, total=False):
    """When a schedule ticks, how its ticks meet each other, and options of their jobs."""

    cron: str | None
    """Five fields, or six with seconds first; see the guide."""
    every: Duration | None
    """Instead of cron: at least 1 s; counted from `start`, or else from 1970."""
    timezone: str
    """In which cron is read; "UTC" unless said otherwise."""
    overlap: Literal["skip", "queue", "cancel-previous"]
    """What becomes of a tick while the job before it has not ended; skip unless said otherwise."""
    catch_up: Literal["latest", "none", "all"]
    """Which of the ticks are made up for that nobody could fire in time; latest unless said otherwise."""
    catch_up_limit: int
    """With all: at most this many, the latest (1..10,000; 100 unless said otherwise)."""
    jitter: Duration
    """Each job is due up to this much after its tick; how much follows from the tick."""
    start: datetime | None
    """No tick before this instant."""
    end: datetime | None
    """No tick after this instant."""
    queue: str
    priority: int
    expires: Duration | None
    timeout: Duration | None
    grace: Duration
    max_attempts: int
    backoff: Backoff
    tags: Sequence[str]
    headers: Mapping[str, str]
    result_ttl: Duration
    partition_key: str
    limit: int | Limit | Sequence[int | Limit] | None
    limit_key: Key


class ScheduleInfo(msgspec.Struct, frozen=True):
    """A schedule as it stands in the store."""

    record: Record
    definition: Definition | None
    """None where a newer version wrote what this one cannot read."""
    next: tuple[datetime, ...]
    """Its next ticks, in its own time zone. Nothing fires while it is paused."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def paused(self) -> bool:
        """Whether it is paused."""
        return self.record.paused


class Backfilled(msgspec.Struct, frozen=True):
    """What a backfill did, or would do."""

    ticks: tuple[datetime, ...]
    """Of the range."""
    enqueued: int
    already: int
    """Ticks whose jobs were there."""


class Schedule:
    """A handle to a schedule; every method asks the store. `name` is its name."""

    __slots__ = ("_app", "name")

    def __init__(self, app: Windlass, name: str) -> None:
        self._app = app
        self.name = name

    def __repr__(self) -> str:
        return f"<schedule {self.name}>"

    def show(self, next: int = 5) -> ScheduleInfo:  # noqa: A002 - the word of the command line
        """How it stands, with its next ticks. Raises ScheduleNotFound."""
        return self._app.client.schedules.show(self.name, next)

    async def ashow(self, next: int = 5) -> ScheduleInfo:  # noqa: A002
        """`show` for an event loop."""
        return await self._app.aclient.schedules.show(self.name, next)

    def run(self) -> Job[Any]:
        """Enqueue its job now, beside its ticks. Raises ScheduleNotFound."""
        return self._app.client.schedules.run(self.name)

    async def arun(self) -> Job[Any]:
        """`run` for an event loop."""
        return await self._app.aclient.schedules.run(self.name)

    def pause(self) -> ScheduleInfo:
        """Let it fire nothing until it is resumed. Raises ScheduleNotFound."""
        return self._app.client.schedules.pause(self.name)

    async def apause(self) -> ScheduleInfo:
        """`pause` for an event loop."""
        return await self._app.aclient.schedules.pause(self.name)

    def resume(self) -> ScheduleInfo:
        """Let it fire again, from now on. Raises ScheduleNotFound."""
        return self._app.client.schedules.resume(self.name)

    async def aresume(self) -> ScheduleInfo:
        """`resume` for an event loop."""
        return await self._app.aclient.schedules.resume(self.name)


def define(task: Task[..., Any], call: Call, options: Mapping[str, Any]) -> Definition:
    """The definition of a schedule of `task` with these arguments.

    Raises InvalidSchedule, InvalidJob, PayloadInvalid and PayloadTooLarge, which name the field.
    """
    timing = rule({name: options[name] for name in options if name in _RULE})
    zones.load(timing.timezone)
    job = task.using(**_job_options(options)).new_job(call.args, call.kwargs, None)
    if job.after:
        raise InvalidSchedule("unique", "a debounce says itself when the job is due, and so does a schedule")
    return Definition(
        rule=timing,
        task=job.task,
        payload=job.payload,
        meta=job.meta,
        version=job.version,
        queue=job.queue,
        priority=job.priority,
        head_start=job.head_start,
        expires_after=job.expires_after,
    )


def redefine(app: Windlass, old: Definition, call: Call | None, options: Mapping[str, Any]) -> Definition:
    """A definition with other arguments, or options, and everything else as it was; raises as `define` does."""
    for field in _OF_ARGUMENTS:
        if field in options:
            raise InvalidSchedule(field, "cannot be edited; delete the schedule and create it anew")
    said = {name: options[name] for name in options if name in _RULE}
    for field in said.keys() - {"start", "end", "cron", "every"}:
        if said[field] is None:
            raise InvalidSchedule(field, "None is no value for it; leave it out to keep what it is")
    kept = {name: value for name, value in _said(old.rule).items() if name not in said}
    if said.get("every") is not None or said.get("cron") is not None:
        kept.pop("cron" if "cron" not in said else "every", None)
    timing = rule({**kept, **said})
    zones.load(timing.timezone)
    meta = read_meta(old.meta)
    terms = Terms(
        queue=old.queue,
        priority=old.priority,
        expires_after=old.expires_after,
        tags=meta.tags,
        headers=meta.headers,
        partition_key=meta.partition_key,
        policy=meta.policy,
    ).having(_job_options(options))
    payload, limits, unique = old.payload, meta.limits, meta.unique
    if call is not None:
        payload, fresh = _enqueued(app, old, call)
        limits, unique = _following(app, old, meta, fresh)
    meta = msgspec.structs.replace(
        meta,
        policy=terms.policy,
        tags=terms.tags,
        headers=terms.headers,
        partition_key=terms.partition_key,
        limits=limits,
        unique=unique,
    )
    return msgspec.structs.replace(
        old,
        rule=timing,
        payload=payload,
        meta=msgspec.json.encode(meta).decode(),
        queue=terms.queue,
        priority=terms.priority,
        head_start=head_start(terms.priority, app.settings.seconds_per_priority),
        expires_after=terms.expires_after,
    )


def _enqueued(app: Windlass, old: Definition, call: Call) -> tuple[str, Meta]:
    job = app.named(old.task, old.version).new_job(call.args, call.kwargs, None)
    return job.payload, read_meta(job.meta)


def _following(app: Windlass, old: Definition, meta: Meta, fresh: Meta) -> tuple[Any, Any]:
    """The limits and the unique key for other arguments. Keys that were made from arguments are made from the new ones,
    where the task says how; those that the schedule was given itself stay, or else they would stop holding (I9)."""
    if old.task in app.tasks:
        if not meta.limits and meta.unique is None:
            return fresh.limits, fresh.unique
        with suppress(PayloadInvalid):  # arguments that the code no longer takes may be what the edit is to mend
            args, kwargs = app.tasks[old.task].taskdef().bind(old.payload, old.version)
            _, before = _enqueued(app, old, Call(tuple(args), kwargs))
            if (before.limits, before.unique) == (meta.limits, meta.unique):
                return fresh.limits, fresh.unique
    if meta.unique is not None or any("," in limit.key for limit in meta.limits):
        raise InvalidSchedule(
            "arguments", "its limits or its unique key may follow from them; delete the schedule and create it anew"
        )
    return meta.limits, meta.unique


def valid_schedule(name: Any) -> str:
    """The name of a schedule; raises InvalidSchedule."""
    try:
        return valid_name(name, "name")
    except ValueError as error:
        raise InvalidSchedule("name", str(error).removeprefix("name: ")) from None


def put(name: str, definition: Definition, origin: str) -> ScheduleChange:
    """The change that makes `definition` the schedule called `name`."""
    text = definition.text
    return ScheduleChange(
        name=name,
        action="put",
        definition=text,
        digest=digest(text),
        timing=definition.rule.timing,
        origin=origin,
    )


def upcoming(record: Record, definition: Definition, now: int, count: int) -> tuple[datetime, ...]:
    """The next ticks of a schedule, at the store's time `now`."""
    zone = zones.load(definition.rule.timezone)
    found: list[datetime] = []
    tick = next_tick(definition.rule, max(now, record.cursor), zone)
    while tick is not None and len(found) < count:
        found.append(moment(tick, definition))
        tick = next_tick(definition.rule, tick, zone)
    return tuple(found)


def has_ended(record: Record, definition: Definition) -> bool:
    """Whether it will never tick again; raises InvalidSchedule for a zone that this machine does not have."""
    # `next_at` is only an instant at which a scheduler looks at it: after a change, at once.
    return record.next_at is None or not upcoming(record, definition, record.cursor, 1)


def moment(tick: int, definition: Definition) -> datetime:
    """An instant in a schedule's own time zone."""
    return (_EPOCH + timedelta(microseconds=tick)).astimezone(zones.load(definition.rule.timezone))


def document(info: ScheduleInfo) -> dict[str, Any]:
    """A schedule as a document, for scripts and the web: instants are ISO 8601 in UTC, spans are seconds."""
    record, definition = info.record, info.definition
    timing = definition.rule if definition else Rule()
    meta = _meta(definition.meta if definition else "{}")
    coming = () if record.paused else info.next
    over = definition is not None and not info.next and has_ended(record, definition)
    state = "paused" if record.paused else "ended" if over or record.next_at is None else "open"
    return {
        "name": record.name,
        "task": definition.task if definition else None,
        "arguments": raw(definition.payload) if definition else None,
        "cron": timing.cron,
        "every": None if timing.every is None else timing.every / 1e6,
        "timezone": timing.timezone,
        "overlap": timing.overlap.value,
        "catch_up": timing.catch_up.value,
        "catch_up_limit": timing.catch_up_limit,
        "jitter": timing.jitter / 1e6,
        "start": words.instant(timing.start),
        "end": words.instant(timing.end),
        "queue": definition.queue if definition else None,
        "priority": definition.priority if definition else None,
        "expires": None if definition is None or not definition.expires_after else definition.expires_after / 1e6,
        "timeout": meta.policy.timeout,
        "max_attempts": meta.policy.max_attempts,
        "tags": list(meta.tags),
        "headers": meta.headers,
        "limits": [{"key": limit.key, "most": limit.most} for limit in meta.limits],
        "unique": meta.unique.key if meta.unique else None,
        "state": state,
        "revision": record.revision,
        "origin": record.origin,
        "created_at": words.instant(record.created_at),
        "changed_at": words.instant(record.changed_at),
        "seen_at": words.instant(record.seen_at),
        "last_tick": words.instant(record.last_tick),
        "last_outcome": record.last_outcome,
        "last_job": record.last_job,
        "fired": record.fired,
        "skipped": record.skipped,
        "next_tick": _written(coming[0]) if coming else None,
        "next": [_written(tick) for tick in coming],
    }


def _written(tick: datetime) -> str | None:
    return words.instant((tick - _EPOCH) // timedelta(microseconds=1))


def _meta(text: str) -> Meta:
    try:
        return read_meta(text)
    except msgspec.DecodeError:
        return Meta()


def _said(timing: Rule) -> dict[str, Any]:
    """A rule as a user would say it."""
    known = msgspec.structs.asdict(timing)
    for name in ("every", "jitter"):
        known[name] = None if known[name] is None else timedelta(microseconds=known[name])
    for name in ("start", "end"):
        known[name] = None if known[name] is None else _EPOCH + timedelta(microseconds=known[name])
    return known


def _job_options(options: Mapping[str, Any]) -> JobOptions:
    for field in _OF_ONE_JOB:
        if field in options:
            raise InvalidSchedule(field, "belongs to one job; a schedule says itself when its jobs are due")
    if isinstance(options.get("expires"), datetime):
        raise InvalidSchedule("expires", "must be a duration, counted for each job; a schedule ends at its end")
    found: Any = {name: options[name] for name in options if name not in _RULE}
    return found  # type: ignore[no-any-return]
