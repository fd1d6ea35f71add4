"""The PostgreSQL store: plans only, and of those only what differs from every SQL store's. What does the I/O is
`shell.py`; which locks there are, and in which order they are taken, stands at the head of queries.sql."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from msgspec.json import encode
from msgspec.structs import replace

from windlass.core import flow
from windlass.core.errors import SchemaError
from windlass.core.flow import Line
from windlass.core.job import Held, LogLine, NewJob, Progress, Token, Transition
from windlass.core.unique import unique_of
from windlass.ports.parcel import Arrival, Parcel
from windlass.ports.plan import NOW, Plan, Statement, Steps, plan
from windlass.ports.store import (
    BeatAnswer,
    Claimed,
    ClaimRequest,
    Death,
    Departure,
    Enqueued,
    Fired,
    Pruned,
    PruneRules,
    QueueChange,
    QueueRules,
    Reaped,
    ScheduleChange,
    ScheduleChanged,
    Selected,
    Selection,
    Tick,
    WorkerReport,
)
from windlass.stores.postgres.errors import Again
from windlass.stores.postgres.shell import RAW
from windlass.stores.postgres.statements import migrations_of, quoted
from windlass.stores.sql.claim import Claiming
from windlass.stores.sql.departure import Departing
from windlass.stores.sql.enqueue import row_of
from windlass.stores.sql.flow import Kept, P
from windlass.stores.sql.survey import Survey
from windlass.stores.sql.text import as_json

T = TypeVar("T")

OLDEST_SERVER = 150_000
RINGS = ("ready", "waiting", "held")
RING_SLICE = 2_000
"""Rows that are moved from one part of a ring to the other in one transaction, which has all moves to itself."""
RING_PATIENCE = "50ms"
"""How long a part is waited for: whoever wants it meanwhile stands behind."""
DEAD_MOST = 20_000
"""Dead rows in the part in use, above which it is time for the other: to walk past so many takes a claim 6 ms."""
LOOKS = 3
"""Rounds in which a job that moves from line to line is looked for, before the plan starts again."""


def under(lock: str, *plans: Plan[T], hint: bool = False) -> Plan[T]:
    """A plan that begins by taking a lock."""
    (inner,) = plans

    def steps() -> Steps[T]:
        yield Statement(lock)
        return (yield from inner)

    return Plan(steps, inner.name, write=inner.write, hint=inner.hint or hint)


_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL as JSON has it; behind one backslash more it is somebody's own JSON inside ours, and can be stored."""


