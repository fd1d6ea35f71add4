"""The seam: what a store must do. Implement these paragraphs, pass `windlass.testing.conformance`, and it is
a store.

Every operation takes a batch and returns a Plan. It must be atomic (per job always; the whole batch where the
store has the capability `atomic_batch`), and it may be sent again whenever its answer was lost. Durations
travel, instants do not: the store's own clock makes due times, leases and fences. One row that cannot be
handled must not fail the others (I23).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeVar
from zlib import crc32

import msgspec

from windlass.core.flow import Bounds, Full
from windlass.core.job import (
    Attempt,
    Held,
    Job,
    KeyLimit,
    LogLine,
    NewJob,
    Progress,
    Settled,
    State,
    Token,
    Transition,
)
from windlass.ports.parcel import Arrival, Parcel, Tally
from windlass.ports.plan import Plan

T = TypeVar("T")

FOREVER = 2**62
"""An instant that does not come."""
KEY_KEEP = 86_400_000_000
"""Microseconds that an idempotency key stays live after its job ended."""
DEPARTED_KEEP = 86_400_000_000
"""Microseconds for which a store knows the jobs that went to another one."""
CLAIM_WINDOW = 256
"""How many jobs that a worker cannot run, or that a limit keeps back, a claim looks past, per queue, beyond its
room."""
LOG_LINES = 1_000
"""Log lines kept per job."""


class Enqueued(msgspec.Struct, frozen=True):
    """The answer to one NewJob. `id` is the job that stands for it: its own, or the one it duplicates."""

    id: str
    inserted: bool
    conflict: bool = False
    """The idempotency key belongs to job `id`, whose payload is another: nothing was stored for this one."""
    refused: bool = False
    """The unique key belongs to job `id`, which lives: nothing was stored for this one."""
    full: Full | None = None
    """Its queue takes no more: nothing was stored for this one, or where `inserted`, it was shed."""


class Quota(msgspec.Struct, frozen=True):
    """At most `limit` jobs of one queue."""

    queue: str
    limit: int


class ClaimRequest(msgspec.Struct, frozen=True):
    """What a worker has room for. Queues are served in the order given, each up to its own limit."""

    limit: int
    quotas: tuple[Quota, ...]
    exclude: tuple[tuple[str, int], ...] = ()
    """(task, version) pairs that this worker has learnt that it cannot run."""
    suspects: bool = False
    """True: suspects only (a quarantine worker). False: everything but suspects."""


class Claimed(msgspec.Struct, frozen=True):
    """Grants, and what the worker needs in order to sleep exactly."""

    jobs: list[Held]
    next_due: int | None = None
    """Microseconds from now until the next scheduled or retrying job of any queue comes due, if any waits;
    never negative."""
    more: bool = False
    """False must mean that the same request, sent again at once, would get nothing (True is the safe answer:
    the limit or a quota was reached, or a window of jobs that this worker cannot run was passed over)."""
    limited: bool = False
    """A queue of the request is at its limit now: the end of a run in it makes it worth asking again."""
    alive: bool = True
    """False: this worker was taken over (or never beat); it gets nothing and must stop."""
    suspects: tuple[str, ...] = ()
    """Of `promote` only: queues, not paused, in which suspects wait for a quarantine worker."""


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's beat: who it is and what it does."""

    id: str
    supervisor: str
    host: str
    pid: int
    hold: int
    """Length of the lease in microseconds."""
    queues: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    """Names of the tasks it can run, as "name" or "name@version" for versions above 1; for operators only."""
    slots: int = 0
    busy: int = 0
    held: int = 0
    held_hash: int = 0
    """XOR of `token_hash` over the tokens it believes to hold; a difference is reconciled with `held`."""
    state: str = "running"
    """starting (its start hooks have not returned) | running | stalled (its loop does not turn) | draining |
    quarantine"""


class BeatAnswer(msgspec.Struct, frozen=True):
    """What a worker learns from its beat, the only way back into a running job."""

    id: str
    taken: bool
    """Taken over: cancel everything, settle nothing, register anew under another id."""
    cancel: tuple[str, ...] = ()
    """Ids of its jobs that are asked to cancel."""
    mismatch: bool = False
    """The store counts other tokens than the worker does; fetch `held` and reconcile."""
    lease_until: int = 0


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """A worker to take over, and what its supervisor saw of its end."""

    worker: str
    observed: bool
    """True: the process is known to be gone (an exit, or its kernel lock was obtained). False: only its lease
    lapsed, so the store checks that it did, and that `reaper` has itself beaten for a whole hold without a
    break."""
    reaper: str = ""
    """The worker id (or supervisor's own worker row) on whose beats an unobserved takeover rests."""
    executing: tuple[str, ...] | None = None
    """Ids of jobs whose handlers had begun; None when nobody knows."""
    alone: bool = False
    """Exactly one handler ran and the death is unexplained."""
    explained: bool = False
    """Ended on purpose, for a reason that is not its jobs' (a stuck neighbour): nobody is suspected."""
    stopped: bool = False
    """It had been told to stop (a deploy): whatever it still ran is handed back, and is no loss."""
    guilty: tuple[tuple[str, str], ...] = ()
    """(job id, reason) of jobs that were killed for their own fault, e.g. ("...", "hard_timeout"): a charged
    failure."""
    detail: str = ""


