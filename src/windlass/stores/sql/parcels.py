"""Parcels: jobs read with all that belongs to them, and what is counted of those that go to other stores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from windlass.core.job import Attempt, Job, LogLine, State
from windlass.ports.parcel import Parcel, Tally
from windlass.ports.plan import Statement, Steps
from windlass.stores.sql.text import as_json

_job = msgspec.json.Decoder(Job)
_attempt = msgspec.json.Decoder(Attempt)
_line = msgspec.json.Decoder(LogLine)

TO, FROM = "to:", "from:"
"""How the names of tallies begin, in `marks`."""


class Parcels:
    """What departures and arrivals ask."""

    def _parcels(self, ids: Sequence[str]) -> Steps[dict[str, Parcel]]:
        rows = yield Statement("parcels_jobs", (as_json(list(ids)),))
        seqs = as_json([row[0] for row in rows])
        attempts = yield from self._of("attempts", seqs)
        logs = yield from self._of("logs", seqs)
        once = yield from self._of("once", seqs)
        merged = yield from self._of("merged", seqs)
        keys = yield from self._of("keys", seqs)
        unique = yield from self._of("unique", seqs)
        found = {}
        for seq, text, head_start, rank, due, result_until, *_ in rows:
            ((key, digest, lost),) = keys[seq] or [(None, "", 0)]
            ((until, follows),) = unique[seq] or [(None, None)]
            job = _open(_job.decode(text))
            found[job.id] = Parcel(
                job=job,
                head_start=head_start,
                rank=rank,
                due=due,
                attempts=tuple(_attempt.decode(each[0]) for each in attempts[seq]),
                logs=tuple(_line.decode(each[0]) for each in logs[seq]),
                once=dict(sorted(once[seq])),
                result_until=result_until,
                key=key,
                digest=digest,
                key_lost=bool(lost),
                until=until,
                follows=follows,
                merged=tuple(each[0] for each in merged[seq]),
            )
        return found

    def _of(self, what: str, seqs: str) -> Steps[dict[int, list[tuple[Any, ...]]]]:
        found: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
        for seq, *rest in (yield Statement(f"parcels_{what}", (seqs,))):
            found[seq].append(tuple(rest))
        return found

    def _tally(self, name: str) -> Steps[Tally]:
        rows = yield Statement("tally_get", (name,))
        return Tally(rows[0][0], int(rows[0][1], 16)) if rows else Tally()

    def _add_up(self, name: str, parcels: Sequence[Parcel], sign: int = 1) -> Steps[None]:
        if parcels:
            tally = (yield from self._tally(name)).with_(parcels, sign)
            yield Statement("tally_put", (name, tally.jobs, f"{tally.checksum:x}"))


def _open(job: Job) -> Job:
    """A limit is found again by the claim; whoever waits for one stands in line elsewhere."""
    if job.state is State.BLOCKED and job.reason == "limit":
        return msgspec.structs.replace(job, state=State.QUEUED, reason=None)
    return job
