"""What operators and services ask of a store: Client, and AsyncClient for event loops, one line each over a plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast

import msgspec

from windlass.acting import acting, cancelling
from windlass.config import located
from windlass.core import job as records
from windlass.core import latency
from windlass.core.duration import Duration, micros
from windlass.core.errors import InvalidJob, InvalidValue, JobNotFound
from windlass.core.flow import Bounds
from windlass.core.job import Attempt, LogLine
from windlass.core.latency import TaskLatency
from windlass.declaration import Arguments, call_of
from windlass.handle import Job
from windlass.names import shown, valid_queue
from windlass.options import JobOptions
from windlass.ports.plan import Plan, Steps
from windlass.ports.store import (
    DeadGroup,
    Ending,
    Filter,
    Page,
    Pruned,
    PruneRules,
    QueueChange,
    QueueRules,
    Selected,
    Selection,
    Stats,
    Store,
    Why,
    WorkerInfo,
)

if TYPE_CHECKING:
    from windlass.app import Windlass
    from windlass.schedules import AsyncSchedules, Schedules

T = TypeVar("T")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

WhenFull = Literal["reject", "shed"]

PRUNE_ROWS = 1_000
DEPTH_MOST = 100_000
"""Every enqueue into a bounded queue counts as far as its bound."""
SAMPLE = 10_000
"""Ended jobs from which latencies are told: read in tens of milliseconds, however many there are."""


class Client:
    """A store's operations, blocking. Jobs and their tasks are named by text, so the code of tasks is not needed.

    Every method raises StoreUnavailable and its kin when the store does not answer.
    """

    def __init__(self, app: Windlass) -> None:
        self._app = app
        self._plans = _Plans(app)

    @property
    def schedules(self) -> Schedules:
        """The schedules of the store."""
        from windlass.schedules import Schedules

        return Schedules(self._app)

    def enqueue(
        self, task: str, arguments: Arguments = None, *, version: int = 1, **options: Unpack[JobOptions]
    ) -> Job[Any]:
        """Store one job of the task called `task`; see Task.enqueue and JobOptions.

        If the application has the task, its own options and checks apply. `version` is that of the payload, 1 to
        2147483647, for a task whose code is elsewhere; of one that is here it can only be the task's own. Raises
        InvalidJob and its kin, which name the field.
        """
        call = call_of(arguments)
        return self._app.asked(task, version, options).enqueue(*call.args, **call.kwargs)

    def fetch(self, id: str) -> records.Job:
        """The job of that id as it is now; raises JobNotFound."""
        return self._app.engine.run(self._plans.fetch(id))

    def search(self, filter: Filter | None = None, *, limit: int = 50, after: str | None = None) -> Page:
        """Matching jobs, newest first, at most `limit`; `after` is the `next` of the page before.

        Raises InvalidJob for a `limit` that is no whole number from 1, as do the others that take one, and for an
        `after` that is no job's id.
        """
        return self._app.engine.run(self._plans.search(filter, limit, after))

    def cancel(
        self,
        *ids: str,
        filter: Filter | None = None,
        limit: int = 1_000,
        dry_run: bool = False,
        after: str | None = None,
        children: bool = False,
    ) -> Selected:
        """Cancel jobs by id or by filter: waiting ones at once, running ones are told.

        A filter finds at most `limit` jobs, newest first; `after`, the `next` of the answer before, goes on from there.
        With ids and a filter, those of the named that match it. With `children`, all descendants of those jobs as well,
        also of those that match and have ended already; and what a running one of them still enqueues is stored as
        cancelled. Raises InvalidJob for what is no filter, id or limit.
        """
        return self._act(cancelling(self._plans.store, _cancel(ids, filter, limit, dry_run, after, children)))

    def revive(
        self,
        *ids: str,
        filter: Filter | None = None,
        limit: int = 1_000,
        dry_run: bool = False,
        after: str | None = None,
        delay: Duration = 0,
        every: Duration = 0,
    ) -> Selected:
        """Queue ended jobs again, with fresh attempts; make waiting ones due now. Ids, filter, `limit` and `after` are
        those of `cancel`.

        With `every` ("20ms", a timedelta, seconds) they come due one by one, that far apart, in the order answered, and
        the first after `delay`: a rate that holds whatever becomes of this program. Raises ValueError for a duration
        that is none.
        """
        selection = _spread(_selection(ids, filter, limit, dry_run, after), delay, every)
        return self._act(acting(self._plans.store.revive, selection))

    def delete(
        self,
        *ids: str,
        filter: Filter | None = None,
        limit: int = 1_000,
        dry_run: bool = False,
        after: str | None = None,
    ) -> Selected:
        """Remove jobs that are not running, with all they own. Ids, filter, `limit` and `after`: see `cancel`."""
        return self._act(acting(self._plans.store.delete, _selection(ids, filter, limit, dry_run, after)))

    def _act(self, steps: Generator[Plan[Any], Any, Selected]) -> Selected:
        try:
            plan = next(steps)
            while True:
                plan = steps.send(self._app.engine.run(plan))
        except StopIteration as end:
            return cast("Selected", end.value)

    def edit(self, id: str, arguments: Arguments) -> Selected:
        """Give a job that is not running other arguments; checked as at enqueue. Raises JobNotFound, PayloadInvalid."""
        return self._app.engine.run(self._plans.edit(id, arguments))

    def attempts(self, id: str) -> list[Attempt]:
        """The history of a job, oldest first."""
        return self._app.engine.run(self._plans.store.attempts(id))

    def logs(self, id: str, after: int = 0) -> list[LogLine]:
        """The log lines of a job, without the first `after`."""
        return self._app.engine.run(self._plans.store.logs(id, after))

    def why(self, id: str) -> Why:
        """The facts from which it is told why a job is not running; raises JobNotFound."""
        return self._app.engine.run(self._plans.why(id))

    def stats(self, *, exact: bool = False) -> Stats:
        """Counts by state and queue; unless `exact`, large ones stop at a cap."""
        return self._app.engine.run(self._plans.store.stats(exact))

    def dead_groups(self, *, limit: int = 100) -> list[DeadGroup]:
        """The dead letters by their causes, the largest group first; a cause is a task, a class of exception and a
        place in your code."""
        return self._app.engine.run(self._plans.store.dead_groups(_most(limit)))

    def latencies(self, *, sample: int = SAMPLE) -> list[TaskLatency]:
        """How the tasks fare, by name: of the `sample` ended jobs that were enqueued last, how many completed and died,
        and how long they took and waited."""
        endings: list[Ending] = self._app.engine.run(self._plans.store.endings(_most(sample, "sample")))
        return summarise(endings)

    def queues(self) -> dict[str, bool]:
        """The queues of which anything was ever said, with whether they are paused; `rules` has the rest."""
        return _paused(self._app.engine.run(self._plans.store.queues()))

    def rules(self) -> dict[str, QueueRules]:
        """What was said of queues, and holds: whether each is `paused`, its `limit` and its `bounds`."""
        return self._app.engine.run(self._plans.store.queues())

    def pause(self, *queues: str) -> dict[str, bool]:
        """Let no worker claim from these queues; what runs goes on. Raises InvalidJob for what is no queue's name."""
        return _paused(self._app.engine.run(self._plans.pause(queues, True)))

    def resume(self, *queues: str) -> dict[str, bool]:
        """Undo `pause`."""
        return _paused(self._app.engine.run(self._plans.pause(queues, False)))

    def limit(self, queue: str, most: int | None) -> QueueRules:
        """Let at most `most` jobs of a queue run at once, over all workers; None lifts the limit. Answers what now
        holds for the queue.

        It holds from the next claim on, also for what waits already; what runs goes on. Raises InvalidJob for what is
        no whole number from 1, or no name of a queue.
        """
        return self._app.engine.run(self._plans.limit(queue, most))

    def bound(
        self,
        queue: str,
        *,
        depth: int | None = None,
        age: Duration | None = None,
        when_full: WhenFull = "reject",
    ) -> QueueRules:
        """Let a queue take no more once `depth` due jobs wait in it, or the first in line has been due for `age`; what
        is None is no bound. Answers what now holds for the queue.

        When it is full an enqueue raises QueueFull ("reject"), or the job is stored as cancelled, reason `shed`
        ("shed"). Retries, revivals, children and what is due later are never refused. Raises InvalidJob for a depth
        that is no whole number, 1..100,000, and for an age of nothing.
        """
        return self._app.engine.run(self._plans.bound(queue, depth, age, when_full))

    def workers(self) -> list[WorkerInfo]:
        """The workers that beat, and those that stopped and were not taken over yet."""
        return self._app.engine.run(self._plans.store.workers())

    def prune(self, rules: PruneRules | None = None, *, limit: int = PRUNE_ROWS) -> Pruned:
        """Remove what is older than the rules (default: the application's settings), about `limit` rows at a time.
        Raises InvalidValue for rules that are none."""
        return self._app.engine.run(self._plans.prune(rules, limit))


