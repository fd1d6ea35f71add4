"""What scripts are given of jobs and of the ends of their runs."""

from __future__ import annotations

from typing import Any

from windlass.core.family import parent_of
from windlass.core.flow import limits_of
from windlass.core.job import NewJob, Transition
from windlass.core.unique import unique_of


def given(job: NewJob) -> tuple[Any, ...]:
    """As store.lua takes it."""
    limits = limits_of(job.meta)
    unique = unique_of(job.meta)
    return (
        *(job.id, job.task, job.version, job.tenant, job.queue, job.priority, job.head_start, job.meta, job.payload),
        *(job.idempotency_key, job.digest, job.after, job.at, job.expires_after, job.expires_at),
        [(limit.key, limit.most) for limit in limits] or None,
        (unique.key, unique.policy, unique.max_wait, unique.window) if unique else None,
        parent_of(job.meta) or None,
    )


def move(t: Transition) -> tuple[Any, ...]:
    """As settle_one.lua takes it."""
    return (
        *(t.id, t.fence, t.state.value, t.outcome, t.reason, t.after, t.result, t.error, t.charged, t.crash, t.loss),
        *(t.suspect, t.keep_rank, t.cancel_wins, t.result_ttl, [given(child) for child in t.children]),
    )