def _printable(text: str) -> str:
    """PostgreSQL stores no NUL; for want of one, no outcome and no line is refused."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


class PostgresStore(Departing, Survey, Claiming):
    """Every operation of `ports.store.Store` in one schema of a PostgreSQL database; see migrations/001_first.sql."""

    capabilities = frozenset({"atomic_batch", "caller_transaction", "durable", "push", "search", "transaction"})

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.dead_most = DEAD_MOST

    # --- schema ----------------------------------------------------------------------------------------------------

    @plan
    def migrate(self) -> Steps[int]:
        """See Store.migrate. Where there is nothing to do, it needs no right but to read."""
        scripts = migrations_of(self.schema)
        version = (yield from self._version()) if (yield Statement("has_schema"))[0][0] else 0
        if version < len(scripts):
            version = yield from self._migrate(scripts)
        if version > len(scripts):
            raise SchemaError(
                f"the store's schema is version {version}, this Windlass knows up to {len(scripts)}: upgrade Windlass"
            )
        return version

    def _migrate(self, scripts: list[list[str]]) -> Steps[int]:
        now = (yield NOW)[0][0]
        server = int((yield Statement(RAW, ("SHOW server_version_num",)))[0][0])
        if server < OLDEST_SERVER:
            raise SchemaError(f"PostgreSQL {server // 10_000} is too old: 15 or later is needed")
        yield Statement("schema_lock")
        if not (yield Statement("has_namespace", (self.schema,)))[0][0]:
            yield Statement("make_namespace")
        if not (yield Statement("has_schema"))[0][0]:
            yield Statement("migrations_table")
        version = yield from self._version()
        for number, script in enumerate(scripts[version:], version + 1):
            for text in script:
                yield Statement(RAW, (text,))
            yield Statement("schema_applied", (number, now))
        return max(version, len(scripts))

    @plan(write=False)
    def version(self) -> Steps[int]:
        """See Store.version."""
        return (yield from self._version()) if (yield Statement("has_schema"))[0][0] else 0

    def _version(self) -> Steps[int]:
        return int((yield Statement("schema_version"))[0][0])

    # --- operations under a lock -----------------------------------------------------------------------------------

    def claim(self, worker: str, seq: int, request: ClaimRequest) -> Plan[Claimed]:
        """See Store.claim."""
        return under("moves_share", super().claim(worker, seq, request))

    def claim_ids(self, worker: str, seq: int, ids: Sequence[str]) -> Plan[Claimed]:
        """See Store.claim_ids."""
        return under("moves_share", super().claim_ids(worker, seq, ids))

    def settle(self, worker: str, transitions: Sequence[Transition]) -> Plan[Any]:
        """See Store.settle."""
        if any(t.reason and "\0" in t.reason for t in transitions):
            transitions = [replace(t, reason=t.reason and _printable(t.reason)) for t in transitions]
        return under("moves_share", super().settle(worker, transitions))

    def report(
        self, progress: Sequence[tuple[Token, Progress]], logs: Sequence[tuple[Token, LogLine]]
    ) -> Plan[list[Token]]:
        """See Store.report."""
        if any("\0" in line.message for _, line in logs):
            logs = [(token, replace(line, message=_printable(line.message))) for token, line in logs]
        return super().report(progress, logs)

    def promote(self, limit: int) -> Plan[Claimed]:
        """See Store.promote."""
        return under("moves_share", super().promote(limit))

    def beat(self, reports: Sequence[WorkerReport]) -> Plan[list[BeatAnswer]]:
        """See Store.beat."""
        return under("moves_share", super().beat(reports))

    def recover(self, worker: str, seq: int) -> Plan[list[Held]]:
        """See Store.recover. Alone, so that the claim whose answer was lost is over."""
        return under("moves_alone", super().recover(worker, seq))

    def reap(self, deaths: Sequence[Death]) -> Plan[list[Reaped]]:
        """See Store.reap."""
        return under("moves_alone", super().reap(deaths))

    def cancel(self, selection: Selection) -> Plan[Selected]:
        """See Store.cancel."""
        return under("moves_alone", super().cancel(selection))

    def edit(self, job: str, payload: str) -> Plan[Selected]:
        """See Store.edit."""
        return under("moves_alone", super().edit(job, payload))

    def queues(self, changes: Sequence[QueueChange] = ()) -> Plan[dict[str, QueueRules]]:
        """See Store.queues. Alone, or a claim that is under way would still go by the rules of before: what is enqueued
        after the answer to a pause might be started."""
        changed = super().queues(changes)
        return under("moves_alone", changed) if changes else changed

    def revive(self, selection: Selection) -> Plan[Selected]:
        """See Store.revive."""
        return under("moves_alone", under("endings_alone", super().revive(selection)))

    def delete(self, selection: Selection) -> Plan[Selected]:
        """See Store.delete."""
        return under("moves_alone", under("endings_alone", super().delete(selection)))

    def prune(self, rules: PruneRules, limit: int) -> Plan[Pruned]:
        """See Store.prune."""
        return under("endings_alone", super().prune(rules, limit))

    def change_schedules(self, changes: Sequence[ScheduleChange]) -> Plan[list[ScheduleChanged]]:
        """See Store.change_schedules."""
        return under("schedules_alone", super().change_schedules(changes))

    def fire(self, ticks: Sequence[Tick]) -> Plan[list[Fired]]:
        """See Store.fire."""
        fired = under("schedules_alone", super().fire(ticks))
        return under("moves_alone", fired) if any(t.overlap == "cancel-previous" for t in ticks) else fired

    def depart(self, target: str, limit: int, stay: Sequence[str] = ()) -> Plan[Departure]:
        """See Store.depart."""
        departed = under("endings_alone", under("copies_alone", super().depart(target, limit, stay)))
        return under("moves_alone", under("schedules_alone", departed))

    def arrive(self, source: str, departure: Departure) -> Plan[list[Arrival]]:
        """See Store.arrive."""
        arrived = under("copies_alone", super().arrive(source, departure))
        return under("schedules_alone", arrived) if departure.schedules else arrived

    def dismiss(self, gone: Sequence[str], back: Sequence[str]) -> Plan[list[str]]:
        """See Store.dismiss."""
        dismissed = under("copies_alone", super().dismiss(gone, back))
        return under("schedules_alone", dismissed) if back else dismissed

    # --- rings -------------------------------------------------------------------------------------------------------

    def chores(self) -> tuple[Plan[bool], ...]:
        """What one supervisor does now and then for this store alone, each answering whether there is more of it."""
        return (self._turn_rings(), *(self._clear_ring(name) for name in RINGS))

    @plan
    def _turn_rings(self) -> Steps[bool]:
        """Let new rows go to the other part where this one holds more that is dead than alive, and let the last rows of
        the one before move on."""
        more = False
        for name, current, dead, empty in (yield Statement("rings")):
            if empty:
                if dead > self.dead_most and (yield from self._mostly_dead(name, current, dead)):
                    yield Statement("ring_turn", (name,))
            else:
                yield Statement("moves_alone")
                moved = yield Statement(f"ring_move_{name}", (1 - current, RING_SLICE))
                more = more or len(moved) == RING_SLICE
        return more

    def _mostly_dead(self, name: str, part: int, dead: int) -> Steps[bool]:
        """Counted, as far as it matters: what the server believes to live there may be long out of date."""
        table = f"{quoted(self.schema)}.{name}_{part}"
        text = f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {dead // 2 + 1}) alive"  # noqa: S608
        return int((yield Statement(RAW, (text,)))[0][0]) * 2 <= dead

    @plan
    def _clear_ring(self, name: str) -> Steps[bool]:
        """Truncate the part that is not in use, if nobody else does anything with it just now."""
        for found, current, _, empty in (yield Statement("rings")):
            if found == name and not empty:
                table = f"{quoted(self.schema)}.{name}_{1 - current}"
                yield Statement("wait_at_most", (RING_PATIENCE,))
                yield Statement(RAW, (f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",))
                # Who had put something there has ended by now, so all of it is seen.
                if not (yield Statement(RAW, (f"SELECT 1 FROM {table} LIMIT 1",))):  # noqa: S608
                    yield Statement(RAW, (f"TRUNCATE {table}",))
        return False

    # --- what the shared operations leave to each database ---------------------------------------------------------

    def _storable(self, parcel: Parcel) -> Parcel | None:
        """What is said in words loses its NUL, as in a settle; anything else with one cannot be stored."""
        job, attempts, logs = parcel.job, parcel.attempts, parcel.logs
        parcel = replace(
            parcel,
            job=replace(job, reason=job.reason and _printable(job.reason)),
            attempts=tuple(replace(a, reason=a.reason and _printable(a.reason)) for a in attempts),
            logs=tuple(replace(line, message=_printable(line.message)) for line in logs),
        )
        return None if _NUL.search(encode(parcel)) else parcel

    def _store(self, jobs: Sequence[NewJob], now: int) -> Steps[None]:
        yield Statement("jobs_store", (now, as_json([row_of(job, 0, now) for job in jobs])))

    def _insert_with_care(
        self, jobs: Sequence[NewJob], now: int, line: Line | None, stopped: frozenset[str]
    ) -> Steps[list[Enqueued]]:
        # All at once, as they are asked for one by one.
        keys = [(j.tenant, j.task, j.idempotency_key) for j in jobs if j.idempotency_key is not None]
        if keys:
            yield Statement("keys_lock", (as_json(keys),))
        return (yield from super()._insert_with_care(jobs, now, line, stopped))

    def _promote(self, now: int, limit: int) -> Steps[int]:
        return int((yield Statement("promote_ready", (now, limit)))[0][0])

    def _leave(self, seq: int | None) -> Steps[None]:
        # Others may be moving it from one line to the next: each statement waits for them, and sees where it then is.
        for _ in range(LOOKS):
            for line in ("waiting", "blocked", "ready"):
                if (yield Statement(f"unplace_{line}", (seq,))):
                    return
        raise Again("a job that was to be replaced stood in no line")

    def _queue_room(self, queue: str, limit: int | None) -> Steps[int | None]:
        if limit is None:
            return None
        if not (yield Statement("queue_try", (queue,)))[0][0]:
            return -1
        return (yield from super()._queue_room(queue, limit))

    def _admit(self, line: Sequence[P], room: int) -> Steps[tuple[list[P], list[Kept], bool]]:
        """Only one at a time decides about a key; a claim does not wait for another, but passes by what it decides."""
        limits = {row.id: flow.keys_of((flow.limits_of(row.meta),)) for row in line}
        places = {row.id: (row.tenant, row.task, unique.key) for row in line if (unique := unique_of(row.meta))}
        keys = list(dict.fromkeys(key for each in limits.values() for key in each))
        ours = {r[0] for r in (yield Statement("limits_try", (as_json(keys),)))} if keys else set()
        if len(ours) < len(keys):
            line = [row for row in line if ours.issuperset(limits[row.id])]
        unsure = len(ours) < len(keys)
        if places:
            free = set((yield Statement("unique_try", (as_json(list(dict.fromkeys(places.values()))),))))
            # Whoever has that key in hand hints when it is done.
            line = [row for row in line if row.id not in places or places[row.id] in free]
        take, kept, _ = yield from super()._admit(line, room)
        return take, kept, unsure