class AsyncClient:
    """Client for an event loop: the same methods, awaited."""

    def __init__(self, app: Windlass) -> None:
        self._app = app
        self._plans = _Plans(app)

    @property
    def schedules(self) -> AsyncSchedules:
        """See Client."""
        from windlass.schedules import AsyncSchedules

        return AsyncSchedules(self._app)

    async def enqueue(
        self, task: str, arguments: Arguments = None, *, version: int = 1, **options: Unpack[JobOptions]
    ) -> Job[Any]:
        """See Client."""
        call = call_of(arguments)
        return await self._app.asked(task, version, options).aenqueue(*call.args, **call.kwargs)

    async def fetch(self, id: str) -> records.Job:
        """See Client."""
        return await self._app.engine.arun(self._plans.fetch(id))

    async def search(self, filter: Filter | None = None, *, limit: int = 50, after: str | None = None) -> Page:
        """See Client."""
        return await self._app.engine.arun(self._plans.search(filter, limit, after))

    async def cancel(
        self,
        *ids: str,
        filter: Filter | None = None,
        limit: int = 1_000,
        dry_run: bool = False,
        after: str | None = None,
        children: bool = False,
    ) -> Selected:
        """See Client."""
        return await self._act(cancelling(self._plans.store, _cancel(ids, filter, limit, dry_run, after, children)))

    async def revive(
        self,
        *ids: str,
        filter: Filter | None = None,
        limit: int = 1_000,
        dry_run: bool = False,
        after: str | None = None,
        delay: Duration = 0,
        every: Duration = 0,
    ) -> Selected:
        """See Client."""
        selection = _spread(_selection(ids, filter, limit, dry_run, after), delay, every)
        return await self._act(acting(self._plans.store.revive, selection))

    async def delete(
        self,
        *ids: str,
        filter: Filter | None = None,
        limit: int = 1_000,
        dry_run: bool = False,
        after: str | None = None,
    ) -> Selected:
        """See Client."""
        return await self._act(acting(self._plans.store.delete, _selection(ids, filter, limit, dry_run, after)))

    async def _act(self, steps: Generator[Plan[Any], Any, Selected]) -> Selected:
        try:
            plan = next(steps)
            while True:
                plan = steps.send(await self._app.engine.arun(plan))
        except StopIteration as end:
            return cast("Selected", end.value)

    async def edit(self, id: str, arguments: Arguments) -> Selected:
        """See Client."""
        return await self._app.engine.arun(self._plans.edit(id, arguments))

    async def attempts(self, id: str) -> list[Attempt]:
        """See Client."""
        return await self._app.engine.arun(self._plans.store.attempts(id))

    async def logs(self, id: str, after: int = 0) -> list[LogLine]:
        """See Client."""
        return await self._app.engine.arun(self._plans.store.logs(id, after))

    async def why(self, id: str) -> Why:
        """See Client."""
        return await self._app.engine.arun(self._plans.why(id))

    async def stats(self, *, exact: bool = False) -> Stats:
        """See Client."""
        return await self._app.engine.arun(self._plans.store.stats(exact))

    async def dead_groups(self, *, limit: int = 100) -> list[DeadGroup]:
        """See Client."""
        return await self._app.engine.arun(self._plans.store.dead_groups(_most(limit)))

    async def latencies(self, *, sample: int = SAMPLE) -> list[TaskLatency]:
        """See Client."""
        endings: list[Ending] = await self._app.engine.arun(self._plans.store.endings(_most(sample, "sample")))
        return summarise(endings)

    async def queues(self) -> dict[str, bool]:
        """See Client."""
        return _paused(await self._app.engine.arun(self._plans.store.queues()))

    async def rules(self) -> dict[str, QueueRules]:
        """See Client."""
        return await self._app.engine.arun(self._plans.store.queues())

    async def pause(self, *queues: str) -> dict[str, bool]:
        """See Client."""
        return _paused(await self._app.engine.arun(self._plans.pause(queues, True)))

    async def resume(self, *queues: str) -> dict[str, bool]:
        """See Client."""
        return _paused(await self._app.engine.arun(self._plans.pause(queues, False)))

    async def limit(self, queue: str, most: int | None) -> QueueRules:
        """See Client."""
        return await self._app.engine.arun(self._plans.limit(queue, most))

    async def bound(
        self,
        queue: str,
        *,
        depth: int | None = None,
        age: Duration | None = None,
        when_full: WhenFull = "reject",
    ) -> QueueRules:
        """See Client."""
        return await self._app.engine.arun(self._plans.bound(queue, depth, age, when_full))

    async def workers(self) -> list[WorkerInfo]:
        """See Client."""
        return await self._app.engine.arun(self._plans.store.workers())

    async def prune(self, rules: PruneRules | None = None, *, limit: int = PRUNE_ROWS) -> Pruned:
        """See Client."""
        return await self._app.engine.arun(self._plans.prune(rules, limit))


