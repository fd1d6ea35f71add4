"""What lies in an outbox, which is a store in the application's own database: envelopes, jobs of no task whose payload
is the job as it was sent. So keys, limits and delays are the affair of the store that runs the jobs, and none of them
is left behind in the outbox."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from windlass.core.job import NewJob

TASK = "windlass.outbox"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(NewJob).decode


def envelopes(jobs: Sequence[NewJob]) -> list[NewJob]:
    """One for each, under its id: sent again it is the same."""
    return [NewJob(id=job.id, task=TASK, queue=TASK, payload=_encode(job).decode()) for job in jobs]


def opened(envelope: str) -> NewJob | None:
    """The job in the payload of one; None for what is none."""
    try:
        return _decode(envelope)
    except msgspec.DecodeError:
        return None