class Reaped(msgspec.Struct, frozen=True):
    """The answer to one Death."""

    worker: str
    taken: bool
    jobs: int = 0


class WorkerInfo(msgspec.Struct, frozen=True, array_like=True):
    """A worker as operators see it."""

    id: str
    supervisor: str
    host: str
    pid: int
    state: str
    slots: int
    busy: int
    queues: tuple[str, ...]
    tasks: tuple[str, ...]
    started_at: int
    beat_at: int
    lease_until: int
    taken: bool


class Filter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which jobs; every field given must match."""

    states: tuple[State, ...] = ()
    queue: str | None = None
    task: str | None = None
    tag: str | None = None
    reason: str | None = None
    parent: str | None = None
    schedule: str | None = None
    """Made by the schedule of this name: its ticks, its runs by hand and its backfills."""
    since: int | None = None
    """Created at or after this instant."""
    until: int | None = None
    """Created before this instant."""
    ended_before: int | None = None
    """Ended before this instant; what has not ended does not match."""
    fingerprint: str | None = None
    """Dead of this cause, as `dead_groups` names it."""
    tenant: str = ""


class Selection(msgspec.Struct, frozen=True):
    """Jobs named by id, or found by a filter, newest first, at most `limit` of them; with both, those of the named that
    match the filter in the very transaction that acts on them.

    A filter alone must find only jobs that the action would change (or, for a cancel, ask): however many others match,
    they are no obstacle.
    """

    ids: tuple[str, ...] = ()
    filter: Filter | None = None
    limit: int = 1_000
    dry_run: bool = False
    after: str | None = None
    """Of what the filter finds, newest first, only what was enqueued before the job of this id."""
    delay: int = 0
    """Of a revive: microseconds from now until the first of the jobs that it changes is due."""
    every: int = 0
    """Of a revive: microseconds between the due times of those jobs, in the order answered; 0 is all at once."""
    children: bool = False
    """Of a cancel: the children that those of the jobs which run still enqueue are to be cancelled as they come. Those
    that are there already are somebody else's to name."""


class Selected(msgspec.Struct, frozen=True):
    """How an operator's action went: `changed` (or would change), `asked` (a running job was told),
    `untouched`.

    Every id that was named is in exactly one of the four.
    """

    changed: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    next: str | None = None
    """What `after` is to be for the rest of what a filter matches; None where this was all. To repeat the action
    without it would meet jobs again that have come back meanwhile: dead letters that died once more."""


class Page(msgspec.Struct, frozen=True):
    """One page of a search, newest first; `next` continues it."""

    jobs: list[Job]
    next: str | None = None


class QueueStats(msgspec.Struct, frozen=True):
    """One queue at a glance. Counts stop at the cap they were asked with."""

    queue: str
    paused: bool
    queued: int
    waiting: int
    """scheduled and retrying"""
    running: int
    oldest_due: int | None = None
    """Microseconds that the longest-waiting queued job has been due."""
    blocked: int = 0
    limit: int | None = None
    """How many of it may run at once."""
    bounds: Bounds = Bounds()
    """How full it may get."""


class Stats(msgspec.Struct, frozen=True):
    """Counts by state, and by queue for what has not ended."""

    states: dict[str, int]
    queues: list[QueueStats]
    now: int
    exact: bool


class QueueChange(msgspec.Struct, frozen=True):
    """Pause or resume one queue, or limit it; what is None stays as it is."""

    queue: str
    paused: bool | None = None
    limit: int | None = None
    """How many of it may run at once; 0 is no limit."""
    bounds: Bounds | None = None
    """How full it may be; `Bounds()` is no bound."""


class QueueRules(msgspec.Struct, frozen=True):
    """What an operator has said about one queue."""

    paused: bool = False
    limit: int | None = None
    bounds: Bounds = Bounds()


class PruneRules(msgspec.Struct, frozen=True):
    """How long ended jobs stay, in microseconds after their end; None keeps them."""

    completed: int | None = 7 * 86_400_000_000
    cancelled: int | None = 7 * 86_400_000_000
    expired: int | None = 7 * 86_400_000_000
    dead: int | None = 90 * 86_400_000_000
    workers: int = 86_400_000_000
    keys: int = KEY_KEEP
    """Idempotency keys are freed this long after the end of their job, and at the latest after KEY_KEEP."""


class Pruned(msgspec.Struct, frozen=True):
    """What one prune removed."""

    jobs: int = 0
    results: int = 0
    """Of jobs that stay."""
    keys: int = 0
    workers: int = 0
    done: bool = True
    """False: the limit was reached and there may be more."""


CODE_SEEN = 180_000_000
"""Microseconds after which code that has not shown a schedule is taken to be gone."""
PAST_DEFINITIONS = 20
"""How many earlier definitions of a schedule a store knows again."""
PREVIOUS_JOBS = 100
"""How many jobs of a schedule that have not ended a store keeps in sight."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it stands. Its definition is text that no store has to understand (core.schedule does)."""

    name: str
    revision: int
    definition: str
    origin: str
    """code: as the application defines it. edited: the application's, edited by a person. operator: made by one."""
    paused: bool
    cursor: int
    """Up to where its ticks are dealt with."""
    next_at: int | None
    """When it is to be looked at next; None when it will not tick any more."""
    created_at: int
    changed_at: int
    seen_at: int | None
    """When code last showed it, if code ever did."""
    last_tick: int | None = None
    last_outcome: str | None = None
    """fired or skipped"""
    last_job: str | None = None
    fired: int = 0
    skipped: int = 0


