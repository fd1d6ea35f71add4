"""What the store says in the end, as lines beside those of the actors: from then on nobody has to ask it again."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec

from windlass.core.job import Job, Meta
from windlass.ports.store import Filter
from windlass.testing.ledger.line import Line, append, lines

PAGE = 500
ALONE = {"reject", "return-existing"}
"""Policies of unique jobs under which nobody follows the one that lives."""

class _Fenced(msgspec.Struct):
    """A result that names the run which returned it."""

    fence: int


_decode = msgspec.json.Decoder(Meta).decode


def export(opened: Any, directory: Path) -> int:
    """Write a line for each job of an opened store, for each attempt of those that failed or started again, and for
    each worker that it remembers; answers how many jobs there are."""
    path, count, after = os.path.join(directory, "store.jsonl"), 0, None
    starts = Counter(line.job for file in directory.glob("*.jsonl") for line in lines(file) if line.what == "start")
    again = {job for job, times in starts.items() if times > 1}
    workers = opened.shell.run(opened.store.workers())
    append(path, [_line("exported", ""), *(_line("worker", "", worker=each.id, pids=(each.pid,)) for each in workers)])
    while True:
        page = opened.shell.run(opened.store.search(Filter(), PAGE, after))
        append(path, [line for job in page.jobs for line in _of(opened, job, again)])
        count += len(page.jobs)
        after = page.next
        if after is None:
            return count


def _of(opened: Any, job: Job, again: Collection[str]) -> Iterator[Line]:
    meta = _decode(job.meta)
    yield _line(
        "job",
        job.id,
        fence=job.fence,
        attempt=job.attempt,
        note=job.reason or "",
        task=job.task,
        state=str(job.state),
        limits={each.key: each.most for each in meta.limits},
        unique=meta.unique.key if meta.unique else "",
        alone=meta.unique is not None and meta.unique.policy in ALONE,
        schedule=meta.schedule,
        tick=meta.tick or 0,
        created=job.created_at,
        ended=job.finished_at or 0 if job.state.terminal else 0,
        result=_fence(job.result),
    )
    if job.attempt > 1 or job.losses or job.crashes or job.id in again:
        for each in opened.shell.run(opened.store.attempts(job.id)):
            said = {"state": each.outcome, "note": each.reason, "worker": each.worker or ""}
            yield _line("attempt", job.id, fence=each.fence, attempt=each.number, **said)


def _fence(result: str | None) -> int:
    try:
        return 0 if result is None else msgspec.json.decode(result, type=_Fenced).fence
    except msgspec.DecodeError:
        return 0


def _line(what: str, job: str, **more: Any) -> Line:
    more["note"] = more.get("note") or ""
    return Line(time.monotonic(), os.getpid(), what, job, **more)
