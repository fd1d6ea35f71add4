"""The vocabulary: jobs, tokens, outcomes and transitions, all frozen.

Instants are microseconds since 1970 (UTC, the store's clock), durations are microseconds unless a name says otherwise.
Records that cross the seam in bulk are `array_like`: a store hands over JSON arrays and they decode in one step.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from windlass.core.backoff import Backoff

PRIORITY = 50
"""The priority of a job that names none; 0..100, larger first."""


class State(StrEnum):
    """Where a job is. The last four are terminal."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    BLOCKED = "blocked"
    RUNNING = "running"
    RETRYING = "retrying"
    COMPLETED = "completed"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Whether a job in this state has ended."""
        return self in TERMINAL


TERMINAL = frozenset({State.COMPLETED, State.DEAD, State.CANCELLED, State.EXPIRED})


Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Key = Annotated[str, msgspec.Meta(max_length=456, pattern=r"\A[^\0]*\Z")]
"""What is read must be within these, whoever wrote it, or the Meta cannot be read. A number too large for the clock, or
a key too long for an index, would be found out by a claim or a settle, and stop the jobs beside it (I23)."""


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What any process needs to decide about a job, also one whose task it never imported. Durations in seconds."""

    max_attempts: int = 5
    backoff: Backoff = Backoff()
    timeout: Seconds | None = None
    """Soft limit of one attempt: the handler is cancelled, or told, and the attempt fails."""
    grace: Seconds = 10.0
    """From the soft limit to the hard one, when whatever still runs the job is killed."""
    crash_budget: int = 3
    loss_budget: int = 10
    result_ttl: Seconds = 7 * 86_400.0


class KeyLimit(msgspec.Struct, frozen=True, array_like=True):
    """At most `most` of the jobs that carry `key` run at once, wherever."""

    key: Key
    most: Annotated[int, msgspec.Meta(ge=0, le=2**31)]


SCHEDULE, BACKFILL = ",schedule,", ",backfill,"
"""What the keys of limits begin with by which the jobs of one schedule, and of its backfills, run one at a time. No
name has a comma, so no limit that a user says has such a key, and no two schedules have one."""