class _Plans:
    """The plans that are more than one of the store's own."""

    def __init__(self, app: Windlass) -> None:
        self._app = app

    @property
    def store(self) -> Store:
        return self._app.engine.bare().store

    def pause(self, queues: Sequence[str], paused: bool) -> Plan[dict[str, QueueRules]]:
        _checked(lambda: [valid_queue(queue, "queue") for queue in queues], "queue")
        return self.store.queues([QueueChange(queue, paused) for queue in queues])

    def limit(self, queue: str, most: int | None) -> Plan[QueueRules]:
        _check_most(most)
        return self._rule(QueueChange(queue, limit=most or 0))

    def bound(self, queue: str, depth: int | None, age: Duration | None, when_full: str) -> Plan[QueueRules]:
        _check_bounds(depth, when_full)
        found: list[int] = []
        _checked(lambda: found.append(0 if age is None else micros(age, "age")), "age")
        if age is not None and not found[0]:
            raise InvalidJob("age", f"{age!r} is no time at all; None is no bound")
        return self._rule(QueueChange(queue, bounds=Bounds(depth, found[0] or None, when_full == "shed")))

    def _rule(self, change: QueueChange) -> Plan[QueueRules]:
        _checked(lambda: valid_queue(change.queue, "queue"), "queue")

        def steps() -> Steps[QueueRules]:
            return (yield from self.store.queues([change]))[change.queue]

        return Plan(steps, "queues", write=True)

    def search(self, filter: Filter | None, limit: int, after: str | None) -> Plan[Page]:
        return self.store.search(_filter(filter) or Filter(), _most(limit), _after(after))

    def fetch(self, id: str) -> Plan[records.Job]:
        def steps() -> Steps[records.Job]:
            (job,) = yield from self.store.fetch((id,))
            return _found(job, id)

        return Plan(steps, "fetch", write=False)

    def why(self, id: str) -> Plan[Why]:
        def steps() -> Steps[Why]:
            found = _found((yield from self.store.why(id)), id)
            return msgspec.structs.replace(found, where=located(self._app.settings.url))

        return Plan(steps, "why", write=False)

    def prune(self, rules: PruneRules | None, limit: int) -> Plan[Pruned]:
        if rules is not None and not isinstance(rules, PruneRules):
            raise InvalidValue("rules", f"{shown(rules)} must be PruneRules, or None for the application's settings")
        return self.store.prune(rules or self._app.settings.prune_rules(), _most(limit))

    def edit(self, id: str, arguments: Arguments) -> Plan[Selected]:
        call = call_of(arguments)

        def steps() -> Steps[Selected]:
            job = _found((yield from self.store.fetch((id,)))[0], id)
            payload = self._app.named(job.task, job.version, {}).new_job(call.args, call.kwargs, None).payload
            return (yield from self.store.edit(id, payload))

        return Plan(steps, "edit", write=True)


