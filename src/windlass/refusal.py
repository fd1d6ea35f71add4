"""Why a store took no job, as the error that its caller gets."""

from __future__ import annotations

from windlass.core.errors import DuplicateJob, IdempotencyConflict, QueueFull, WindlassError
from windlass.core.job import NewJob
from windlass.ports.store import Enqueued


def refused(job: NewJob, answer: Enqueued) -> WindlassError | None:
    """What to raise for a job that the store did not take, or None if it did."""
    if answer.conflict:
        return IdempotencyConflict(str(job.idempotency_key), answer.id)
    if answer.refused:
        return DuplicateJob(job.task, answer.id)
    if answer.full is not None and not answer.inserted:
        full = answer.full
        late = None if full.late is None else full.late / 1e6
        return QueueFull(full.queue, full.depth, full.age / 1e6, full.retry_after / 1e6, late)
    return None
