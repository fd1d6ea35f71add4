"""Departure and arrival: jobs and schedules on their way from one store to another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec

from windlass.core.errors import StoreError
from windlass.core.flow import limits_of
from windlass.core.job import TERMINAL, NewJob, State
from windlass.core.unique import Arrival as Meeting
from windlass.core.unique import unique_of
from windlass.ports import landing
from windlass.ports.parcel import Arrival, Parcel, Tally, Word
from windlass.ports.plan import NOW, Steps, plan
from windlass.ports.store import (
    KEY_KEEP,
    Departure,
    LeftKey,
    LeftWindow,
    Scheduled,
    Standing,
)
from windlass.stores.memory.schedules import Scheduling
from windlass.stores.memory.tables import Key, Owner, Row, SetAside, replace
from windlass.stores.memory.unique import place_of

TO, FROM = "to:", "from:"
LINES: tuple[tuple[frozenset[State], Any], ...] = (
    (frozenset({State.QUEUED}), lambda row: (row.suspect, row.new.queue, row.rank, row.seq)),
    (frozenset({State.SCHEDULED, State.RETRYING}), lambda row: (row.comes_due, row.seq)),
    (frozenset({State.BLOCKED}), lambda row: (row.rank, row.seq)),
    (TERMINAL, lambda row: row.seq),
)
"""In this order they leave: what waits is wanted sooner than what has ended."""


class Departing(Scheduling):
    """The operations from `identity` to `adopt`."""

    @plan
    def identity(self, fresh: str) -> Steps[str]:
        """See Store.identity."""
        yield NOW
        if "" not in self.data.identity:
            self.data.identity[""] = fresh
        return self.data.identity[""]

    @plan
    def depart(self, target: str, limit: int, stay: Sequence[str] = ()) -> Steps[Departure]:
        """See Store.depart."""
        now = (yield NOW)[0][0]
        aside = sorted(self.data.departing.values(), key=lambda each: each.n)
        if aside and aside[0].target != target:
            raise StoreError(f"{len(aside)} jobs are set aside on the way to another store: finish that copy first")
        if not aside:
            leaving = self._leaving(limit, set(stay))
            number = self.data.departures.get("", 0) + 1
            aside = [SetAside(number, n, target, self._parcel(row)) for n, row in enumerate(leaving)]
            self._add_up(TO + target, [each.what for each in aside if isinstance(each.what, Parcel)])
            for row in leaving:
                self._leave(row, now)
            if not aside:
                paused = self._pause_for_good(set(stay))
                aside = [SetAside(number, n, target, each) for n, each in enumerate(paused)]
            if aside:
                self.data.departures[""] = number
            for each in aside:
                self.data.departing[_name(each.what)] = each
        return Departure(
            aside[0].number if aside else 0,
            tuple(each.what for each in aside if isinstance(each.what, Parcel)),
            tuple(each.what for each in aside if isinstance(each.what, Scheduled)),
        )

    def _leaving(self, limit: int, stay: set[str]) -> list[Row]:
        for states, order in LINES:
            rows = (row for row in self.data.jobs.values() if row.state in states and row.new.id not in stay)
            found = list(islice(sorted((row for row in rows if self._may_leave(row)), key=order), limit))
            if found:
                heirs = [self.data.jobs[heir] for row in found if (heir := self._heir(row))]
                return found + [heir for heir in heirs if heir not in found]
        return []

    def _may_leave(self, row: Row) -> bool:
        """A successor goes with its owner, or behind one that went."""
        place = place_of(row) if row.reason == "unique" and row.state is State.BLOCKED else None
        return place is None or self.data.owners[place].away

    def _heir(self, row: Row) -> str | None:
        place = place_of(row)
        owner = self.data.owners.get(place) if place else None
        return owner.successor if owner and owner.id == row.new.id else None

    def _parcel(self, row: Row) -> Parcel:
        id, place = row.new.id, place_of(row)
        job = row.as_job()
        if row.blocked_by is not None:
            job = replace(job, state=State.QUEUED, reason=None)
        key = row.new.idempotency_key
        owned = self.data.keys.get((row.new.tenant, row.new.task, key)) if key is not None else None
        owner = self.data.owners.get(place) if place else None
        return Parcel(
            job=job,
            head_start=row.new.head_start,
            rank=row.rank,
            due=row.due_at,
            attempts=self.data.attempts.get(id, ()),
            logs=self.data.logs.get(id, ()),
            once=dict(sorted(self.data.first_results.get(id, {}).items())),
            result_until=row.result_until,
            key=key,
            digest=row.new.digest if key is not None else "",
            key_lost=key is not None and (owned is None or owned.owner != id),
            until=owner.until if owner and owner.id == id else None,
            follows=owner.id if owner and owner.successor == id else None,
            merged=tuple(sorted(other for other, into in self.data.merged.items() if into == id)),
        )

    def _leave(self, row: Row, now: int) -> None:
        """Its keys stay taken, by it."""
        place = place_of(row)
        owner = self.data.owners.get(place) if place else None
        if place and owner and owner.successor == row.new.id:
            self.data.owners[place] = replace(owner, successor=None)
        if place and owner and owner.id == row.new.id and owner.live:
            self.data.owners[place] = replace(owner, away=True)
        self._remove(row)
        self.data.departed[row.new.id] = now

    def _pause_for_good(self, stay: set[str]) -> list[Scheduled]:
        leaving = []
        for name, each in sorted(self.data.schedules.items()):
            left = [id for id in each.previous if id in self.data.jobs and not self.data.jobs[id].state.terminal]
            if not (each.away or left or name in stay):
                leaving.append(each)
                self.data.schedules[name] = replace(each, away=True, said=replace(each.said, paused=True))
        return leaving

    @plan
    def dismiss(self, gone: Sequence[str], back: Sequence[str]) -> Steps[list[str]]:
        """See Store.dismiss."""
        now = (yield NOW)[0][0]
        for id in gone:
            self.data.departing.pop_if_there(id)
        lost = []
        for each in sorted((self.data.departing[id] for id in back if id in self.data.departing), key=lambda x: x.n):
            if isinstance(each.what, Scheduled):
                self.data.schedules[each.what.said.name] = each.what
            elif self._land(each.what, now, {}).word is not Word.MOVED:
                lost.append(each.what.job.id)
                continue
            else:
                self._add_up(TO + each.target, [each.what], -1)
            del self.data.departing[_name(each.what)]
        return sorted(lost)

    @plan(write=False)
    def tallies(self, other: str) -> Steps[tuple[Tally, Tally]]:
        """See Store.tallies."""
        yield NOW
        return self.data.tallies.get(TO + other, Tally()), self.data.tallies.get(FROM + other, Tally())

    def _add_up(self, name: str, parcels: Sequence[Parcel], sign: int = 1) -> None:
        if parcels:
            self.data.tallies[name] = self.data.tallies.get(name, Tally()).with_(parcels, sign)

    # --- arrival -----------------------------------------------------------------------------------------------

    @plan(hint=True)
    def arrive(self, source: str, departure: Departure) -> Steps[list[Arrival]]:
        """See Store.arrive."""
        now = (yield NOW)[0][0]
        last = self.data.departures.get(source, 0)
        if departure.number < last:
            raise landing.overtaken(departure.number, last)
        self.data.departures[source] = departure.number
        answers: dict[str, Arrival] = {}
        for parcel in departure.jobs:
            answers[parcel.job.id] = self._land(parcel, now, answers)
        come = landing.come(answers.values(), again=departure.number == last)
        self._add_up(FROM + source, [each for each in departure.jobs if each.job.id in come])
        return [*answers.values(), *(self._go_on(each, now) for each in departure.schedules)]

    @plan(hint=True)
    def deliver(self, source: str, number: int, jobs: Sequence[NewJob]) -> Steps[bool]:
        """See Store.deliver."""
        now = (yield NOW)[0][0]
        if number <= self.data.departures.get(source, 0):
            return False
        self.data.departures[source] = number
        for job in jobs:
            self._enqueue(job, now)
        return True

    def _land(self, parcel: Parcel, now: int, answers: dict[str, Arrival]) -> Arrival:
        id = parcel.job.id
        if id in self.data.jobs:
            return Arrival(id, Word.PRESENT)
        word, other = Word.MOVED, self._other_with_key(parcel, now)
        if other and not parcel.job.state.terminal:
            return Arrival(id, Word.CONFLICT, other)
        if other:
            word, parcel = Word.KEYLESS, replace(parcel, key_lost=True)
        unique = unique_of(parcel.job.meta)
        if unique and not parcel.job.state.terminal:
            refused = parcel.follows in answers and answers[parcel.follows].word is Word.CONFLICT
            landed = None if refused else self._take_place_of(parcel, now)
            if landed is None:
                place = (parcel.job.tenant, parcel.job.task, unique.key)
                return Arrival(id, Word.CONFLICT, self.data.owners[place].id if not refused else parcel.follows or "")
            parcel = landed
        elif unique and parcel.until is not None and now < parcel.until:
            place = (parcel.job.tenant, parcel.job.task, unique.key)
            if place not in self.data.owners:
                self.data.owners[place] = Owner(id, until=parcel.until, live=False)
        self._unpack(parcel)
        return Arrival(id, word, other)

    def _other_with_key(self, parcel: Parcel, now: int) -> str:
        """Whoever has its idempotency key; one that left it behind when it departed does not."""
        if parcel.key is None or parcel.key_lost:
            return ""
        owned = self.data.keys.get((parcel.job.tenant, parcel.job.task, parcel.key))
        if owned is None or owned.owner == parcel.job.id or not self._live(owned, now):
            return ""
        away = owned.ended_at is None and owned.owner not in self.data.jobs
        return "" if away else owned.owner

    def _take_place_of(self, parcel: Parcel, now: int) -> Parcel | None:
        """A living job, with its unique key or behind whoever has it; None if there is no such place."""
        unique = unique_of(parcel.job.meta)
        assert unique is not None
        id, place = parcel.job.id, (parcel.job.tenant, parcel.job.task, unique.key)
        entry = self.data.owners.get(place)
        if entry is not None and not self._keeps_out(entry, unique, now):
            entry = None
        if entry is None or entry.id == id or (entry.away and parcel.follows != entry.id):
            parcel = landing.in_front(parcel, now)
            self.data.owners[place] = Owner(id, entry.successor if entry else None, parcel.until)
            return parcel
        owner = self.data.jobs.get(entry.id)
        running = owner is not None and owner.state is State.RUNNING
        succeeded = entry.successor is not None
        meeting = landing.follows(parcel, unique.policy, entry.id, running=running, succeeded=succeeded)
        if meeting is None:
            return None
        if owner and meeting is Meeting.OUST:
            self.data.jobs[entry.id] = replace(owner, cancelling=True)
        self.data.owners[place] = replace(entry, successor=id)
        return landing.behind(parcel, entry.id)

    def _unpack(self, parcel: Parcel) -> None:
        job, id = parcel.job, parcel.job.id
        self.data.enqueued += 1
        known = msgspec.structs.asdict(job)
        new = {name: known[name] for name in NewJob.__struct_fields__ if name in known}
        row = {name: known[name] for name in Row.__struct_fields__ if name in known}
        parked = job.due_at if job.due_at != parcel.due and not job.state.terminal else None
        self.data.jobs[id] = Row(
            **row
            | {"due_at": parcel.due, "rank": parcel.rank, "parked_until": parked, "result_until": parcel.result_until},
            seq=self.data.enqueued,
            limits=limits_of(job.meta),
            new=NewJob(**new, head_start=parcel.head_start, idempotency_key=parcel.key, digest=parcel.digest),
        )
        if parcel.attempts:
            self.data.attempts[id] = parcel.attempts
        if parcel.logs:
            self.data.logs[id] = parcel.logs
        if parcel.once:
            self.data.first_results[id] = parcel.once
        for other in parcel.merged:
            self.data.merged[other] = id
        if parcel.key is not None and not parcel.key_lost:
            self.data.keys[job.tenant, job.task, parcel.key] = Key(id, parcel.digest)
        self.data.departed.pop_if_there(id)

    def _go_on(self, scheduled: Scheduled, now: int) -> Arrival:
        name = scheduled.said.name
        known = self.data.schedules.get(name)
        if known is not None and landing.has_ticked(known):
            return Arrival(name, Word.PRESENT)
        self.data.schedules[name] = landing.joined(scheduled, known, self.data.revisions.get("", 0), now)
        return Arrival(name, Word.MOVED)

    # --- the rest ----------------------------------------------------------------------------------------------

    @plan(write=False)
    def standing(self, after: LeftKey | None, limit: int) -> Steps[Standing]:
        """See Store.standing."""
        now = (yield NOW)[0][0]
        begin = ("", "", "") if after is None else (after.tenant, after.task, after.key)
        keys = [
            LeftKey(*place, key.owner, key.digest, key.ended_at + KEY_KEEP)
            for place, key in sorted(self.data.keys.items(), key=lambda each: each[0])
            if key.ended_at is not None and place > begin
        ]
        windows = [(place, each) for place, each in self.data.owners.items() if not each.live]
        terms = [lead.term for leads in self.data.leads.values() for lead in leads]
        return Standing(
            departing=len(self.data.departing),
            queues=dict(self.data.rules),
            keys=tuple(keys[:limit]),
            windows=tuple(LeftWindow(*place, x.id, x.until) for place, x in windows if x.until and x.until > now),
            term=max([0, self.data.terms.get("", 0), *terms]),
            revision=self.data.revisions.get("", 0),
        )

    @plan
    def adopt(self, standing: Standing) -> Steps[None]:
        """See Store.adopt."""
        yield NOW
        for queue, rules in standing.queues.items():
            if queue not in self.data.rules:
                self.data.rules[queue] = rules
        for key in standing.keys:
            if (key.tenant, key.task, key.key) not in self.data.keys:
                self.data.keys[key.tenant, key.task, key.key] = Key(key.id, key.digest, key.free_at - KEY_KEEP)
        for window in standing.windows:
            if (window.tenant, window.task, window.key) not in self.data.owners:
                owner = Owner(window.id, until=window.until, live=False)
                self.data.owners[window.tenant, window.task, window.key] = owner
        for table, least in ((self.data.terms, standing.term), (self.data.revisions, standing.revision)):
            if least > table.get("", 0):
                table[""] = least


def _name(what: Parcel | Scheduled) -> str:
    return what.job.id if isinstance(what, Parcel) else what.said.name
