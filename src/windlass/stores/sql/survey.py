"""Surveys: what has not ended, the dead by their causes, and how long the latest jobs took."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from windlass.core.job import Job
from windlass.ports.plan import Statement, Steps, plan
from windlass.ports.store import Backlog, Children, DeadGroup, Ending, Pending
from windlass.stores.sql.text import as_json

STAGES = {
    # table: where a walk through it begins. In this order a job that is promoted or claimed meanwhile is not missed.
    "waiting": (0,),
    "blocked": (0,),
    "ready": (-1, "", 0, 0),
    "held": ("",),
}


class PendingRow(Pending, frozen=True, array_like=True):
    """A Pending with its place in its table."""

    place: tuple[int | str, ...]


_pending = msgspec.json.Decoder(list[PendingRow])
_endings = msgspec.json.Decoder(list[Ending])
_job = msgspec.json.Decoder(Job)
_children = msgspec.json.Decoder(list[tuple[str, int, int]])
_family_cursor = msgspec.json.Decoder(tuple[int, int])
_cursor = msgspec.json.Decoder(tuple[str, tuple[int | str, ...]])


class Survey:
    """Operations that read much and change nothing."""

    @plan(write=False)
    def backlog(self, limit: int, after: str | None = None) -> Steps[Backlog]:
        """See Store.backlog. Walks the tables in which jobs lie that have not ended, each by its key."""
        stages = list(STAGES)
        stage, place = _cursor.decode(after) if after is not None else (stages[0], STAGES[stages[0]])
        text = (yield Statement(f"backlog_{stage}", (*place, limit)))[0][0]
        found = _pending.decode(text)
        if len(found) == limit:
            return Backlog(list(found), as_json((stage, found[-1].place)))
        rest = stages[stages.index(stage) + 1 :]
        return Backlog(list(found), as_json((rest[0], STAGES[rest[0]])) if rest else None)

    @plan(write=False)
    def children(self, parents: Sequence[str], limit: int, after: str | None = None) -> Steps[Children]:
        """See Store.children. `next` is the place of the last one's parent, and its seq."""
        place, seq = (0, 0) if after is None else _family_cursor.decode(after)
        text = (yield Statement("children", (as_json(list(parents)), place, seq, limit)))[0][0]
        found = _children.decode(text)
        return Children([id for id, _, _ in found], as_json(found[-1][1:]) if len(found) == limit else None)

    @plan(write=False)
    def dead_groups(self, limit: int) -> Steps[list[DeadGroup]]:
        """See Store.dead_groups. An index holds the fingerprints, so that no error text is read to count them."""
        rows = yield Statement("dead_groups", (limit,))
        groups = []
        for fingerprint, count, first, last in rows:
            latest = (yield Statement("dead_latest", (fingerprint, last)))[0][0]
            groups.append(DeadGroup(fingerprint, count, first, last, _job.decode(latest)))
        return groups

    @plan(write=False)
    def endings(self, limit: int) -> Steps[list[Ending]]:
        """See Store.endings."""
        return _endings.decode((yield Statement("endings", (limit,)))[0][0])
