"""What scripts are given of jobs and of the ends of their runs."""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.core.errors import CapabilityMissing
from windlass.core.family import parent_of
from windlass.core.flow import limits_of
from windlass.core.job import ErrorInfo, Meta, NewJob, State, Transition, read_meta
from windlass.core.unique import unique_of

NUMBER_MOST = 2**53
"""Lua counts in doubles: exactly, below this. As an instant it is the year 2255."""

_encode = msgspec.msgpack.Encoder().encode
_error = msgspec.json.Decoder(ErrorInfo).decode


def body(payload: str, meta: str) -> msgspec.Raw:
    """What scripts pass on unread: two strings, packed. As one string of any bytes, as Lua knows no other kind."""
    packed = _encode(payload) + _encode(meta)
    return msgspec.Raw(b"\xdb" + len(packed).to_bytes(4, "big") + packed)


def given(job: NewJob) -> tuple[Any, ...]:
    """As store.lua takes it."""
    meta, unique = job.meta, unique_of(job.meta)
    _check(job)
    return (
        *(job.id, job.task, job.version, job.tenant, job.queue, job.priority, job.head_start, body(job.payload, meta)),
        *(job.idempotency_key, job.digest, job.after, job.at, job.expires_after, job.expires_at),
        limits(meta),
        (unique.key, unique.policy, unique.max_wait, unique.window) if unique else None,
        parent_of(meta) or None,
        *riders(meta),
    )


def limits(meta: str) -> list[tuple[str, int]] | None:
    """What a job is limited by; None for nothing."""
    return [(limit.key, limit.most) for limit in limits_of(meta)] or None


def riders(meta: str) -> tuple[str | None, tuple[str, ...] | None]:
    """By what else it will be searched: its schedule and its tags."""
    if '"tags"' not in meta and '"schedule"' not in meta:
        return None, None
    try:
        found = read_meta(meta)
    except msgspec.DecodeError:
        found = Meta()
    return found.schedule or None, found.tags or None


def _check(job: NewJob) -> None:
    for name in ("version", "head_start", "after", "at", "expires_after", "expires_at"):
        number = getattr(job, name)
        if number is not None and not -NUMBER_MOST < number < NUMBER_MOST:
            raise CapabilityMissing(
                f"wide_numbers: {name} of job {job.id} is {number}; on Redis it must be less than 2**53 "
                "(an instant before the year 2255)"
            )


def move(t: Transition) -> tuple[Any, ...]:
    """As settle_one.lua takes it."""
    return (
        *(t.id, t.fence, t.state.value, t.outcome, t.reason, t.after, t.result, t.error, t.charged, t.crash, t.loss),
        *(t.suspect, t.keep_rank, t.cancel_wins, t.result_ttl, [given(child) for child in t.children]),
        fingerprint(t.error) if t.state is State.DEAD else None,
    )


def fingerprint(error: str | None) -> str | None:
    """Of what a job died."""
    if error is None:
        return None
    try:
        return _error(error).fingerprint or None
    except msgspec.DecodeError:
        return None
