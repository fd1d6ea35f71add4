"""The PostgreSQL store: plans only, and of those only what differs from every SQL store's. What does the I/O is
`shell.py`; which locks there are, and in which order they are taken, stands at the head of queries.sql."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from msgspec.json import encode
from msgspec.structs import replace

from windlass.core import flow
from windlass.core.errors import SchemaError
from windlass.core.flow import Line
from windlass.core.job import Held, Job, LogLine, NewJob, Progress, State, Token, Transition, UniqueKey
from windlass.core.unique import unique_of
from windlass.ports.parcel import Arrival, Parcel
from windlass.ports.plan import NOW, Plan, Statement, Steps, plan
from windlass.ports.store import (
    BeatAnswer,
    Children,
    Claimed,
    ClaimRequest,
    Death,
    Departure,
    Enqueued,
    Filter,
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
from windlass.stores.postgres.errors import Again, Behind
from windlass.stores.postgres.parts import Parts
from windlass.stores.postgres.shell import ASIDE, OWNERS_HOLD, RAW, SO_FAR
from windlass.stores.postgres.statements import Built, built_by, migrations_of, quoted, valid_index
from windlass.stores.sql.claim import Claiming, HeldRow, held_rows
from windlass.stores.sql.claim import Grants as GrantsTo
from windlass.stores.sql.departure import Departing
from windlass.stores.sql.enqueue import row_of
from windlass.stores.sql.flow import Kept, P
from windlass.stores.sql.reading import LAST, job_of, row_of_filter
from windlass.stores.sql.settle import Grant, Grants, end_of, grants_of, last_words
from windlass.stores.sql.survey import Survey
from windlass.stores.sql.text import as_json
from windlass.stores.sql.unique import Owner
from windlass.stores.sql.unique import place_of as unique_place

T = TypeVar("T")

OLDEST_SERVER = 150_000
RINGS = ("ready", "waiting", "held")
RING_SLICE = 2_000
"""Rows that are moved from one part of a ring to the other in one transaction, which has all moves to itself."""
RING_PATIENCE = "50ms"
"""How long a part is waited for: whoever wants it meanwhile stands behind."""
RING_SETTLED = 2_000_000
"""Microseconds from when nothing lives in a part until it is truncated: as SETTLED for jobs, but here dead rows gather
meanwhile. A dump locks all tables within a fraction of a second of its snapshot."""
PASSED = 500
"""Keys that one chore passes on."""
LOOK = 5_000
"""Jobs in a line that a search looks at in one statement."""
MIGRATION_PATIENCE = "4s"
"""How long a migration waits for a table: whoever works stands behind it."""
DEAD_MOST = 20_000
"""Dead rows in the part in use, above which it is time for the other: to walk past so many takes a claim 6 ms."""
SLOW, WALKS, BLIND = 10_000, 9, 1_000_000
"""Microseconds: a claim that took longer, for dead rows, has others skip them for so many times as long, but no longer
than that."""
NO_LINE = (-1, "")
FAR, ID_MOST = 2**62, 255
LOOKS = 3
"""Rounds in which a job that moves from line to line is looked for, before the plan starts again."""


def under(lock: str | Statement, inner: Plan[T]) -> Plan[T]:
    """A plan that begins by taking a lock."""

    def steps() -> Steps[T]:
        yield Statement(lock) if isinstance(lock, str) else lock
        return (yield from inner)

    return Plan(steps, inner.name, write=inner.write, hint=inner.hint)


_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL as JSON has it; behind one backslash more it is somebody's own JSON inside ours, and can be stored."""