class Scheduled(msgspec.Struct, frozen=True):
    """A schedule, and what a store knows about it besides."""

    said: Schedule
    digest: str
    timing: str
    past: tuple[str, ...] = ()
    """Digests of the definitions that it had before."""
    shown_at: int | None = None
    """When code last showed the present definition."""
    previous: tuple[str, ...] = ()
    """Its jobs that may not have ended."""
    away: bool = False
    """It went to another store, and is paused here for that."""


class ScheduleChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is to happen to one schedule."""

    name: str
    action: str
    """put, pause, resume or delete; for a put, the rest says what as."""
    definition: str = ""
    digest: str = ""
    """Equal for equal definitions, and only for them."""
    timing: str = ""
    """Equal for definitions whose ticks are the same."""
    origin: str = "operator"


class ScheduleChanged(msgspec.Struct, frozen=True):
    """The answer to one change: how it went, and the schedule as it is now.

    `word` is created, replaced, unchanged, superseded (nothing was changed: an older version of the code showed it),
    paused, resumed, deleted or missing.
    """

    word: str
    schedule: Schedule | None = None


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done about one schedule, by whom read it at `revision` and `cursor`."""

    schedule: str
    revision: int
    cursor: int
    """Where the schedule stood when this was decided."""
    to: int
    """Where it stands afterwards: the instant of the tick, or up to where there is none."""
    next_at: int | None
    job: NewJob | None = None
    """What the tick becomes; None if there is none to fire."""
    overlap: str = "skip"
    """skip, queue or cancel-previous"""
    manual: bool = False
    """Asked for by a person: enqueued whatever the revision and cursor, which stay."""


class Fired(StrEnum):
    """A store's answer to one Tick."""

    FIRED = "fired"
    SKIPPED = "skipped"
    """Its predecessor's job has not ended, or one with the same unique key lives: dealt with, without a job."""
    MOVED = "moved"
    """There was no job; the cursor has moved."""
    ALREADY = "already"
    """Somebody else dealt with it, or the same scheduler did and lost the answer."""
    STALE = "stale"
    """The schedule is gone, paused, has another revision, or stands elsewhere."""
    EARLY = "early"
    """It lies in the store's future."""


class DueSchedules(msgspec.Struct, frozen=True):
    """The schedules to be looked at now, by the store's clock, and when the next one is."""

    now: int
    schedules: list[Schedule]
    next_at: int | None = None
    """Of those that are not due yet."""


class Leadership(msgspec.Struct, frozen=True):
    """Who leads, until when, in which term."""

    holder: str
    term: int
    leading: bool


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a job that is not running, read in one transaction, from which the cause is told."""

    job: Job
    now: int
    paused: bool
    ahead: int
    """Claimable jobs of its queue with a smaller rank, capped at 10,000."""
    workers: tuple[WorkerInfo, ...]
    attempts: tuple[Attempt, ...]
    where: str = ""
    """Which store it is, as it may be shown; the client says so, who knows by what URL it came."""
    limit: KeyLimit | None = None
    """Of a blocked job: the limit for which it waits."""
    running: int = 0
    """How many jobs run under that limit."""
    owner: str | None = None
    """Of a blocked job: the one that has its unique key, and must end first."""
    awaited: str | None = None
    """Of a blocked job: the one for which it waits, if there is one: the owner of its key; of those that run under its
    limit, the one with the smallest id; or if none runs, the first in line."""
    awaited_state: State | None = None
    queue_limit: int | None = None
    queue_running: int = 0
    """How many jobs of its queue run, counted only where it has a limit."""


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """A job that has not ended: as much of it as code that is to be released must be able to run."""

    id: str
    task: str
    version: int
    queue: str
    state: State
    payload: str


class Backlog(msgspec.Struct, frozen=True):
    """One page of what has not ended; `next` continues it, None is the end."""

    jobs: list[Pending]
    next: str | None = None


class Children(msgspec.Struct, frozen=True):
    """One page of the children of some jobs, by their ids; `next` continues it, None is the end."""

    ids: list[str]
    next: str | None = None


class DeadGroup(msgspec.Struct, frozen=True):
    """The dead letters of one cause."""

    fingerprint: str
    """As `core.fingerprint` made it when they died; empty for those that died without one."""
    count: int
    first: int
    last: int
    """When the first and the last of them died."""
    latest: Job
    """The one that died last."""


class Ending(msgspec.Struct, frozen=True, array_like=True):
    """When a job was asked for, began its last run, and ended."""

    task: str
    state: State
    created_at: int
    due_at: int
    started_at: int | None
    """None: it ended without a run."""
    finished_at: int


class Departure(msgspec.Struct, frozen=True):
    """What is set aside on its way to another store; of jobs that follow others, those come first."""

    number: int = 0
    """Of all departures of a store, which; it grows."""
    jobs: tuple[Parcel, ...] = ()
    schedules: tuple[Scheduled, ...] = ()


class LeftKey(msgspec.Struct, frozen=True, array_like=True):
    """An idempotency key that has outlived its job."""

    tenant: str
    task: str
    key: str
    id: str
    digest: str
    free_at: int


class LeftWindow(msgspec.Struct, frozen=True, array_like=True):
    """What is left of a throttle whose job has ended: until when its unique key keeps others out."""

    tenant: str
    task: str
    key: str
    id: str
    until: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a store knows beside its jobs and schedules."""

    departing: int = 0
    """How many of those are set aside on their way to another store."""
    queues: dict[str, QueueRules] = {}
    keys: tuple[LeftKey, ...] = ()
    windows: tuple[LeftWindow, ...] = ()
    term: int = 0
    """The greatest that any lead has had: terms are the fences of locks (I4)."""
    revision: int = 0
    """The greatest of a schedule that was deleted."""


