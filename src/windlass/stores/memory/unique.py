"""Unique jobs: who owns a key, and who comes after."""

from __future__ import annotations

from collections.abc import Iterable

from windlass.core.job import NewJob, State, UniqueKey
from windlass.core.unique import Arrival, arrive, due_of, unique_of
from windlass.ports.store import Enqueued
from windlass.stores.memory.flow import Flow
from windlass.stores.memory.tables import Owner, Row, replace


class Unique(Flow):
    """What the operations ask about unique keys."""

    def _beside(self, job: NewJob, unique: UniqueKey, now: int) -> Enqueued | None:
        """What becomes of a job whose key is taken; None if it is not."""
        place = (job.tenant, job.task, unique.key)
        entry = self.data.owners.get(place)
        if entry is None or not self._keeps_out(entry, unique, now):
            return None
        if entry.id == job.id:  # sent again; only its window is left of it
            return Enqueued(job.id, inserted=True)
        owner = self.data.jobs.get(entry.id)
        # One that went to another store can no more be replaced than one that runs.
        runs = entry.away or (owner is not None and owner.state is State.RUNNING)
        match arrive(unique.policy, running=runs, succeeded=entry.successor is not None):
            case Arrival.REFUSE:
                return Enqueued(entry.id, inserted=False, refused=True)
            case Arrival.EXISTING:
                return Enqueued(entry.id, inserted=False)
            case Arrival.REPLACE:
                return self._take_place(entry.successor or entry.id, job, unique, now)
            case Arrival.OUST if owner:
                self.data.jobs[entry.id] = replace(owner, cancelling=True)
        self.data.owners[place] = replace(entry, successor=job.id)
        row = self._store(job, now)
        self.data.jobs[job.id] = replace(row, state=State.BLOCKED, reason="unique")
        return Enqueued(job.id, inserted=True)

    def _own(self, job: NewJob, unique: UniqueKey, now: int) -> None:
        until = now + unique.window if unique.policy == "throttle" else None
        self.data.owners[job.tenant, job.task, unique.key] = Owner(job.id, until=until)

    def _keeps_out(self, entry: Owner, unique: UniqueKey, now: int) -> bool:
        if entry.live:
            return True
        return unique.policy == "throttle" and entry.until is not None and now < entry.until

    def _take_place(self, id: str, job: NewJob, unique: UniqueKey, now: int) -> Enqueued:
        """The job of that id is what was asked for last; it keeps its id, its history and its log."""
        old = self.data.jobs[id]
        self.data.merged[job.id] = id
        new = self._row(replace(job, id=id), now)
        due = due_of(unique, new.due_at, now, old.created_at)
        follows = old.state is State.BLOCKED and old.reason == "unique"
        self.data.jobs[id] = replace(
            new,
            seq=old.seq,
            new=replace(new.new, idempotency_key=old.new.idempotency_key, digest=old.new.digest),
            created_at=old.created_at,
            due_at=due,
            rank=due - job.head_start,
            fence=old.fence,
            state=State.BLOCKED if follows else State.SCHEDULED if due > now else State.QUEUED,
            reason="unique" if follows else None,
        )
        if id in self.data.first_results:
            del self.data.first_results[id]
        return Enqueued(id, inserted=False)

    def _give_up(self, rows: Iterable[Row], now: int) -> None:
        """These jobs have ended, or are gone: their keys are free, or their successors'."""
        for row in rows:
            place = place_of(row)
            entry = self.data.owners.get(place) if place else None
            if place is None or entry is None:
                continue
            if entry.successor == row.new.id:
                self.data.owners[place] = replace(entry, successor=None)
            elif entry.id == row.new.id and entry.live:
                self._pass_key(place, entry, now)

    def _pass_key(self, place: Place3, entry: Owner, now: int) -> None:
        if entry.successor is not None:
            self.data.owners[place] = Owner(entry.successor)
            row = self.data.jobs[entry.successor]
            state = State.SCHEDULED if row.due_at > now else State.QUEUED
            self.data.jobs[entry.successor] = replace(row, state=state, reason=None)
        elif entry.until is not None and now < entry.until:
            self.data.owners[place] = replace(entry, live=False)
        else:
            del self.data.owners[place]

    def _may_have_key(self, row: Row) -> bool:
        """Whether this ended job could live again: unless its key is another's by now."""
        place = place_of(row)
        entry = self.data.owners.get(place) if place else None
        return entry is None or not entry.live

    def _take_key(self, row: Row) -> None:
        """With what is left of a window, also of another's: no third one may begin within it."""
        place = place_of(row)
        if place is not None:
            entry = self.data.owners.get(place)
            self.data.owners[place] = Owner(row.new.id, until=entry.until if entry else None)

    def _forget_key(self, row: Row) -> None:
        """A deleted job is remembered by nobody, not even for the rest of its window."""
        place = place_of(row)
        entry = self.data.owners.get(place) if place else None
        if place and entry and entry.id == row.new.id:
            del self.data.owners[place]

    def _row(self, job: NewJob, now: int) -> Row:
        raise NotImplementedError

    def _store(self, job: NewJob, now: int) -> Row:
        raise NotImplementedError


Place3 = tuple[str, str, str]


def place_of(row: Row) -> Place3 | None:
    """Under which tenant, task and key a job is unique, if it is."""
    unique = unique_of(row.new.meta)
    return None if unique is None else (row.new.tenant, row.new.task, unique.key)
