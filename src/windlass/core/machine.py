"""The state machine: every legal move has a named constructor, and one function decides which one an outcome is.

A store applies a Transition, it never chooses one; the single exception is a cancellation that was requested while
the job ran, which only the store can see under the fence (`Transition.cancel_wins`).
"""

from __future__ import annotations

import msgspec

from windlass.core.fingerprint import marked
from windlass.core.job import (
    Cancelled,
    Discarded,
    ErrorInfo,
    Expired,
    Failed,
    Held,
    Lost,
    NewJob,
    Outcome,
    Policy,
    Released,
    Snoozed,
    State,
    Succeeded,
    Token,
    Transition,
)

MOVES: dict[str, tuple[tuple[State | None, ...], State]] = {
    # name: (from, to). None is "not stored yet". The chart in docs/internals.md is generated from this table.
    "enqueue": ((None,), State.QUEUED),
    "schedule": ((None, State.QUEUED, State.BLOCKED, State.RETRYING), State.SCHEDULED),
    "promote": ((State.SCHEDULED, State.RETRYING), State.QUEUED),
    "block": ((None, State.SCHEDULED, State.QUEUED), State.BLOCKED),
    "unblock": ((State.BLOCKED,), State.QUEUED),
    "claim": ((State.QUEUED,), State.RUNNING),
    "complete": ((State.RUNNING,), State.COMPLETED),
    "retry": ((State.RUNNING,), State.RETRYING),
    "snooze": ((State.RUNNING,), State.SCHEDULED),
    "release": ((State.RUNNING,), State.QUEUED),
    "park": ((State.RUNNING, State.QUEUED), State.SCHEDULED),
    "bury": ((State.RUNNING,), State.DEAD),
    "cancel": (
        (State.SCHEDULED, State.QUEUED, State.BLOCKED, State.RETRYING, State.RUNNING),
        State.CANCELLED,
    ),
    "expire": ((State.SCHEDULED, State.QUEUED, State.BLOCKED, State.RETRYING, State.RUNNING), State.EXPIRED),
    "revive": ((State.DEAD, State.CANCELLED, State.EXPIRED, State.COMPLETED), State.QUEUED),
    "redrive": ((State.DEAD, State.CANCELLED, State.EXPIRED, State.COMPLETED), State.SCHEDULED),
}

PARK_FIRST = 1.0
PARK_MOST = 300.0
"""A job that no worker can run yet is looked at again after 1 s, doubling to 5 minutes, uncharged."""

_encode = msgspec.json.encode


def complete(token: Token, result: str, ttl: int, children: tuple[NewJob, ...] = ()) -> Transition:
    """The handler returned. A cancellation requested meanwhile came too late: the work is done."""
    return Transition(
        token.id,
        token.fence,
        State.COMPLETED,
        "succeeded",
        result=result,
        suspect=False,
        cancel_wins=False,
        result_ttl=ttl,
        children=children,
    )


def retry(token: Token, after: int, error: ErrorInfo, reason: str, *, crash: int = 0) -> Transition:
    """Failed, and may try again: due after the backoff, at a rank computed anew."""
    return Transition(
        token.id, token.fence, State.RETRYING, "failed", reason, after, None, _text(error), crash=crash, suspect=False
    )


def snooze(token: Token, after: int, reason: str) -> Transition:
    """Asked to run later: uncharged, at a rank computed anew."""
    return Transition(
        token.id, token.fence, State.SCHEDULED, "snoozed", reason or "snoozed", after, charged=False, suspect=False
    )


def release(token: Token, reason: str) -> Transition:
    """Handed back unrun: uncharged, at its old rank, claimable at once."""
    return Transition(token.id, token.fence, State.QUEUED, "released", reason, charged=False, keep_rank=True)


def park(token: Token, after: int, reason: str) -> Transition:
    """Nobody here can run it: uncharged, looked at again later, at its old rank."""
    return Transition(token.id, token.fence, State.SCHEDULED, "released", reason, after, charged=False, keep_rank=True)