class Store(Protocol):
    """The operations. `capabilities` holds names that tests and registrations ask for: `atomic_batch` (see above),
    `atomic_plan` (a plan, or a chain of them, is one transaction; without it one that fails half-way has done nothing,
    or all of one operation), `caller_transaction` (`Opened.own`), `durable` (the same URL opened again is the same
    store), `push` (hints arrive), `search`, `transaction` (a handler's own writes commit with its completion) and
    `wide_numbers` (instants, versions and fences of 2**53 and more are kept exactly; without it they are refused)."""

    capabilities: frozenset[str]

    # --- jobs ---------------------------------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[NewJob], *, whole: bool = False) -> Plan[list[Enqueued]]:
        """Must store each job once and answer in the order given. A job whose id is already stored must
        answer as the first time, `inserted=True` (a re-sent enqueue), also twice in one batch, and also where
        only its live key is left of it. A job whose idempotency key is live must answer `inserted=False` with
        the owner's id, and `conflict=True` if its digest differs; two jobs of one batch with one key are
        duplicates like any others. A key belongs to (tenant, task); it is live until KEY_KEEP after its owner
        ended, whether or not the owner's row is still there, or until a prune with a shorter rule; deleting
        the owner frees it. The due time is `at`, else now + `after`; a job due later is `scheduled`, else
        `queued`. The expiry is `expires_at`, else now + `expires_after`, else never. The rank is the due time
        less `head_start`, and jobs of equal rank stand in the order of their enqueue.

        Unique keys (I10): of the jobs of one (tenant, task) that carry one key in `Meta.unique`, at most one
        lives, the owner, and at most one more is its successor: `blocked`, reason `unique`. A job whose key no
        living job has becomes the owner. Otherwise `core.unique.arrive` says what becomes of it: REFUSE must
        answer `refused=True` with the owner's id; EXISTING `inserted=False` with the owner's id; REPLACE must
        give the one that waits (the successor, else the owner) the new job's payload, meta, version, queue,
        priority, expiry and due time (`core.unique.due_of`), with fresh counts, without error, progress,
        suspicion and first results, keeping its id, key, creation, fence and history, and answer its id with
        `inserted=False`, also when the new job is sent again; FOLLOW must store the new job as the successor;
        OUST as well, and mark the owner as asked to cancel. A throttle's key also stands for its owner, ended
        or not, until `window` after its enqueue, to jobs of that policy alone. Idempotency keys come first.

        Bounded queues: a job that would be stored and due now in a queue that `core.flow.fullness` calls full
        must not be: it answers `inserted=False` with `full`, or where the queue sheds it is stored as
        `cancelled`, reason `shed`, without an attempt (`inserted=True` beside `full`), and takes neither its
        idempotency nor its unique key. How full a queue is is looked at once, before the batch, of whose jobs
        those that go in count for those behind them. Depth is counted of jobs in line that are no suspects, as
        far as the bound (0 where there is none); age is since the due time of the first of them. Nothing else
        is ever refused for a full queue: no children, no retry, no revival, and nothing that is due later.

        A child (`Meta.parent_id`) whose parent runs and was cancelled with `Selection.children` must be stored as
        `cancelled`, reason `parent_cancelled`, without an attempt, and take no key (I13). Only what was sent again and
        idempotency keys come before that.

        With `whole` the caller wants all or none, and will raise an error where one of them was in conflict, refused or
        not taken: a store without `atomic_plan` must then have stored none. (With it, the error undoes the plan.)"""
        ...

    def claim(self, worker: str, seq: int, request: ClaimRequest) -> Plan[Claimed]:
        """Must grant up to `limit` due jobs, by rank within each queue, queues in the order given, each at
        most its quota; must promote what has come due first, and expire what is past its time instead of
        granting it (an expired job ends without an attempt). The worker must be registered and not taken,
        under a lock that excludes a concurrent takeover; otherwise `alive=False` and nothing. A lease that
        lapsed untaken still claims. The fence becomes max(old + 1, now); the attempt is charged here; the
        grant is recorded under (worker, seq), and a `seq` at or below a closed one must grant nothing. Must
        skip paused queues and excluded tasks. Looking past excluded tasks must be bounded (CLAIM_WINDOW
        beyond the room): where such a window holds nothing else, its jobs must be parked: `scheduled`, reason
        `unknown_task`, uncharged, at their old rank, due again after `core.machine.parked_for` their age.
        Must never wait for another claimer. No token is ever given twice.

        Limits (I9): jobs of a window are let in by `core.flow.admit`, where the jobs that run under a key are
        counted from what is held, in this transaction; a queue with a limit grants at most that many less those
        that run. A job that is not let in becomes `blocked`, reason `limit`, at its rank, under the limit that
        `admit` names, and counts like an excluded one toward the window. Of the other keys of jobs that were
        just blocked, `core.flow.passed_on` says how many turns pass on, as after a settle."""
        ...

    def claim_ids(self, worker: str, seq: int, ids: Sequence[str]) -> Plan[Claimed]:
        """Must grant those of `ids` that are claimable now, in that order, under the same rules; suspects are
        not."""
        ...

    def settle(self, worker: str, transitions: Sequence[Transition]) -> Plan[list[Settled]]:
        """Must apply each transition whose token is the one under which its job runs, and answer per token. A
        token that was settled before (whatever by) must answer `already`, one that was taken over `stale`,
        one whose job was deleted `gone`; none of these changes anything. Must write the attempt into the
        history in the same transaction and insert the children of a completion with it, as `enqueue` would (its
        own cancelled as they come, where it was cancelled with its children and has completed all the same);
        where the idempotency key of one belongs to a job with another payload, must raise ChildConflict and apply
        nothing.
        Where a cancel was requested and `cancel_wins`, the job must become `cancelled`, reason `cancelled`,
        with no result, no children and no further run; the history keeps how the attempt itself ended. An
        uncharged transition gives its attempt back. A state that waits is due `after` from now, and ranked
        anew; with `keep_rank` it keeps its rank and its own due time, and reads as due at its next look only
        while it is parked. An ended job is no suspect. `result_ttl` counts from this moment. An
        ended job must read the error it ended by, any other the last error there was; a queued or running one
        reads no reason. `worker` and `started_at` are those of the current run, or of the one that ended the
        job.

        Whatever ends a run (this, or a takeover) frees its limits in the same transaction. For each key, each
        queue and kind (suspects apart) in which jobs are blocked under it must get as many of them back to
        `queued`, by rank, as `core.flow.turns` says of the number freed, of the first one's own limit, and of
        those that still run: whoever then finds no room is blocked again by its claim. So a turn that falls to
        a queue that nobody serves keeps no other queue waiting.

        Whatever ends a job (this, a takeover, an operator, its expiry) frees its unique key in the same
        transaction: its successor becomes the owner, `queued`, or `scheduled` if it is due later. Children are
        enqueued after that."""
        ...

    def report(
        self, progress: Sequence[tuple[Token, Progress]], logs: Sequence[tuple[Token, LogLine]]
    ) -> Plan[list[Token]]:
        """Must store progress (the latest wins, and stays until the next) and append log lines (at most
        LOG_LINES a job, over all its attempts, then dropped) for tokens that still run, and for those that were
        settled while nobody has been given the job since (its last words come after a completion that its handler
        committed itself); must answer the other tokens, each once."""
        ...

    def once(self, token: Token, name: str, value: str | None) -> Plan[str | None]:
        """With a value: must store it for (job, name) unless one is stored, under the fence, and answer the
        one that is kept, for every later attempt and after a revive too. Without: must answer what is kept,
        or None. Raises LeaseLost, in both cases, when the token no longer runs."""
        ...

    # --- grants -------------------------------------------------------------------------------------------

    def recover(self, worker: str, seq: int) -> Plan[list[Held]]:
        """After a lost claim answer. Must wait out the original claim, close every seq up to this one, and
        answer the jobs granted under exactly this one that still run, as the claim answered them."""
        ...

    def held(self, worker: str) -> Plan[list[Token]]:
        """Must answer every token that the worker holds in the store's eyes."""
        ...

    # --- workers ------------------------------------------------------------------------------------------

    def beat(self, reports: Sequence[WorkerReport]) -> Plan[list[BeatAnswer]]:
        """Must register or renew each worker (lease until now + hold) unless it was taken, and answer which
        of its jobs are asked to cancel. A lease has lapsed once the clock is past its end. A lapsed lease
        that nobody took is simply renewed; the beginning of its unbroken series of beats must then be reset.
        A taken id never comes back.

        After the clock was set back, leases lie further ahead than a hold, and the beginnings of some series lie in
        the future. The first beat of anybody must cut the former to one hold from now (a living worker renews within
        it, a dead one's jobs do not wait until the clock is where it was), and its own series begins anew."""
        ...

    def reap(self, deaths: Sequence[Death]) -> Plan[list[Reaped]]:
        """Must take over each worker that is dead by the rules of `Death`: mark it taken, and settle every
        job it holds under a larger fence (which its history shows) by `core.machine.decide` with the outcome
        Lost, after a stop Released, or for the guilty Failed with their reason, its error of the kind that the
        reason spells (`hard_timeout`: `HardTimeout`). A job whose policy cannot be read must be decided by the
        default one. A worker whose lease has not lapsed must be left alone unless its death was observed.
        `taken` is also True, with no jobs, for one that was taken before; False for one that never beat."""
        ...

    def lapsed(self, reaper: str) -> Plan[list[str]]:
        """Must answer the workers, not taken, whose lease has lapsed, if `reaper` has beaten without a break
        for one whole hold; otherwise none."""
        ...

    def workers(self) -> Plan[list[WorkerInfo]]:
        """Must answer every worker that beat within its lease, and those that lapsed untaken."""
        ...

    # --- operator -----------------------------------------------------------------------------------------

    def cancel(self, selection: Selection) -> Plan[Selected]:
        """Must make waiting jobs `cancelled` at once, mark running ones as asked, and leave ended ones
        untouched. With `children`, what the run of a running one enqueues from then on must be cancelled as it comes;
        a later cancel without does not take that back."""
        ...

    def revive(self, selection: Selection) -> Plan[Selected]:
        """Must queue ended jobs again, due and ranked now, with fresh attempt, crash and loss counts and a
        larger fence, without expiry, result, error and suspicion, keeping their history, log lines and first
        results; must queue scheduled and retrying ones, due and ranked now, with their counts as they are;
        must leave queued and running ones untouched. An ended job whose unique key, or whose idempotency key,
        another job has by now (which it has while that key is live) must be left untouched, and is not found by a
        filter; otherwise both are its own again, also where the latter was freed, or never given to it because it
        was cancelled as it came; the former with what is left of the window of a throttle, whosever it was. With
        `delay` or `every`, the n-th job that is changed (from 0) is due, and ranked, `delay` + n x `every` from now
        instead; one due later than now is `scheduled`, reason `redriven`."""
        ...

    def edit(self, job: str, payload: str) -> Plan[Selected]:
        """Must replace the payload of a job that is not running, ended or not."""
        ...

    def delete(self, selection: Selection) -> Plan[Selected]:
        """Must remove jobs that are not running, with all they own, their idempotency keys included."""
        ...

    # --- time ---------------------------------------------------------------------------------------------

    def promote(self, limit: int) -> Plan[Claimed]:
        """Must queue what has come due, without its reason, and expire what is past its time in whatever
        state it waits, about `limit` jobs of each; answers no grants, but `next_due`, `more` while there
        is more to do, and `suspects`. Must give every key under which jobs are blocked the turns for which
        there is room (`core.flow.turns` of None), about `limit` keys at a time, in a round: whoever had a turn
        may have been cancelled instead of claimed."""
        ...

    def prune(self, rules: PruneRules, limit: int) -> Plan[Pruned]:
        """Must drop results past their time to live (the job then reads `result_expired`), and delete ended
        jobs, free keys and forgotten workers past the rules, about `limit` rows at a time, resuming where it
        left; repeated until `done` it must have removed all that was past the rules when it began. A job
        deleted so leaves its live key behind. A worker that holds jobs is never forgotten. Leads that nobody
        has had for as long as workers are remembered are forgotten as well, uncounted."""
        ...

    def chores(self, rules: PruneRules) -> Sequence[Plan[bool]]:
        """What this kind of store needs besides, done by one supervisor about once a second, each plan by itself. It
        must answer whether there is more of it to do at once; it may raise StoreUnavailable, where somebody was in
        the way."""
        ...

    # --- reading ------------------------------------------------------------------------------------------

    def fetch(self, ids: Sequence[str]) -> Plan[list[Job | None]]:
        """Must answer in the order given, None for what is not there."""
        ...

    def attempts(self, job: str) -> Plan[list[Attempt]]:
        """Must answer the history of a job, oldest first."""
        ...

    def logs(self, job: str, after: int = 0) -> Plan[list[LogLine]]:
        """Must answer the log lines of a job after the first `after`."""
        ...

    def search(self, filter: Filter, limit: int, after: str | None = None) -> Plan[Page]:
        """Must answer matching jobs, last enqueued first, continuing after the job id in `after`, or if that job is
        gone, after those whose ids are larger."""
        ...

    def stats(self, exact: bool = False) -> Plan[Stats]:
        """Must count by state and queue; unless `exact`, may stop at 10,000 a queue for what waits."""
        ...

    def why(self, job: str) -> Plan[Why | None]:
        """Must read the facts about one job together."""
        ...

    # --- surveys ------------------------------------------------------------------------------------------

    def backlog(self, limit: int, after: str | None = None) -> Plan[Backlog]:
        """Must answer jobs that have not ended, of every tenant, in whatever order suits the store, at most
        `limit`, continuing after the `next` of the page before (which is the store's own to read). Pages must
        cost what they answer, however many jobs have ended. A job that does not move meanwhile is answered once;
        one that does may be answered again, and one that was claimed, ran and waits again, or that a limit kept
        back, may be left out."""
        ...

    def children(self, parents: Sequence[str], limit: int, after: str | None = None) -> Plan[Children]:
        """Must answer the children of these jobs, in whatever state, at most `limit`, continuing after the `next` of
        the page before (which is the store's own to read, and of the same parents). One that is enqueued while the
        pages are read may be left out; every other one must be answered, once. The jobs named need not be there any
        more. Pages must cost what they answer, and the number of parents, however many jobs there are."""
        ...

    def dead_groups(self, limit: int) -> Plan[list[DeadGroup]]:
        """Must count the dead jobs by the fingerprint in their error, of every tenant, exactly, the largest group
        first, equal ones by fingerprint, at most `limit` groups."""
        ...

    def endings(self, limit: int) -> Plan[list[Ending]]:
        """Must answer, of the jobs that have ended, the `limit` that were enqueued last, newest first."""
        ...

    # --- schedules ----------------------------------------------------------------------------------------

    def schedules(self, names: Sequence[str] | None = None) -> Plan[list[Schedule]]:
        """Must answer the schedules of these names, or all, in the order of their names."""
        ...

    def change_schedules(self, changes: Sequence[ScheduleChange]) -> Plan[list[ScheduleChanged]]:
        """Must apply each change and answer in order. A put of a name that is not there must create it; of the
        definition that it has, change nothing; of another, replace it under a revision larger by one. A revision
        number of a name must never come back, not even after a delete. A new schedule has its cursor at now; so
        has one whose timing was replaced, unless the cursor is past that; where the timing is the same it stays.
        A put must set `next_at` to now, so that it is looked at, and keep pauses and counts. The origin of a
        replacement is that of the put, but `edited` for an operator's on what code made.

        A put by code must note that code showed the schedule. A definition among the last PAST_DEFINITIONS that
        this one replaced comes from an older version of the code: it must answer `superseded`, and only replace
        the present one if that is of origin code too and no code has shown it for longer than CODE_SEEN. A put by
        code of the definition that an operator gave it makes it the code's.

        A pause keeps it from being due. A resume, of one that is paused, must move the cursor up to now: what was
        paused is not caught up. A delete must leave its jobs alone."""
        ...

    def due(self, limit: int) -> Plan[DueSchedules]:
        """Must answer at most `limit` schedules whose `next_at` is not after now and that are not paused, the
        longest due first."""
        ...

    def fire(self, ticks: Sequence[Tick]) -> Plan[list[Fired]]:
        """Must answer each tick in order. `stale` where the schedule is not there, is paused or has another revision;
        `already` where its cursor is past `to`, or at `to` unless it is the tick's own and there is no job;
        `stale` where it is before `to` and not the tick's; `early` where `to` is after now and not the
        cursor; none of these changes anything. Else must move the cursor to `to` and `next_at` with it, in
        the same transaction as the job: without one it is `moved`. With overlap `skip` and a job of the
        schedule that has not ended (of the last PREVIOUS_JOBS), and wherever `enqueue` does not insert, it
        must be `skipped`; with `cancel-previous` those jobs must be cancelled as by `cancel`; else the job is
        inserted as by `enqueue`, `fired`, and remembered; one that it merged into, or gave way to, must not be.
        The schedule's last tick, outcome, job (of those remembered) and counts follow. A manual tick is only
        `stale` where the schedule is not there; it moves nothing, but its job is remembered as the others' are.
        Sent again, it must change nothing and be answered as before."""
        ...

    def fan_out(self, token: Token, name: str, after: int, jobs: Sequence[NewJob]) -> Plan[int]:
        """Must answer how many children were stored under (job, name) so far. If `after` is that many, it must
        insert `jobs` as `enqueue` would, and count them, in one transaction, under the fence: otherwise nothing.
        Raises LeaseLost when the token no longer runs. The count stays with the job as `once` does."""
        ...

    # --- from one store to another ------------------------------------------------------------------------
    #
    # No transaction spans two stores. So what leaves is first set aside, where nobody can claim, change or prune it
    # and the next copier finds it; then it arrives at the target; then the source forgets it.

    def identity(self, fresh: str) -> Plan[str]:
        """Must answer the name of this store, which is `fresh` if it has none yet, and keep it."""
        ...

    def depart(self, target: str, limit: int, stay: Sequence[str] = ()) -> Plan[Departure]:
        """Must answer what is set aside on the way to the store of that name; raises StoreError if that is another.
        If nothing is, must set aside, in this transaction and under a number larger than any before, about `limit`
        jobs that do not run, but none of those in `stay`: first those that wait, in the order of their claim, then
        those that have ended, oldest first. An owner of a unique key takes its successor with it, and a successor does
        not go before its owner. Where no job can go, the schedules go, unless they are in `stay`, or a job of theirs
        (of the last PREVIOUS_JOBS) has not ended here. An empty departure is that there is nothing.

        What is set aside is gone for every other operation, but: an `enqueue` of its id must answer as the first time
        for a day; its idempotency key stays taken, by it; its unique key too, as if its owner ran. A schedule stays,
        paused, until somebody resumes it. The jobs count for the tally of that target."""
        ...

    def arrive(self, source: str, departure: Departure) -> Plan[list[Arrival]]:
        """Must store each job as it left, and answer in order, with its own id, creation, times, rank, counts, history
        and a fence that is not below its last (I4); and must compare what it stored, before it is committed, with what
        was sent: StoreCorrupt where they differ. One whose id is known is `present`. One that lives and whose
        idempotency key another has, or whose unique key another that lives has, is a `conflict`, unless
        `core.unique.arrive` lets it follow, or it followed that owner before. One that has ended is then `keyless`.
        What the store cannot hold is `unfit`. Keys that were left behind when their own job departed from here keep
        nobody out. What is here afterwards counts once for the tally of that source. Raises StoreError for a departure
        with a number below one that came from there before: a copier that was stopped would bring again what has come,
        and gone.

        A schedule whose name is not here is stored. One that is here and has never ticked goes on from where the other
        stands (cursor, pause, counts, previous jobs), under a revision no less than either; any other is `present`."""
        ...

    def deliver(self, source: str, number: int, jobs: Sequence[NewJob]) -> Plan[bool]:
        """Must insert `jobs` as `enqueue` would, and keep the number, in one transaction, unless a departure of that
        number, or a greater one, came from that source before: then nothing. Must answer whether it did. It is for what
        another store only hands on, as an outbox does: keys are this store's, and nobody is told of what they keep out.
        Nothing is refused for a full queue."""
        ...

    def dismiss(self, gone: Sequence[str], back: Sequence[str]) -> Plan[list[str]]:
        """Of what is set aside, must forget the jobs and schedules in `gone`, and put those in `back` where they were,
        and take them from the tally; what is not set aside any more is left alone. Must answer those that cannot be put
        back, and still are set aside."""
        ...

    def tallies(self, other: str) -> Plan[tuple[Tally, Tally]]:
        """Must answer what has gone to the store of that name, and what has come from it."""
        ...

    def standing(self, after: LeftKey | None, limit: int) -> Plan[Standing]:
        """Must answer what the store knows beside jobs and schedules, with at most `limit` of the keys, those after
        that one by tenant, task and key. What a job left when it departed is none of them."""
        ...

    def adopt(self, standing: Standing) -> Plan[None]:
        """Must take over what this store does not know: rules of queues about which nobody has said anything here, keys
        and windows that are free here; terms and revisions must from here on be above these."""
        ...

    # --- queues, cluster, schema --------------------------------------------------------------------------

    def queues(self, changes: Sequence[QueueChange] = ()) -> Plan[dict[str, QueueRules]]:
        """Must apply the changes and answer the queues that were ever changed, with what holds for them.
        A limit holds from the next claim on, also for what waits already; what runs goes on."""
        ...

    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Plan[Leadership]:
        """Must give the named lead to `holder` if it is free, lapsed or already its own; the term grows
        whenever a lead begins (after another holder, a lapse or a resignation), not when it is renewed. It must be no
        less than the store's time then, so that a store which has lost its last commits gives no term again.

        With several `slots`, as many holders have it at once, each in a term of its own, greater than every
        term of that name before; those who hold it count, whatever `slots` they said. A refusal names the
        holder whose lead ends first. Terms must grow across a prune too.

        A lead that ends later than `ttl` from now, the ttl that its holder named last, must be cut to that by whoever
        asks: the clock was set back. It keeps its term, and a holder that lives renews it in time."""
        ...

    def resign(self, name: str, holder: str) -> Plan[None]:
        """Must free the lead if `holder` has it."""
        ...

    def migrate(self) -> Plan[int]:
        """Must bring the schema to this version's, however many processes try at once; refuses a newer one
        with SchemaError. Answers the version."""
        ...

    def version(self) -> Plan[int]:
        """Must answer the schema's version, 0 where there is none."""
        ...

    def audit(self) -> Plan[list[str]]:
        """Must answer every contradiction found in the store's own records (I3); an empty list is health."""
        ...