_TEXTS = ("queue", "task", "tag", "reason", "parent", "schedule", "fingerprint", "tenant")
_INSTANTS = ("since", "until", "ended_before")


def _spread(selection: Selection, delay: Duration, every: Duration) -> Selection:
    return msgspec.structs.replace(selection, delay=micros(delay, "delay"), every=micros(every, "every"))


def _most(value: Any, field: str = "limit") -> int:
    """How many are asked for, checked: a store would take a negative number for one from the end, or for all."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise InvalidJob(field, f"{shown(value)} must be a whole number, 1..{2**31 - 1}")
    return value


def _after(id: Any) -> str | None:
    """Where to go on, checked: after what is no id at all, a list would end in silence."""
    if id is not None and not (isinstance(id, str) and _ID.fullmatch(id)):
        raise InvalidJob("after", f"{shown(id)} is no job's id; give the `next` of the page before")
    return id


def _selection(
    ids: tuple[str, ...], filter: Filter | None, limit: int, dry_run: bool, after: str | None = None
) -> Selection:
    for id in ids:
        if not isinstance(id, str):
            raise InvalidJob("ids", f"{shown(id)} is no id; give them one by one, as in cancel(*ids)")
    return Selection(ids, _filter(filter), _most(limit), dry_run, _after(after))


def _filter(given: Filter | None) -> Filter | None:
    """Checked, and with the states as the stores compare them: else one store finds what another does not."""
    if given is None:
        return None
    if not isinstance(given, Filter):
        raise InvalidJob("filter", f"{shown(given)} is no Filter")
    for name in _TEXTS:
        if not isinstance(getattr(given, name), str | None):
            raise InvalidJob(f"filter.{name}", f"{shown(getattr(given, name))} must be a text")
    for name in _INSTANTS:
        value = getattr(given, name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise InvalidJob(f"filter.{name}", f"{shown(value)} must be a whole number of microseconds since 1970")
    states: Any = given.states
    try:
        some = (states,) if isinstance(states, str) else states
        return msgspec.structs.replace(given, states=tuple(map(records.State, some)))
    except (TypeError, ValueError):
        raise InvalidJob("filter.states", f"{shown(given.states)} must be states: {', '.join(records.State)}") from None


def _cancel(
    ids: tuple[str, ...], filter: Filter | None, limit: int, dry_run: bool, after: str | None, children: bool
) -> Selection:
    return msgspec.structs.replace(_selection(ids, filter, limit, dry_run, after), children=children)


def _paused(rules: dict[str, QueueRules]) -> dict[str, bool]:
    return {queue: said.paused for queue, said in rules.items()}


def _check_most(most: Any) -> None:
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or not 1 <= most < 2**31):
        raise InvalidJob("most", f"{most!r} must be a whole number from 1, or None for no limit")


def _check_bounds(depth: Any, when_full: Any) -> None:
    if depth is not None and (not isinstance(depth, int) or isinstance(depth, bool) or not 1 <= depth <= DEPTH_MOST):
        raise InvalidJob("depth", f"{depth!r} must be a whole number, 1..{DEPTH_MOST}, or None for no bound")
    if when_full not in ("reject", "shed"):
        raise InvalidJob("when_full", f"{when_full!r} must be reject or shed")


def _checked(check: Callable[[], object], field: str) -> None:
    try:
        check()
    except ValueError as error:
        raise InvalidJob(field, str(error).removeprefix(f"{field}: ")) from None


def summarise(endings: list[Ending]) -> list[TaskLatency]:
    """Endings by task."""
    return latency.summarise((e.task, e.state, e.created_at, e.due_at, e.started_at, e.finished_at) for e in endings)


def _found(answer: T | None, id: str) -> T:
    if answer is None:
        raise JobNotFound(id, f"job {id} is not in the store")
    return answer
