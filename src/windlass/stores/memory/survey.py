"""Surveys: what has not ended, the dead by their causes, and how long the latest jobs took."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from windlass.core.family import parent_of
from windlass.core.fingerprint import kept
from windlass.core.job import State
from windlass.ports.plan import NOW, Steps, plan
from windlass.ports.store import Backlog, Children, DeadGroup, Ending, Pending
from windlass.stores.memory.operator import Operator
from windlass.stores.memory.tables import Row


class Survey(Operator):
    """Operations that read much and change nothing."""

    @plan(write=False)
    def backlog(self, limit: int, after: str | None = None) -> Steps[Backlog]:
        """See Store.backlog. In the order of enqueue; `next` is the number of the last job."""
        yield NOW
        last = int(after) if after is not None else 0
        rest = (row for row in self.data.jobs.line("all") if row.seq > last and not row.state.terminal)
        rows = list(islice(rest, limit))
        jobs = [Pending(r.new.id, r.new.task, r.new.version, r.new.queue, r.state, r.payload) for r in rows]
        return Backlog(jobs, str(rows[-1].seq) if len(rows) == limit else None)

    @plan(write=False)
    def children(self, parents: Sequence[str], limit: int, after: str | None = None) -> Steps[Children]:
        """See Store.children. In the order of enqueue; `next` is the number of the last job."""
        yield NOW
        last = int(after) if after is not None else 0
        known = set(parents)
        rest = (r for r in self.data.jobs.line("all") if r.seq > last and parent_of(r.new.meta) in known)
        rows = list(islice(rest, limit))
        return Children([row.new.id for row in rows], str(rows[-1].seq) if len(rows) == limit else None)

    @plan(write=False)
    def dead_groups(self, limit: int) -> Steps[list[DeadGroup]]:
        """See Store.dead_groups."""
        yield NOW
        groups: dict[str, list[Row]] = {}
        for row in self.data.jobs.line("ended", State.DEAD):
            groups.setdefault(kept(row.error), []).append(row)
        found = [self._group(fingerprint, rows) for fingerprint, rows in groups.items()]
        return sorted(found, key=lambda group: (-group.count, group.fingerprint))[:limit]

    def _group(self, fingerprint: str, rows: list[Row]) -> DeadGroup:
        died = [row.finished_at or 0 for row in rows]
        latest = max(rows, key=lambda row: (row.finished_at or 0, row.seq))
        return DeadGroup(fingerprint, len(rows), min(died), max(died), latest.as_job())

    @plan(write=False)
    def endings(self, limit: int) -> Steps[list[Ending]]:
        """See Store.endings."""
        yield NOW
        ended = (row for row in self.data.jobs.backwards(None) if row.state.terminal)
        return [
            Ending(row.new.task, row.state, row.created_at, row.due_at, row.started_at, row.finished_at or 0)
            for row in islice(ended, limit)
        ]
