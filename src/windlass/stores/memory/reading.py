"""Reading: jobs, histories, counts, and the facts behind `why`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise

import msgspec

from windlass.core.fingerprint import kept
from windlass.core.job import Attempt, Job, LogLine, Meta, State, read_meta
from windlass.ports.plan import NOW, Steps, plan
from windlass.ports.store import Filter, Page, QueueStats, Stats, Why
from windlass.stores.memory.tables import LINES, Row
from windlass.stores.memory.unique import place_of
from windlass.stores.memory.workers import Liveness

AHEAD = 10_000
"""Where the place in line stops being counted."""


class Reading(Liveness):
    """The operations that change nothing."""

    @plan(write=False)
    def fetch(self, ids: Sequence[str]) -> Steps[list[Job | None]]:
        """See Store.fetch."""
        yield NOW
        rows = [self.data.jobs.get(id) for id in ids]
        return [row.as_job() if row else None for row in rows]

    @plan(write=False)
    def attempts(self, job: str) -> Steps[list[Attempt]]:
        """See Store.attempts."""
        yield NOW
        return list(self.data.attempts.get(job, ()))

    @plan(write=False)
    def logs(self, job: str, after: int = 0) -> Steps[list[LogLine]]:
        """See Store.logs."""
        yield NOW
        return list(self.data.logs.get(job, ())[after:])

    @plan(write=False)
    def search(self, filter: Filter, limit: int, after: str | None = None) -> Steps[Page]:
        """See Store.search."""
        yield NOW
        rows = self._matching(filter, after, lambda _: True)
        jobs = [row.as_job() for row in islice(rows, limit + 1)]
        return Page(jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else None)

    def _matching(self, wanted: Filter, after: str | None, fits: Callable[[Row], bool]) -> Iterator[Row]:
        walk = self.data.jobs.backwards(None if after is None else self._before(after))
        return (row for row in walk if matches(row, wanted) and fits(row))

    def _before(self, id: str) -> int:
        """The order number below which a search goes on after that job; if it is gone, after the place of its id."""
        known = self.data.jobs.get(id)
        if known is not None:
            return known.seq
        older = max((row for row in self.data.jobs.values() if row.new.id < id), key=lambda r: r.new.id, default=None)
        return older.seq + 1 if older else 0

    @plan(write=False)
    def stats(self, exact: bool = False) -> Steps[Stats]:
        """See Store.stats. Counting a dict is cheap, so these are always exact."""
        now = (yield NOW)[0][0]
        counts = Counter((row.new.queue, row.state) for row in self.data.jobs.values())
        states = {state.value: sum(counts[q, s] for q, s in counts if s is state) for state in State}
        open_queues = {queue for queue, state in counts if not state.terminal}
        queues = [self._glance(queue, counts, now) for queue in sorted(open_queues | self.data.rules.keys())]
        return Stats(states, queues, now, exact=True)

    def _glance(self, queue: str, counts: Counter[tuple[str, State]], now: int) -> QueueStats:
        ready = [row for suspect in (False, True) for row in self.data.jobs.line("ready", (suspect, queue))]
        return QueueStats(
            queue,
            self._rules(queue).paused,
            queued=counts[queue, State.QUEUED],
            waiting=counts[queue, State.SCHEDULED] + counts[queue, State.RETRYING],
            running=counts[queue, State.RUNNING],
            oldest_due=max(0, now - min(row.due_at for row in ready)) if ready else None,
            blocked=counts[queue, State.BLOCKED],
            limit=self._rules(queue).limit,
            bounds=self._rules(queue).bounds,
        )

    @plan(write=False)
    def why(self, job: str) -> Steps[Why | None]:
        """See Store.why."""
        now = (yield NOW)[0][0]
        row = self.data.jobs.get(job)
        if row is None:
            return None
        rules = self._rules(row.new.queue)
        owner = self._awaited(row)
        under = row.blocked_by.key if row.blocked_by else None
        first = self.data.jobs.get(owner) if owner else self._first_under(under) if under is not None else None
        return Why(
            job=row.as_job(),
            now=now,
            paused=rules.paused,
            ahead=min(self.data.jobs.before(row), AHEAD),
            workers=tuple(self._untaken()),
            attempts=self.data.attempts.get(job, ()),
            limit=row.blocked_by,
            running=self._runs_under(row.blocked_by.key) if row.blocked_by else 0,
            owner=owner,
            awaited=first.new.id if first else None,
            awaited_state=first.state if first else None,
            queue_limit=rules.limit,
            queue_running=self._runs_in(row.new.queue) if rules.limit else 0,
        )

    def _awaited(self, row: Row) -> str | None:
        place = place_of(row) if row.state is State.BLOCKED and row.reason == "unique" else None
        return self.data.owners[place].id if place else None

    @plan(write=False)
    def audit(self) -> Steps[list[str]]:
        """See Store.audit."""
        yield NOW
        return [*self._misplaced(), *self._unheld(), *self._contradictions()]

    def _misplaced(self) -> Iterator[str]:
        """Jobs that stand in another line than their row says."""
        rows = self.data.jobs.values()
        says = {(name, row.new.id): place_of(row) for name, place_of in LINES.items() for row in rows}
        stands = {
            (name, id): (which, place) for (name, which), line in self.data.jobs.lines.items() for place, _, id in line
        }
        for (name, id), place in says.items():
            if stands.pop((name, id), None) != place:
                yield f"job {id} does not stand in line {name!r} where its row says"
        for name, id in stands:
            yield f"job {id} stands in line {name!r} but is not stored"

    def _unheld(self) -> Iterator[str]:
        for row in self.data.jobs.values():
            if row.state is State.RUNNING:
                worker = self.data.workers.get(row.worker or "")
                if worker is None or worker.taken:
                    yield f"job {row.new.id} runs, but its worker {row.worker} is gone"

    def _contradictions(self) -> Iterator[str]:
        for id, row in self.data.jobs.items():
            if row.state.terminal != (row.finished_at is not None):
                yield f"job {id} is {row.state} and finished_at is {row.finished_at}"
            if (row.state is State.BLOCKED) != (row.blocked_by is not None or row.reason == "unique"):
                yield f"job {id} is {row.state} and blocked by {row.blocked_by}"
            fences = [attempt.fence for attempt in self.data.attempts.get(id, ())]
            if any(later <= sooner for sooner, later in pairwise([*fences, row.fence + 1])):
                yield f"job {id} has fences that do not grow: {fences}, now {row.fence}"
        yield from self._unowned()
        for table in ("attempts", "logs", "first_results"):
            for id in getattr(self.data, table).keys() - self.data.jobs.keys():
                yield f"{table} of job {id}, which is not stored"

    def _unowned(self) -> Iterator[str]:
        """Unique keys: one living owner each, and every living job an owner or a successor."""
        for place, entry in self.data.owners.items():
            owner = self.data.jobs.get(entry.id)
            lives = entry.away or (owner is not None and not owner.state.terminal)
            if entry.live != lives:
                yield f"the owner of unique key {place} is {entry.id}, and {owner and owner.state}"
            if entry.successor is not None and self.data.jobs[entry.successor].reason != "unique":
                yield f"the successor under unique key {place} is {entry.successor}, and does not wait"
        for id, row in self.data.jobs.items():
            own = place_of(row)
            mine = self.data.owners.get(own) if own else None
            if own and not row.state.terminal and (mine is None or id not in {mine.id, mine.successor}):
                yield f"job {id} is {row.state} and has no part in its unique key {own}"


def matches(row: Row, wanted: Filter) -> bool:
    """Whether every field of the filter fits the job."""
    return (
        row.new.tenant == wanted.tenant
        and (not wanted.states or row.state in wanted.states)
        and wanted.queue in {None, row.new.queue}
        and wanted.task in {None, row.new.task}
        and wanted.reason in {None, row.reason}
        and (wanted.since is None or row.created_at >= wanted.since)
        and (wanted.until is None or row.created_at < wanted.until)
        and (wanted.ended_before is None or (row.finished_at or wanted.ended_before) < wanted.ended_before)
        and wanted.fingerprint in {None, kept(row.error) if row.state is State.DEAD else None}
        and (wanted.tag is None or wanted.tag in _meta(row).tags)
        and wanted.schedule in {None, _meta(row).schedule if wanted.schedule is not None else None}
        and wanted.parent in {None, _meta(row).parent_id if wanted.parent is not None else None}
    )


def _meta(row: Row) -> Meta:
    try:
        return read_meta(row.new.meta)
    except msgspec.DecodeError:
        return Meta()