def _printable(text: str) -> str:
    """PostgreSQL stores no NUL; for want of one, no outcome and no line is refused."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Front(NamedTuple):
    """Where a line began when a claim last walked up to there, and from when until when that is good enough."""

    rank: int
    seq: int
    since: int
    until: int


class PostgresStore(Departing, Survey, Claiming, Parts):
    """Every operation of `ports.store.Store` in one schema of a PostgreSQL database; see migrations/001_first.sql."""

    capabilities = frozenset(
        {
            *("atomic_batch", "atomic_plan", "caller_transaction", "durable", "push", "search", "transaction"),
            "wide_numbers",
        }
    )

    def __init__(self, schema: str) -> None:
        super().__init__()
        self.schema = schema
        self.dead_most, self.slow = DEAD_MOST, SLOW
        self._lost: dict[str, tuple[str, str, str]] = {}
        """By queue, a unique key that somebody had in hand when it was tried: the next claim waits for it, a moment."""
        self.settled = RING_SETTLED
        self._fronts: dict[tuple[int, str], Front] = {}
        self._seen = NO_LINE
        """The line that was looked through last for what does not belong there."""

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
        yield from self._schema_alone()
        yield Statement("wait_at_most", (MIGRATION_PATIENCE,))
        if not (yield Statement("has_namespace", (self.schema,)))[0][0]:
            yield Statement("make_namespace")
        if not (yield Statement("has_schema"))[0][0]:
            yield Statement("migrations_table")
        version = yield from self._version()
        for number, script in enumerate(scripts[version:], version + 1):
            for text in script:
                built = built_by(text, self.schema)
                if built is None:
                    yield Statement(RAW, (text,))
                else:
                    yield from self._build(built, number)
            yield Statement("schema_applied", (number, now))
        return max(version, len(scripts))

    def _schema_alone(self) -> Steps[None]:
        if not (yield Statement("schema_try"))[0][0]:
            raise Behind("another process changes the schema")

    def _build(self, index: Built, number: int) -> Steps[None]:
        """Build an index while everybody works: on a connection of its own, in no transaction. This one lies idle
        meanwhile, without a snapshot, so it keeps other processes from doing the same and is in nobody's way."""
        yield Statement(SO_FAR)
        yield from self._schema_alone()
        if (yield from self._version()) >= number:
            raise Behind("another process was quicker")
        valid = yield Statement(RAW, (valid_index(index.name),))
        if valid == [(False,)]:
            # What is left of a build that failed; or of one whose process died, and which the server goes on with.
            if (yield Statement("index_under_way", (index.name,)))[0][0]:
                raise Behind("the server is still building the index")
            yield Statement(ASIDE, (f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}",))
        if valid != [(True,)]:
            yield Statement(ASIDE, (index.sql,))

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
        settled = super().settle(worker, transitions)
        # Before the runs that end, as an enqueue which has these may want one of those.
        children = [child for t in transitions for child in t.children]
        unique = [unique_place(child, key) for child in children if (key := unique_of(child.meta))]
        keys = [(c.tenant, c.task, c.idempotency_key) for c in children if c.idempotency_key is not None]
        if unique:
            settled = under(Statement("unique_lock", (as_json(unique),)), settled)
        if keys:
            settled = under(Statement("keys_lock", (as_json(keys),)), settled)
        return under("moves_share", settled)

    def report(
        self, progress: Sequence[tuple[Token, Progress]], logs: Sequence[tuple[Token, LogLine]]
    ) -> Plan[list[Token]]:
        """See Store.report."""
        if any("\0" in line.message for _, line in logs):
            logs = [(token, replace(line, message=_printable(line.message))) for token, line in logs]
        # Shared, as the job of somebody's last words may be moving to another part.
        return under("moves_share", super().report(progress, logs))

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
        revived = self._revive(super().revive(selection), selection)
        return under("moves_alone", under("endings_alone", revived))

    def _revive(self, revive: Plan[Selected], selection: Selection) -> Plan[Selected]:
        def steps() -> Steps[Selected]:
            selected = yield from revive
            if selected.changed and not selection.dry_run:
                yield Statement("revival")
            return selected

        return Plan(steps, revive.name, write=revive.write)

    def delete(self, selection: Selection) -> Plan[Selected]:
        """See Store.delete."""
        return under("moves_alone", under("endings_alone", super().delete(selection)))

    def prune(self, rules: PruneRules, limit: int) -> Plan[Pruned]:
        """See Store.prune."""
        if self.keeping:
            return under("moves_alone", under("endings_alone", self.keep()))
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

    def children(self, parents: Sequence[str], limit: int, after: str | None = None) -> Plan[Children]:
        """See Store.children. Those are waited for that somebody is storing, or a family that is cancelled would keep
        one that was on its way."""
        found = super().children(parents, limit, after)

        def steps() -> Steps[Children]:
            if (False,) in (yield Statement("children_try", (as_json(list(parents)),))):
                raise Behind("a transaction of an application's, which stores children of these, is still open")
            return (yield from found)

        # As if it wrote: under a snapshot from before the locks it would not see what was committed just then.
        return found if after is not None else Plan(steps, found.name, write=True)

    # --- chores ------------------------------------------------------------------------------------------------------

    def chores(self, rules: PruneRules) -> Sequence[Plan[bool]]:
        """See Store.chores."""
        rings = (self._turn_rings(), *(self._clear_ring(name) for name in RINGS))
        return (self._pass_on(), self._clear_strays(), *rings, self._resize(rules))

    @plan
    def _pass_on(self) -> Steps[bool]:
        """Give those keys to whoever is next whose owners ended while an enqueue had them in hand."""
        now = (yield NOW)[0][0]
        if not (yield Statement("passing_any")):
            return False
        yield Statement("moves_share")
        taken = yield Statement("passing_take", (PASSED,))
        yield from self._give_up([seq for seq, over in taken if over], now)
        return False

    @plan
    def _turn_rings(self) -> Steps[bool]:
        """Let new rows go to the other part where this one holds more that is dead than alive, and let the last rows of
        the one before move on."""
        more = False
        for name, current, dead, empty, deserted in (yield Statement("rings")):
            if empty:
                if dead > self.dead_most and (yield from self._mostly_dead(name, current, dead)):
                    yield Statement("ring_turn", (name,))
            elif not deserted:
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
        """Truncate the part that is not in use, if nobody else does anything with it just now, and it has been known
        for a while that nothing lives there."""
        now = (yield NOW)[0][0]
        for found, current, _, empty, deserted in (yield Statement("rings")):
            if found == name and not empty and deserted + self.settled <= now:
                table = f"{quoted(self.schema)}.{name}_{1 - current}"
                yield Statement("wait_at_most", (RING_PATIENCE,))
                yield Statement(RAW, (f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",))
                # Who had put something there has ended by now, so all of it is seen.
                if (yield Statement(RAW, (f"SELECT 1 FROM {table} LIMIT 1",))):  # noqa: S608
                    yield Statement("ring_deserted", (name, 0))
                elif not deserted:
                    yield Statement("ring_deserted", (name, now))
                else:
                    yield Statement(RAW, (f"TRUNCATE {table}",))
        return False

    @plan
    def _clear_strays(self) -> Steps[bool]:
        """Take out what was put into a line by hand and cannot be right (I23). Of `ready`, one queue's front at a time,
        as that is what claims see; nobody is stopped for it unless there is something."""
        held = yield Statement("held_strays")
        waiting = yield Statement("waiting_strays")
        lines = [(0, row[0]) for row in (yield Statement("ready_queues", (0,)))]
        lines += [(1, row[0]) for row in (yield Statement("ready_queues", (1,)))]
        line = min((each for each in lines if each > self._seen), default=min(lines, default=NO_LINE))
        ready = yield Statement("ready_strays", line)
        if held or waiting or ready:
            yield Statement("moves_alone")
            yield Statement("held_strays_remove")
            yield Statement("waiting_strays_remove")
            gone = yield Statement("ready_strays_remove", line)
            yield Statement("strays_home", (as_json([row[0] for row in gone]),))
        self._seen = line
        return False

    # --- what the shared operations leave to each database ---------------------------------------------------------

    def _storable(self, parcel: Parcel) -> Parcel | None:
        """What is said in words loses its NUL, as in a settle; anything else with one cannot be stored, nor can numbers
        that no claim could count with (migrations/003_door.sql)."""
        job, attempts, logs = parcel.job, parcel.attempts, parcel.logs
        parcel = replace(
            parcel,
            job=replace(job, reason=job.reason and _printable(job.reason)),
            attempts=tuple(replace(a, reason=a.reason and _printable(a.reason)) for a in attempts),
            logs=tuple(replace(line, message=_printable(line.message)) for line in logs),
        )
        instants = (job.created_at, job.expires_at or 0, parcel.head_start, parcel.rank, parcel.due)
        absurd = max(map(abs, instants)) >= FAR or len(job.id.encode()) > ID_MOST
        return None if absurd or _NUL.search(encode(parcel)) else parcel

    def _store(self, jobs: Sequence[NewJob], now: int) -> Steps[None]:
        once = {job.id: job for job in jobs}  # as one statement does not see what it is about to write
        yield Statement("jobs_store", (now, as_json([row_of(job, 0, now) for job in once.values()])))

    def _window(self, to: GrantsTo, queue: str, look: int) -> Steps[tuple[list[HeldRow], bool]]:
        """Where a line begins with more dead rows than vacuum may take away, as somebody's transaction is older than
        their end, most claims start behind them. What has come in line before that place since, as what is urgent does,
        waits for the next claim that looks at all: one in ten, by the time they take."""
        if queue in self._lost:
            yield Statement("unique_wait", (as_json([self._lost.pop(queue)]),))
        line = (to.lane, queue)
        front = self._fronts.get(line)
        if front is not None and front.since <= to.now < front.until:
            rows, meta = (yield Statement("ready_window_from", (to.now, *line, look, front.rank, front.seq)))[0]
            found = held_rows.decode(rows)
            if len(found) == look:
                return found, meta
        rows, meta, took = (yield Statement("ready_window", (to.now, *line, look, self.dead_most, self.slow)))[0]
        found = held_rows.decode(rows)
        if took and found:
            self._fronts[line] = Front(found[0].rank, found[0].seq, to.now, to.now + min(WALKS * took, BLIND))
        else:
            self._fronts.pop(line, None)
        return found, meta

    def _grant(
        self, rows: Sequence[HeldRow], now: int, worker: str, seq: int, lane: int, queue: str
    ) -> Steps[None]:
        # What the window has read is as good as locked while these jobs stand in line: nobody looks them up again.
        held = [(row.seq, row.id, row.fence, row.attempt) for row in rows]
        yield Statement("held_insert", (worker, seq, now, as_json(held)))
        for part in {row.part for row in rows}:
            yield Statement("ready_take", (part, as_json([row.place for row in rows if row.part == part])))

    def _hand_in(self, transitions: Sequence[Transition]) -> Steps[Grants]:
        # Deleted at once and by their tokens: a lock first would be one more write, and one more look, for each.
        tokens: dict[str, list[int]] = {}
        for t in sorted(transitions, key=lambda t: t.id):
            tokens.setdefault(t.id, []).append(t.fence)
        return grants_of((yield Statement("held_take", (as_json(tokens),)))[0])

    def _end(self, ends: Sequence[tuple[Grant, Transition]], now: int) -> Steps[None]:
        alike: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        for g, t in ends:
            row = (g.seq, g.fence, g.attempt, g.started, last_words(t))
            alike.setdefault((*end_of(t), g.worker), []).append(row)
        for end, rows in alike.items():
            yield Statement("ended_insert", (now, *end, as_json(rows)))

    def _let_go(self, moves: Sequence[tuple[Grant, Transition]]) -> Steps[None]:
        """They are gone already."""
        yield from ()

    def _check_stored(self, id: str, seq: int) -> Steps[None]:
        if (yield Statement("seq_of", (id,))) != [(seq,)]:
            raise Again("a job was sent twice at once")

    def _owners(
        self, jobs: Sequence[tuple[NewJob | Job, UniqueKey]], now: int
    ) -> Steps[dict[tuple[str, str, str], Owner]]:
        yield Statement(OWNERS_HOLD, (as_json([unique_place(job, unique) for job, unique in jobs]),))
        return (yield from super()._owners(jobs, now))

    def _give_up(self, seqs: Sequence[int], now: int) -> Steps[None]:
        """What an enqueue has in hand is not waited for: that may be part of a long transaction of somebody's."""
        if seqs:
            locked = {seq for row in (yield Statement("unique_busy", (as_json(seqs),))) for seq in row}
            busy = [seq for seq in seqs if seq in locked]
            if busy:
                yield Statement("passing_put", (as_json(busy),))
            yield from super()._give_up([seq for seq in seqs if seq not in locked], now)

    def _unlocked(self, seqs: Sequence[int]) -> Steps[set[int]]:
        busy = {row[0] for row in (yield Statement("prune_busy", (as_json(list(seqs)),)))} if seqs else set()
        return set(seqs) - busy

    def _search(self, filter: Filter, limit: int, after: str | None) -> Steps[list[Job]]:
        """Of a rare state, from the tables in which such jobs lie, a slice at a time: else, while there are none, all
        jobs would be looked at."""
        if filter.fingerprint is None and (State.COMPLETED in filter.states or not filter.states or filter.parent):
            return (yield from super()._search(filter, limit, after))
        before = yield from self._before(after)
        found: list[Job] = []
        while len(found) < limit:
            if filter.fingerprint is None:
                numbers = yield Statement("numbers_of", (before, LOOK, as_json(filter.states)))
            else:
                numbers = yield Statement("numbers_in_group", (before, LOOK, filter.fingerprint))
            given = (*row_of_filter(filter, LAST, limit - len(found)), as_json([row[0] for row in numbers]))
            found += [job_of(text) for _, text in (yield Statement("search_among", given))]
            if len(numbers) < LOOK:
                break
            before = numbers[-1][0]
        return found

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
            wanted = list(dict.fromkeys(places.values()))
            free = set((yield Statement("unique_try", (as_json(wanted),))))
            lost = [place for place in wanted if place not in free]
            for row in line:  # not now: whoever has that key may want this very row
                if row.id in places and places[row.id] in lost:
                    self._lost[row.queue] = places[row.id]
            # Whoever has that key in hand hints when it is done.
            line = [row for row in line if row.id not in places or places[row.id] in free]
        take, kept, _ = yield from super()._admit(line, room)
        return take, kept, unsure
