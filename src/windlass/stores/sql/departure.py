"""Departure: jobs and schedules set aside on their way to another store, and forgotten once they are there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec

from windlass.core.errors import StoreError
from windlass.ports.parcel import Parcel, Word
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.ports.store import FOREVER, Departure, Scheduled, Selection
from windlass.stores.sql.arrival import Arriving
from windlass.stores.sql.operator import STILL
from windlass.stores.sql.parcels import TO
from windlass.stores.sql.schedules import AWAY, Row, row_of
from windlass.stores.sql.text import as_json

LINES = ("ready", "waiting", "blocked", "ended")
"""In this order they leave: what waits is wanted sooner than what has ended."""
JOB, SCHEDULE = "job", "schedule"
DEPARTURES = "departures"
"""The mark of how many there were."""
WEIGHT_MOST = 8 * 1024 * 1024
"""Bytes of payloads and results in one departure, if it is more than one job: the source waits while they are read."""
STRIDE = 1_000_000
"""From the places of one departure to those of the next: more than any is long."""

_parcel = msgspec.json.Decoder(Parcel)
_scheduled = msgspec.json.Decoder(Scheduled)


class Departing(Arriving):
    """The operations `identity`, `depart`, `dismiss` and `tallies`."""

    @plan
    def identity(self, fresh: str) -> Steps[str]:
        """See Store.identity."""
        known = yield Statement("mark_text", ("identity",))
        if known:
            return str(known[0][0])
        yield Statement("mark_text_put", ("identity", fresh))
        return fresh

    @plan
    def depart(self, target: str, limit: int, stay: Sequence[str] = ()) -> Steps[Departure]:
        """See Store.depart."""
        now = (yield NOW)[0][0]
        rows = yield Statement("departing_all")
        if rows:
            if rows[0][2] != target:
                raise StoreError(
                    f"{len(rows)} jobs are set aside on the way to another store ({rows[0][2]}): finish that copy first"
                )
            return _read(rows)
        ids = yield from self._leaving(limit, as_json(list(stay)))
        jobs = (yield from self._set_aside(ids, now)) if ids else ()
        schedules = () if jobs else (yield from self._pause_for_good(set(stay)))
        if not (jobs or schedules):
            return Departure()
        mark = yield Statement("mark_get", (DEPARTURES,))
        number = (mark[0][0] if mark else 0) + 1
        yield Statement("mark_put", (DEPARTURES, number))
        bodies = [(each.job.id, JOB, as_json(each)) for each in jobs]
        bodies += [(each.said.name, SCHEDULE, as_json(each)) for each in schedules]
        aside = [(number * STRIDE + n, id, target, kind, body) for n, (id, kind, body) in enumerate(bodies)]
        yield Statement("departing_put", many=aside)
        yield from self._add_up(TO + target, jobs)
        return Departure(number, jobs, schedules)

    def _leaving(self, limit: int, stay: str) -> Steps[list[str]]:
        for line in LINES:
            ids = _handful((yield Statement(f"leaving_{line}", (stay, limit))))
            if ids:
                known = set(ids)
                heirs = [row[0] for row in (yield Statement("successors_of", (as_json(ids),)))]
                return ids + [id for id in heirs if id not in known]
        return []

    def _set_aside(self, ids: Sequence[str], now: int) -> Steps[tuple[Parcel, ...]]:
        places = (yield from self._chosen(Selection(tuple(ids)), STILL)).places
        parcels = yield from self._parcels([p.id for p in places])
        leaving = [parcels[p.id] for p in places]
        rows = [(p.seq,) for p in places]
        yield from self._unplace([p for p in places if not p.state.terminal])
        yield Statement("unique_orphan", (as_json([p.seq for p in places]),))
        yield Statement("unique_depart", many=rows)
        yield Statement("unique_outlive", many=rows)
        yield Statement("keys_depart", many=[(FOREVER, p.seq) for p in places])
        yield from self._drop([p.seq for p in places])
        yield Statement("departed_put", many=[(p.id, now) for p in places])
        return tuple(leaving)

    def _pause_for_good(self, stay: set[str]) -> Steps[tuple[Scheduled, ...]]:
        leaving = []
        for values in (yield Statement("schedules_all")):
            row = Row(*values)
            if row.paused != AWAY and row.name not in stay:
                left = yield Statement("jobs_unended", (row.previous,))
                if not left:
                    leaving.append(row.scheduled)
                    yield Statement("schedule_put", row._replace(paused=AWAY))
        return tuple(leaving)

    @plan
    def dismiss(self, gone: Sequence[str], back: Sequence[str]) -> Steps[list[str]]:
        """See Store.dismiss."""
        now = (yield NOW)[0][0]
        if gone:
            yield Statement("departing_take", (as_json(list(gone)),))
        rows = (yield Statement("departing_take", (as_json(list(back)),))) if back else []
        rows = sorted(rows)
        for _, _, _, kind, body in rows:
            if kind == SCHEDULE:
                yield Statement("schedule_put", row_of(_scheduled.decode(body)))
        jobs = [row for row in rows if row[3] == JOB]
        parcels = [_parcel.decode(row[4]) for row in jobs]
        answers = yield from self._store_parcels(parcels, now)
        lost = {answer.id for answer in answers if answer.word is not Word.MOVED}
        yield Statement("departing_put", many=[row for row in jobs if row[1] in lost])
        restored = [each for each in parcels if each.job.id not in lost]
        if restored:
            yield from self._add_up(TO + jobs[0][2], restored, -1)
        return sorted(lost)

    @plan
    def tallies(self, other: str) -> Steps[Any]:
        """See Store.tallies."""
        return (yield from self._tallies(other))


def _handful(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """The first of these jobs, as many as can be carried at once."""
    sizes = accumulate(row[1] for row in rows)
    return [row[0] for n, (row, size) in enumerate(zip(rows, sizes, strict=True)) if not n or size <= WEIGHT_MOST]


def _read(rows: Sequence[tuple[Any, ...]]) -> Departure:
    return Departure(
        rows[0][0] // STRIDE,
        tuple(_parcel.decode(body) for *_, kind, body in rows if kind == JOB),
        tuple(_scheduled.decode(body) for *_, kind, body in rows if kind == SCHEDULE),
    )