def lose(token: Token, reason: str, *, suspect: bool, crash: int = 0) -> Transition:
    """The owner died while it ran: uncharged, at its old rank; counted as a loss, and perhaps as a crash."""
    return Transition(
        token.id,
        token.fence,
        State.QUEUED,
        "crashed" if crash else "lost",
        reason,
        charged=False,
        crash=crash,
        loss=1,
        suspect=suspect,
        keep_rank=True,
    )


def bury(
    token: Token, outcome: str, reason: str, error: ErrorInfo | None, ttl: int, *, crash: int = 0, loss: int = 0
) -> Transition:
    """No further attempt: the job is dead, a letter for a person to read."""
    return Transition(
        token.id,
        token.fence,
        State.DEAD,
        outcome,
        reason,
        error=_text(error) if error else None,
        crash=crash,
        loss=loss,
        suspect=False,
        result_ttl=ttl,
    )


def cancel(token: Token, reason: str, ttl: int) -> Transition:
    """The run was stopped by its cancellation."""
    return Transition(
        token.id, token.fence, State.CANCELLED, "cancelled", reason, suspect=False, cancel_wins=False, result_ttl=ttl
    )


def expire(token: Token, ttl: int) -> Transition:
    """Its time to start had passed."""
    return Transition(
        token.id, token.fence, State.EXPIRED, "expired", "expired", charged=False, suspect=False, result_ttl=ttl
    )


def decide(held: Held, policy: Policy, outcome: Outcome, chance: float) -> Transition:
    """Turn what a run produced into what the store must apply; `chance` in [0, 1) draws the jitter."""
    token = held.token
    ttl = round(policy.result_ttl * 1e6)
    match outcome:
        case Succeeded(result=result, children=children):
            return complete(token, result, ttl, children)
        case Failed():
            return _failed(held, policy, outcome, chance, ttl)
        case Snoozed(delay=delay, reason=reason):
            return snooze(token, round(delay * 1e6), reason)
        case Released(reason=reason, delay=delay):
            return park(token, round(delay * 1e6), reason) if delay else release(token, reason)
        case Discarded(reason=reason, error=error):
            return _bury(held, "discarded", reason, error, ttl)
        case Cancelled(reason=reason):
            return cancel(token, reason, ttl)
        case Expired():
            return expire(token, ttl)
        case Lost():
            return _lost(held, policy, outcome, ttl)


def parked_for(age: int) -> float:
    """Seconds until a job that nobody can run yet is looked at again, from its age in microseconds.

    Waiting as long as it has already waited doubles the delay each time, with no counter to keep.
    """
    return min(max(age / 1e6, PARK_FIRST), PARK_MOST)


def _failed(held: Held, policy: Policy, outcome: Failed, chance: float, ttl: int) -> Transition:
    if outcome.permanent:
        return _bury(held, "failed", outcome.reason, outcome.error, ttl)
    if held.attempt >= policy.max_attempts:
        return _bury(held, "failed", "attempts_exhausted", outcome.error, ttl)
    wait = policy.backoff.wait(held.attempt, chance)
    if outcome.retry_after is not None:
        wait = outcome.retry_after * (1 + policy.backoff.jitter * chance * 0.1)
    return retry(held.token, round(wait * 1e6), outcome.error, outcome.reason)


def _lost(held: Held, policy: Policy, lost: Lost, ttl: int) -> Transition:
    if not lost.started or lost.explained:
        # Prefetched, or a neighbour of a job that was killed for its own fault: nothing of this is its doing.
        return release(held.token, lost.detail or "owner lost")
    error = ErrorInfo("WorkerLost", lost.detail)
    guilty = lost.alone or held.suspect
    if guilty and held.crashes + 1 >= policy.crash_budget:
        return _bury(held, "crashed", "crashed", error, ttl, crash=1, loss=1)
    if held.losses + 1 >= policy.loss_budget:
        return _bury(held, "lost", "lost_too_often", error, ttl, crash=int(guilty), loss=1)
    return lose(held.token, lost.detail or "owner lost", suspect=True, crash=int(guilty))


def _bury(held: Held, outcome: str, reason: str, error: ErrorInfo | None, ttl: int, **counts: int) -> Transition:
    return bury(held.token, outcome, reason, marked(held.task, error) if error else None, ttl, **counts)


def _text(error: ErrorInfo) -> str:
    return _encode(error).decode()