class Listener(Protocol):
    """Hints that something may have changed. Losing one costs latency, never a job."""

    def fileno(self) -> int:
        """A descriptor that becomes readable on a hint."""
        ...

    def drain(self) -> None:
        """Swallow every hint that has arrived."""
        ...

    def close(self) -> None:
        """Stop listening; leaves nothing behind."""
        ...


class Shell(Protocol):
    """I/O for one store, blocking. Safe to call from several threads."""

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """Run the plan in a transaction. Where it has `hint`, must tell every listener, at such a moment that who
        then claims finds what was committed, or waits for it. Raises StoreTimeout once `timeout` seconds (default:
        the shell's own, 5 s) passed before it could be accepted, StoreUnavailable, StoreFull, OutcomeUnknown,
        SchemaError."""
        ...

    def changed(self) -> int:
        """A number that differs when another connection may have committed something; costs microseconds.
        Raises StoreReplaced, after some calls, once what is open is no longer what others will open."""
        ...

    def hint(self) -> None:
        """Tell every listener that something may have changed; never fails, never blocks."""
        ...

    def listen(self) -> Listener:
        """Start to listen for hints."""
        ...

    def close(self) -> None:
        """Give back every connection, descriptor and thread."""
        ...


class AsyncShell(Protocol):
    """The same for an event loop: the two differ in one word."""

    async def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """As `Shell.run`. Cancelling the caller does not tear a transaction: it is finished in the
        background."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...


class Opened(Protocol):
    """A store that was opened by URL: plans, and the shells that run them."""

    url: str
    """As given, with any password replaced."""
    store: Store
    shell: Shell

    def async_shell(self) -> AsyncShell:
        """The shell for the running event loop; the same one every time."""
        ...

    def own(self, connection: Any) -> Shell:
        """A narrower shell over the caller's own connection: no begin, no commit, no restart; a savepoint per
        plan. Raises CapabilityMissing where the store has no `caller_transaction`."""
        ...

    def run_directory(self) -> str | None:
        """Where worker lock files live when every user of the store is on one machine, so that the kernel
        judges who is alive; None when leases judge."""
        ...

    def close(self) -> None:
        """Close every shell handed out."""
        ...


def token_hash(token: Token | Held | Transition) -> int:
    """A 63-bit number for `WorkerReport.held_hash`, the same in every process and language: the low bits of
    the id mixed with the fence by an odd multiplier (Knuth's 64-bit one)."""
    try:
        low = int(token.id[-12:], 16)
    except ValueError:  # an id that is none, of a row that somebody made by hand: its job ends, and nobody's beat
        low = crc32(token.id.encode())
    return ((low ^ token.fence) * 6364136223846793005) & 0x7FFFFFFFFFFFFFFF