class UniqueKey(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Of the jobs of one tenant and task that carry `key`, at most one lives; see core.unique."""

    key: Key
    policy: str = "reject"
    """What becomes of a job that finds its key taken."""
    max_wait: int | None = None
    """Of a debounce: microseconds after the first arrival by which it is due at the latest."""
    window: int = 0
    """Of a throttle: microseconds, from the enqueue of the job that goes, in which no other does."""


class Meta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What rides with a job; kept as one JSON text, `{}` for a plain job. A store reads `limits` and `unique` only."""

    policy: Policy = Policy()
    headers: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    correlation_id: str = ""
    """Shared by a job and all its descendants; empty means the job's own id."""
    parent_id: str = ""
    codec: int = 1
    """The format of payload and result; see core/codec.py."""
    encryption_key_id: str = ""
    claim_check: str = ""
    partition_key: str = ""
    limits: tuple[KeyLimit, ...] = ()
    """All of them must have room when the job is claimed; see core.flow."""
    unique: UniqueKey | None = None
    cost: int = 1
    schedule: str = ""
    """The schedule that made it, if one did."""
    tick: int | None = None
    """The instant for which it did."""


_decode = msgspec.json.Decoder(Meta).decode


def read_meta(text: str) -> Meta:
    """A Meta from its text; raises msgspec.DecodeError for what is none, as a newer version's, or anybody's."""
    try:
        return _decode(text)
    except RecursionError:
        raise msgspec.DecodeError("JSON that is nested too deeply") from None


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A request to run a task, complete before it is stored; built by a client, so that it can be sent again."""

    id: str
    task: str
    payload: str
    """JSON text: `[args, kwargs]`."""
    meta: str = "{}"
    """JSON text of a Meta."""
    version: int = 1
    tenant: str = ""
    queue: str = "default"
    priority: int = PRIORITY
    head_start: int = 0
    """rank = due time - head_start; priority x seconds_per_priority."""
    after: int = 0
    at: int | None = None
    """A user's explicit instant; otherwise the store adds `after` to its own clock."""
    expires_after: int | None = None
    expires_at: int | None = None
    idempotency_key: str | None = None
    digest: str = ""
    """Of task, version and payload: the same key with another digest is a conflict."""


class Token(msgspec.Struct, frozen=True, array_like=True):
    """The right to write about one run of a job, until somebody else is given a larger fence."""

    id: str
    fence: int


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A job as a claim hands it to a worker."""

    id: str
    fence: int
    task: str
    version: int
    queue: str
    tenant: str
    payload: str
    meta: str
    attempt: int
    """The number of this attempt, from 1: already charged."""
    crashes: int
    losses: int
    suspect: bool
    priority: int
    created_at: int
    due_at: int
    started_at: int
    expires_at: int | None = None

    @property
    def token(self) -> Token:
        """The fenced right to write about this run."""
        return Token(self.id, self.fence)


class Job(msgspec.Struct, frozen=True, array_like=True):
    """A job as it is read: a snapshot of everything but its history."""

    id: str
    task: str
    version: int
    tenant: str
    queue: str
    state: State
    reason: str | None
    """Why it is in this state, when the state alone does not say."""
    priority: int
    created_at: int
    due_at: int
    expires_at: int | None
    payload: str
    meta: str
    attempt: int
    crashes: int
    losses: int
    suspect: bool
    fence: int
    worker: str | None
    started_at: int | None
    finished_at: int | None
    cancelling: bool
    result: str | None
    result_expired: bool
    error: str | None
    """JSON text of an ErrorInfo: the last error, if the job is retrying or ended by one."""
    progress: str | None
    """JSON text of a Progress, the latest reported."""


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exception as text. It is never re-created by name."""

    kind: str
    """The exception's qualified class name."""
    message: str = ""
    trace: str = ""
    place: str = ""
    """Module and function of the user's own code in which it was raised, as "shop.mail:send"."""
    fingerprint: str = ""
    """Of a dead letter: which others died of the same cause; see `core.fingerprint`."""


class Progress(msgspec.Struct, frozen=True):
    """How far a job says it is."""

    done: float
    total: float | None = None
    note: str = ""
    at: int = 0


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """One line that a handler logged about its job."""

    at: int
    level: str
    message: str


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One run of a job, ended."""

    number: int
    """The attempt that this run was charged as; a run that was not charged shares the number of the next."""
    fence: int
    worker: str | None
    started_at: int | None
    ended_at: int
    outcome: str
    reason: str | None = None
    error: str | None = None


# --- outcomes: what a run produced, as a value ---------------------------------------------------------------------


class Succeeded(msgspec.Struct, frozen=True):
    """The handler returned. `result` is JSON text; `children` are enqueued with the completion or not at all."""

    result: str = "null"
    children: tuple[NewJob, ...] = ()


class Failed(msgspec.Struct, frozen=True):
    """The handler raised, or ran out of time."""

    error: ErrorInfo
    permanent: bool = False
    """Trying again cannot help (a payload of the wrong type, a file that is no image)."""
    retry_after: float | None = None
    """Seconds that the handler or the remote side asked for; replaces the curve, jitter is still added."""
    reason: str = "failed"


class Snoozed(msgspec.Struct, frozen=True):
    """The handler asked to run later, uncharged."""

    delay: float
    reason: str = ""


class Discarded(msgspec.Struct, frozen=True):
    """The handler gave the job up."""

    reason: str = "discarded"
    error: ErrorInfo | None = None


class Cancelled(msgspec.Struct, frozen=True):
    """The run stopped because its cancellation was asked for."""

    reason: str = "cancelled"


class Released(msgspec.Struct, frozen=True):
    """Not run, or not to the end, through no fault of its own: handed back uncharged, at its old rank."""

    reason: str
    delay: float = 0.0


class Expired(msgspec.Struct, frozen=True):
    """Its time to start had passed when its turn came."""


class Lost(msgspec.Struct, frozen=True):
    """The owner is gone. What is known of the moment decides who is guilty."""

    started: bool = True
    """The handler had begun (True also where nobody knows)."""
    alone: bool = False
    """The only job that ran in a process that died unexplained: the crash is certainly its own."""
    explained: bool = False
    """Somebody ended the owner for a reason that is not this job (a neighbour's hard limit): a loss, but no crash."""
    detail: str = ""
    """What is known of the death, for the history: "killed by signal 9"."""


Outcome = Succeeded | Failed | Snoozed | Discarded | Cancelled | Released | Expired | Lost


class Transition(msgspec.Struct, frozen=True, array_like=True):
    """What a store must apply to a running job, under its fence. Made by the constructors in `core.machine` only."""

    id: str
    fence: int
    state: State
    outcome: str
    """How the attempt ended, for its history."""
    reason: str | None = None
    after: int = 0
    """For a state that waits: how long from the store's now."""
    result: str | None = None
    error: str | None = None
    charged: bool = True
    """Whether the attempt counts; if not, the store gives it back."""
    crash: int = 0
    loss: int = 0
    suspect: bool | None = None
    """True: runs next in quarantine. False: cleared. None: as it was."""
    keep_rank: bool = False
    cancel_wins: bool = True
    """If a cancel was requested meanwhile, the job becomes `cancelled` instead; the store picks, under the fence."""
    result_ttl: int = 0
    children: tuple[NewJob, ...] = ()


class Settled(StrEnum):
    """A store's answer to one transition."""

    APPLIED = "applied"
    ALREADY = "already"
    """This very transition's token was settled before: the answer was lost and the settle re-sent."""
    STALE = "stale"
    """Another owner has, or had, the job since: this write came from a ghost."""
    GONE = "gone"
    """The job is no longer in the store."""
