"""What operators ask about schedules: Schedules, and AsyncSchedules for event loops, one line each over a plan."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Unpack

import msgspec

from windlass.core import schedule as core
from windlass.core.errors import InvalidSchedule, ScheduleNotFound
from windlass.core.words import span
from windlass.declaration import Arguments, call_of
from windlass.engine import storing
from windlass.handle import Job
from windlass.names import shown
from windlass.ports.plan import NOW, Plan, Steps, batches
from windlass.ports.store import CODE_SEEN, Fired, Schedule, ScheduleChange, Store, Tick
from windlass.runtime import zones
from windlass.schedule import (
    Backfilled,
    ScheduleInfo,
    ScheduleOptions,
    define,
    moment,
    put,
    redefine,
    upcoming,
    valid_schedule,
)
from windlass.task import Task, new_ids

if TYPE_CHECKING:
    from windlass.app import Windlass

Infos = list[ScheduleInfo]
"""The classes below have a method of the name `list`."""

NEXT = 5
NEXT_MOST = 1_000
"""Ticks in one answer, as many as the command line asks for."""
BACKFILL_MOST = 1_000
BATCH = 100


class Schedules:
    """The schedules of a store, blocking. Every method raises StoreUnavailable and its kin when the store does not
    answer; those that take a name, ScheduleNotFound."""

    def __init__(self, app: Windlass) -> None:
        self._app = app
        self._plans = _Plans(app)

    def create(
        self,
        name: str,
        task: str | Task[..., Any],
        arguments: Arguments = None,
        *,
        version: int = 1,
        **options: Unpack[ScheduleOptions],
    ) -> ScheduleInfo:
        """Store a new schedule of a task, which may be known by its name only; see ScheduleOptions.

        Creating again what is there already does nothing. Raises InvalidSchedule, also where another definition has the
        name, InvalidJob, PayloadInvalid and PayloadTooLarge, all of which name the field.
        """
        return self._app.engine.run(self._plans.create(name, task, arguments, version, options))

    def edit(self, name: str, arguments: Arguments = None, **options: Unpack[ScheduleOptions]) -> ScheduleInfo:
        """Change what is given, and nothing else; `start=None` and `end=None` take away what was set. Arguments are
        given whole. An edited schedule of the code stays as edited until the code defines another. Raises as create."""
        return self._app.engine.run(self._plans.edit(name, arguments, options))

    def list(self) -> Infos:
        """All of them by name, each with its next tick."""
        return self._app.engine.run(self._plans.list())

    def show(self, name: str, next: int = NEXT) -> ScheduleInfo:  # noqa: A002 - the word of the command line
        """One of them, with its `next` ticks, 0..1,000. Raises InvalidSchedule for what is no such number."""
        return self._app.engine.run(self._plans.show(name, next))

    def pause(self, name: str) -> ScheduleInfo:
        """Let it fire nothing until it is resumed."""
        return self._app.engine.run(self._plans.act(name, "pause"))

    def resume(self, name: str) -> ScheduleInfo:
        """Let it fire again, from now on: what was paused is not caught up."""
        return self._app.engine.run(self._plans.act(name, "resume"))

    def delete(self, name: str) -> None:
        """Remove it; its jobs stay. Raises InvalidSchedule for one that running code defines, as it would come back."""
        self._app.engine.run(self._plans.delete(name))

    def run(self, name: str) -> Job[Any]:
        """Enqueue its job now, also while it is paused. Its ticks go on as if nothing had happened, except that this
        job counts where ticks must not overlap; it waits itself for one that runs."""
        return Job(self._app, self._app.engine.run(self._plans.run(name)))

    def backfill(
        self, name: str, start: datetime, end: datetime, *, dry_run: bool = False, limit: int = BACKFILL_MOST
    ) -> Backfilled:
        """Enqueue a job for each tick from `start` up to, not including, `end`, both with a time zone, and in the past.

        A tick whose job is there, fired or backfilled, gets no other, so that a backfill which was interrupted can be
        repeated. The jobs run one after the other, beside the schedule's own. Raises InvalidSchedule where there are
        more than `limit` ticks, and QueueFull where its queue is bounded; what is stored by then stays.
        """
        wanted = self._app.engine.run(self._plans.range(name, start, end, limit))
        done = 0
        for part in wanted.parts(dry_run):
            done += self._app.engine.run(part)
        return wanted.answer(done)


class AsyncSchedules:
    """Schedules for an event loop: the same methods, awaited."""

    def __init__(self, app: Windlass) -> None:
        self._app = app
        self._plans = _Plans(app)

    async def create(
        self,
        name: str,
        task: str | Task[..., Any],
        arguments: Arguments = None,
        *,
        version: int = 1,
        **options: Unpack[ScheduleOptions],
    ) -> ScheduleInfo:
        """See Schedules."""
        return await self._app.engine.arun(self._plans.create(name, task, arguments, version, options))

    async def edit(self, name: str, arguments: Arguments = None, **options: Unpack[ScheduleOptions]) -> ScheduleInfo:
        """See Schedules."""
        return await self._app.engine.arun(self._plans.edit(name, arguments, options))

    async def list(self) -> Infos:
        """See Schedules."""
        return await self._app.engine.arun(self._plans.list())

    async def show(self, name: str, next: int = NEXT) -> ScheduleInfo:  # noqa: A002
        """See Schedules."""
        return await self._app.engine.arun(self._plans.show(name, next))

    async def pause(self, name: str) -> ScheduleInfo:
        """See Schedules."""
        return await self._app.engine.arun(self._plans.act(name, "pause"))

    async def resume(self, name: str) -> ScheduleInfo:
        """See Schedules."""
        return await self._app.engine.arun(self._plans.act(name, "resume"))

    async def delete(self, name: str) -> None:
        """See Schedules."""
        await self._app.engine.arun(self._plans.delete(name))

    async def run(self, name: str) -> Job[Any]:
        """See Schedules."""
        return Job(self._app, await self._app.engine.arun(self._plans.run(name)))

    async def backfill(
        self, name: str, start: datetime, end: datetime, *, dry_run: bool = False, limit: int = BACKFILL_MOST
    ) -> Backfilled:
        """See Schedules."""
        wanted = await self._app.engine.arun(self._plans.range(name, start, end, limit))
        done = 0
        for part in wanted.parts(dry_run):
            done += await self._app.engine.arun(part)
        return wanted.answer(done)


class _Range:
    """The ticks of a backfill, and the transactions in which they become jobs."""

    def __init__(self, store: Store, record: Schedule, definition: core.Definition, ticks: tuple[int, ...]) -> None:
        self._store = store
        self._definition = definition
        self._ticks = ticks
        self._jobs = [core.backfill_job(record.name, record.revision, definition, tick) for tick in ticks]
        self._seen = 0

    def parts(self, dry_run: bool) -> Iterator[Plan[int]]:
        """Plans that each enqueue some jobs that are missing, and answer how many; on a dry run they only count."""
        for jobs in batches(self._jobs, BATCH):
            ids = [job.id for job in jobs]

            def steps(jobs: Any = jobs, ids: Any = ids) -> Steps[int]:
                known = yield from self._store.fetch(ids)
                missing = [job for job, found in zip(jobs, known, strict=True) if found is None]
                if missing and not dry_run:
                    yield from storing(self._store, missing)
                return len(missing)

            yield Plan(steps, "backfill", write=not dry_run, hint=not dry_run)

    def answer(self, done: int) -> Backfilled:
        """What came of it."""
        ticks = tuple(moment(tick, self._definition) for tick in self._ticks)
        return Backfilled(ticks, done, len(ticks) - done)


class _Plans:
    """The plans of both."""

    def __init__(self, app: Windlass) -> None:
        self._app = app

    @property
    def store(self) -> Store:
        return self._app.engine.bare().store

    def create(
        self, name: str, task: str | Task[..., Any], arguments: Arguments, version: int, options: Any
    ) -> Plan[ScheduleInfo]:
        valid_schedule(name)
        if not isinstance(task, (str, Task)):
            raise InvalidSchedule("task", f"{shown(task)} must be a task or the name of one")
        known = self._app.asked(task, version) if isinstance(task, str) else task
        change = put(name, define(known, call_of(arguments), options), "operator")

        def steps() -> Steps[ScheduleInfo]:
            found = yield from self.store.schedules((name,))
            if found and found[0].definition != change.definition:
                raise InvalidSchedule("name", f"there is a schedule called {name!r}; edit it, or choose another name")
            if not found:
                yield from self.store.change_schedules((change,))
            return (yield from self._info(name, NEXT))

        return Plan(steps, "create", write=True)

    def edit(self, name: str, arguments: Arguments, options: Any) -> Plan[ScheduleInfo]:
        call = None if arguments is None else call_of(arguments)

        def steps() -> Steps[ScheduleInfo]:
            record, definition = yield from self._read(name)
            change = put(name, redefine(self._app, definition, call, options), "operator")
            if change.definition != record.definition:
                yield from self.store.change_schedules((change,))
            return (yield from self._info(name, NEXT))

        return Plan(steps, "edit", write=True)

    def list(self) -> Plan[Infos]:
        def steps() -> Steps[Infos]:
            now = (yield NOW)[0][0]
            return [_info(record, now, 1) for record in (yield from self.store.schedules())]

        return Plan(steps, "schedules", write=False)

    def show(self, name: str, count: int) -> Plan[ScheduleInfo]:
        if type(count) is not int or not 0 <= count <= NEXT_MOST:
            raise InvalidSchedule("next", f"{shown(count)} must be a whole number, 0..{NEXT_MOST:,}")
        return Plan(lambda: self._info(name, count), "schedule", write=False)

    def act(self, name: str, action: str) -> Plan[ScheduleInfo]:
        def steps() -> Steps[ScheduleInfo]:
            yield from self.store.change_schedules((ScheduleChange(name=name, action=action),))
            return (yield from self._info(name, NEXT))

        return Plan(steps, action, write=True)

    def delete(self, name: str) -> Plan[None]:
        def steps() -> Steps[None]:
            now = (yield NOW)[0][0]
            record = _found((yield from self.store.schedules((name,))), name)
            if record.seen_at is not None and now - record.seen_at <= CODE_SEEN:
                ago, left = span(now - record.seen_at), span(record.seen_at + CODE_SEEN - now)
                raise InvalidSchedule(
                    "name",
                    f"{name!r} is defined by code that runs (seen {ago} ago) and would come back: pause it, or take it "
                    f"out of the code and delete it once no worker has shown it for {span(CODE_SEEN)} (in {left}, if "
                    "none does)",
                )
            yield from self.store.change_schedules((ScheduleChange(name=name, action="delete"),))

        return Plan(steps, "delete", write=True)

    def run(self, name: str) -> Plan[str]:
        (id,) = new_ids(1)

        def steps() -> Steps[str]:
            now = (yield NOW)[0][0]
            record, definition = yield from self._read(name)
            overlap = definition.rule.overlap
            job = core.run_job(id, name, definition, now)
            tick = Tick(
                schedule=name,
                revision=record.revision,
                cursor=record.cursor,
                to=record.cursor,
                next_at=record.next_at,
                job=job,
                overlap="queue" if overlap is core.Overlap.SKIP else overlap.value,
                manual=True,
            )
            (answer,) = yield from self.store.fire((tick,))
            if answer is Fired.FIRED:
                return id
            # Its unique key is taken. Sent again in the same transaction, it answers whose.
            (known,) = yield from self.store.enqueue((job,))
            return known.id

        return Plan(steps, "run", write=True, hint=True)

    def range(self, name: str, start: datetime, end: datetime, limit: int) -> Plan[_Range]:
        first, last = core.instant(start, "start"), core.instant(end, "end")
        if last <= first:
            raise InvalidSchedule("end", f"{end} is not after start")
        if type(limit) is not int or not 1 <= limit <= 1_000_000:
            raise InvalidSchedule("limit", f"{limit!r} must be a whole number, 1..1,000,000")

        def steps() -> Steps[_Range]:
            now = (yield NOW)[0][0]
            record, definition = yield from self._read(name)
            if last > now:
                raise InvalidSchedule("end", f"{end} lies in the future; a backfill is for ticks of the past")
            zone = zones.load(definition.rule.timezone)
            ticks: list[int] = []
            for tick in core.ticks(definition.rule, first - 1, last - 1, zone):
                if len(ticks) == limit:
                    raise InvalidSchedule("limit", f"the range has more than {limit:,} ticks; allow more, or ask less")
                ticks.append(tick)
            return _Range(self.store, record, definition, tuple(ticks))

        return Plan(steps, "backfill", write=False)

    def _read(self, name: str) -> Steps[tuple[Schedule, core.Definition]]:
        record = _found((yield from self.store.schedules((name,))), name)
        try:
            return record, core.read(record.definition)
        except msgspec.DecodeError:
            raise InvalidSchedule("definition", f"a newer version of Windlass made the schedule {name!r}") from None

    def _info(self, name: str, count: int) -> Steps[ScheduleInfo]:
        now = (yield NOW)[0][0]
        return _info(_found((yield from self.store.schedules((name,))), name), now, count)


def _found(records: list[Schedule], name: str) -> Schedule:
    if not records:
        raise ScheduleNotFound(f"there is no schedule called {name!r}")
    return records[0]


def _info(record: Schedule, now: int, count: int) -> ScheduleInfo:
    try:
        definition = core.read(record.definition)
        return ScheduleInfo(record, definition, upcoming(record, definition, now, count))
    except (InvalidSchedule, ValueError, ArithmeticError):  # or it names a zone that this machine does not have
        return ScheduleInfo(record, None, ())

