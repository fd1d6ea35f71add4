"""Unique jobs: who owns a key, and who comes after. Nothing here is asked for the sake of a job without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from windlass.core.job import Job, NewJob, UniqueKey
from windlass.core.unique import Arrival, arrive, due_of
from windlass.ports.plan import Statement, Steps
from windlass.ports.store import Enqueued
from windlass.stores.sql.text import as_json


class Owner(NamedTuple):
    """A row of `unique`, and what is to be known of the jobs in it."""

    tenant: str
    task: str
    key: str
    id: str
    seq: int | None
    live: int
    successor: int | None
    until: int | None
    running: int
    created: int | None
    successor_id: str | None
    successor_created: int | None
    ended: int


class Over(NamedTuple):
    """What an ended job leaves behind."""

    seq: int
    successor: int | None
    until: int | None
    due: int | None
    """Of the successor."""


_owner = msgspec.json.Decoder(Owner)
_over = msgspec.json.Decoder(list[Over])


class Unique:
    """What the operations ask about unique keys."""

    def _owners(
        self, jobs: Sequence[tuple[NewJob | Job, UniqueKey]], now: int
    ) -> Steps[dict[tuple[str, str, str], Owner]]:
        places = as_json([place_of(job, unique) for job, unique in jobs])
        found = [_owner.decode(row[0]) for row in (yield Statement("unique_find", (places,)))]
        # A worker of an older version ends jobs without a thought of their keys: the rows say who lives.
        over = [owner.seq for owner in found if owner.live and owner.ended and owner.seq is not None]
        if over:
            yield from self._give_up(over, now)
            found = [_owner.decode(row[0]) for row in (yield Statement("unique_find", (places,)))]
        return {(owner.tenant, owner.task, owner.key): owner for owner in found}

    def _merged(self, ids: Sequence[str]) -> Steps[dict[str, str]]:
        """Of those that took another's place: whose it was."""
        rows = yield Statement("merged_find", (as_json(ids),))
        return dict(msgspec.json.decode(row[0], type=tuple[str, str]) for row in rows)

    def _own(self, jobs: Sequence[tuple[NewJob, UniqueKey]], now: int) -> Steps[None]:
        """They are stored, and have their keys for themselves."""
        until = [now + unique.window if unique.policy == "throttle" else None for _, unique in jobs]
        rows = [(*place_of(*each), end, each[0].id) for each, end in zip(jobs, until, strict=True)]
        yield Statement("unique_put", many=rows)

    def _beside(self, job: NewJob, unique: UniqueKey, owner: Owner, row: tuple[Any, ...]) -> Steps[Enqueued | None]:
        """What becomes of a job whose key is taken; None if it is to be stored as the owner's successor."""
        now, due = row[CREATED], row[DUE]
        # One that went to another store can no more be replaced than one that runs.
        runs = bool(owner.running) or owner.seq is None
        arrival = arrive(unique.policy, running=runs, succeeded=owner.successor is not None)
        if arrival is Arrival.REFUSE:
            return Enqueued(owner.id, inserted=False, refused=True)
        if arrival is Arrival.EXISTING:
            # An owner that is sent again when only its window is left of it.
            return Enqueued(owner.id, inserted=owner.id == job.id)
        if arrival is Arrival.OUST:
            yield Statement("held_cancel", (owner.id, 1))
        if arrival is not Arrival.REPLACE:
            return None
        if owner.successor is None:
            seq, id, created = owner.seq, owner.id, owner.created
        else:
            seq, id, created = owner.successor, owner.successor_id or "", owner.successor_created
        due = due_of(unique, due, now, created or now)
        yield from self._leave(seq)
        yield Statement("job_replace", (*row[4:8], due, due - job.head_start, *row[11:], seq))
        for table in ("once", "progress"):
            yield Statement(f"drop_{table}", (seq,))
        if owner.successor is not None:
            yield Statement("blocked_insert_unique", (seq,))
        elif due <= now:
            yield Statement("ready_insert", (seq,))
        else:
            yield Statement("waiting_insert", (seq, due, "scheduled", None))
        yield Statement("expiring_insert", (seq,))
        yield Statement("merged_put", (job.id, seq))
        return Enqueued(id, inserted=False)

    def _leave(self, seq: int | None) -> Steps[None]:
        """Take a job that waits out of whichever line it stands in."""
        raise NotImplementedError
        yield

    def _give_up(self, seqs: Sequence[int], now: int) -> Steps[None]:
        """These jobs have ended, or are gone: their keys are free, or their successors'."""
        if not seqs:
            return
        text = as_json(seqs)
        yield Statement("unique_orphan", (text,))
        over = _over.decode((yield Statement("unique_over", (text,)))[0][0])
        heirs = [each for each in over if each.successor is not None]
        if heirs:
            yield Statement("unique_inherit", many=[(each.seq,) for each in heirs])
            yield Statement("blocked_remove", many=[(each.successor,) for each in heirs])
            later = [each for each in heirs if each.due is not None and each.due > now]
            yield Statement("ready_insert", many=[(each.successor,) for each in heirs if each not in later])
            yield Statement("waiting_insert", many=[(each.successor, each.due, "scheduled", None) for each in later])
        alone = [each for each in over if each.successor is None]
        rest = [(each.seq,) for each in alone if each.until is not None and each.until > now]
        yield Statement("unique_rest", many=rest)
        yield Statement("unique_drop", many=[(each.seq,) for each in alone if (each.seq,) not in rest])


CREATED, DUE = 8, 9
"""Where they stand in a row of `job_insert`."""


def place_of(job: NewJob | Job, unique: UniqueKey) -> tuple[str, str, str]:
    """Within what a key is unique."""
    return (job.tenant, job.task, unique.key)
