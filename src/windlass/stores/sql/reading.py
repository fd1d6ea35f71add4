"""Reading: jobs, histories, counts, and the facts behind `why`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from windlass.core.flow import Bounds
from windlass.core.job import Attempt, Job, KeyLimit, LogLine, State
from windlass.core.why import AHEAD_MOST
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.ports.store import Filter, Page, QueueRules, QueueStats, Stats, Why, WorkerInfo
from windlass.stores.sql.text import as_json

CAP = 10_000
"""Where the cheap counts stop."""
EVERY = 2**31
LAST = 2**62
"""A place in the order of jobs that none reaches."""
NO_RULES = QueueRules()
COUNTED = ("queued", "waiting", "running", "blocked")

_bounds = msgspec.json.Decoder(Bounds)
_job = msgspec.json.Decoder(Job)
job_of = _job.decode
_attempt = msgspec.json.Decoder(Attempt)
_line = msgspec.json.Decoder(LogLine)
_infos = msgspec.json.Decoder(list[WorkerInfo])

_SOURCES = {
    State.QUEUED: "search_ready",
    State.RUNNING: "search_held",
    State.BLOCKED: "search_blocked",
    State.SCHEDULED: "search_waiting",
    State.RETRYING: "search_waiting",
    State.DEAD: "search_unhappy",
    State.CANCELLED: "search_unhappy",
    State.EXPIRED: "search_unhappy",
}


class Reading:
    """The operations that change nothing."""

    @plan(write=False)
    def fetch(self, ids: Sequence[str]) -> Steps[list[Job | None]]:
        """See Store.fetch."""
        return (yield from self._fetch(ids))

    def _fetch(self, ids: Sequence[str]) -> Steps[list[Job | None]]:
        rows = yield Statement("jobs_by_id", (as_json(list(ids)),))
        found = {job.id: job for job in (_job.decode(row[0]) for row in rows)}
        return [found.get(i) for i in ids]

    @plan(write=False)
    def attempts(self, job: str) -> Steps[list[Attempt]]:
        """See Store.attempts."""
        return (yield from self._attempts(job))

    def _attempts(self, job: str) -> Steps[list[Attempt]]:
        seq = yield Statement("seq_of", (job,))
        if not seq:
            return []
        return [_attempt.decode(row[0]) for row in (yield Statement("attempts_of", (seq[0][0],)))]

    @plan(write=False)
    def logs(self, job: str, after: int = 0) -> Steps[list[LogLine]]:
        """See Store.logs."""
        seq = yield Statement("seq_of", (job,))
        if not seq:
            return []
        return [_line.decode(row[0]) for row in (yield Statement("logs_of", (seq[0][0], after)))]

    @plan(write=False)
    def search(self, filter: Filter, limit: int, after: str | None = None) -> Steps[Page]:
        """See Store.search."""
        jobs = yield from self._search(filter, limit + 1, after)
        return Page(jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else None)

    def _before(self, after: str | None) -> Steps[int]:
        """Below which number a search goes on."""
        if after is None:
            return LAST
        seq = yield Statement("seq_of", (after,))
        return int((seq or (yield Statement("seq_before", (after,))))[0][0])

    def _search(self, filter: Filter, limit: int, after: str | None) -> Steps[list[Job]]:
        before = yield from self._before(after)
        found: dict[int, Job] = {}
        # A rare state is found from the table it lies in, not by walking a million jobs that ended well.
        sources = {_SOURCES.get(s, "search_all") for s in filter.states}
        if not sources or "search_all" in sources:
            sources = {"search_all"}
        if filter.parent is not None:
            sources = {"search_children"}
        for source in sorted(sources if filter.fingerprint is None else {"search_group"}):
            for seq_, text in (yield Statement(source, row_of_filter(filter, before, limit))):
                found[seq_] = _job.decode(text)
        return [found[s] for s in sorted(found, reverse=True)[:limit]]

    def _matching(self, ids: Sequence[str], filter: Filter) -> Steps[set[str]]:
        """Of the jobs with these ids, those that match."""
        return {row[0] for row in (yield Statement("matching", (*row_of_filter(filter, LAST, len(ids)), as_json(ids))))}

    @plan(write=False)
    def stats(self, exact: bool = False) -> Steps[Stats]:
        """See Store.stats."""
        now = (yield NOW)[0][0]
        cap = -1 if exact else CAP
        states: dict[str, int] = {s.value: 0 for s in State}
        queues: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COUNTED, 0))
        heads: dict[str, int] = {}
        for lane in (0, 1):
            for (queue,) in (yield Statement("ready_queues", (lane,))):
                count = (yield Statement("stats_ready", (lane, queue, cap)))[0][0]
                queues[queue]["queued"] += count
                states["queued"] += count
                head = (yield Statement("ready_head", (lane, queue, cap)))[0][0]
                heads[queue] = min(head, heads.get(queue, head))
        for state, queue, count in (yield Statement("stats_waiting", (cap,))):
            queues[queue]["waiting"] += count
            states[state] += count
        for state, rows in (
            ("running", (yield Statement("stats_held"))),
            ("blocked", (yield Statement("stats_blocked", (cap,)))),
        ):
            for queue, count in rows:
                queues[queue][state] += count
                states[state] += count
        yield from self._count_ended(states, cap)
        rules = yield from self._rules()
        for queue in rules:
            queues[queue]  # one that an operator has said something about is shown, also when it is empty
        shown = [_glance(q, n, rules.get(q, NO_RULES), heads.get(q), now) for q, n in sorted(queues.items())]
        return Stats(states, shown, now, exact)

    def _rules(self) -> Steps[dict[str, QueueRules]]:
        rows = yield Statement("queues_all")
        return {name: QueueRules(bool(paused), most, _bounds.decode(bounds)) for name, paused, most, bounds in rows}

    def _count_ended(self, states: dict[str, int], cap: int) -> Steps[None]:
        if cap < 0:
            states.update((yield Statement("stats_ended")))
            return
        states.update((yield Statement("stats_unhappy")))
        unhappy = states["dead"] + states["cancelled"] + states["expired"]
        ended = (yield Statement("stats_ended_capped", (cap + unhappy,)))[0][0]
        states["completed"] = max(0, ended - unhappy)

    @plan(write=False)
    def why(self, job: str) -> Steps[Why | None]:
        """See Store.why."""
        now = (yield NOW)[0][0]
        found = (yield from self._fetch([job]))[0]
        if found is None:
            return None
        place = (yield Statement("places_by_id", (as_json([job]),)))[0]
        ahead = (yield Statement("ready_ahead", (place[4], place[5], place[6], place[1])))[0][0]
        rules = (yield from self._rules()).get(found.queue, NO_RULES)
        blocked = yield Statement("blocked_by", (place[1],))
        key, most, running, awaited = blocked[0] if blocked else ("", 0, 0, None)
        owner = (yield Statement("unique_owner", (place[1],))) if blocked and not key else []
        first = (yield Statement("ready_under", (key, AHEAD_MOST))) if key and not running else owner
        awaited = first[0][0] if first else awaited
        other = (yield from self._fetch([awaited]))[0] if awaited else None
        busy = (yield Statement("queue_held", (found.queue, EVERY)))[0][0] if rules.limit else 0
        workers = _infos.decode((yield Statement("workers_list"))[0][0])
        attempts = yield from self._attempts(job)
        return Why(
            job=found,
            now=now,
            paused=rules.paused,
            ahead=ahead,
            workers=tuple(workers),
            attempts=tuple(attempts),
            limit=KeyLimit(key, most) if key else None,
            owner=owner[0][0] if owner else None,
            awaited=awaited,
            awaited_state=other.state if other else None,
            running=running,
            queue_limit=rules.limit,
            queue_running=busy,
        )

    @plan(write=False)
    def audit(self) -> Steps[list[str]]:
        """See Store.audit."""
        found = [f"integrity: {row[0]}" for row in (yield Statement("integrity")) if row[0] != "ok"]
        found += [f"job {i} lies in {n} places" for i, n in (yield Statement("audit_places"))]
        found += [f"{table}: row {seq} has no owner" for table, seq in (yield Statement("audit_orphans"))]
        return found


def row_of_filter(f: Filter, before: int, limit: int) -> tuple[object, ...]:
    states = as_json(f.states) if f.states else None
    return (
        *(f.queue, f.task, f.since, f.until, f.tenant, before, f.tag, f.reason, f.parent),
        *(states, f.fingerprint, f.ended_before, f.schedule, limit),
    )


def _glance(queue: str, counts: dict[str, int], rules: QueueRules, head: int | None, now: int) -> QueueStats:
    oldest = None if head is None else max(0, now - head)
    return QueueStats(queue, rules.paused, **counts, oldest_due=oldest, limit=rules.limit, bounds=rules.bounds)
