"""The examination behind `windlass store doctor`: the store's own readings, its records, and who serves it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from windlass.core.errors import SchemaError, StoreError
from windlass.core.health import Reading, Verdict
from windlass.core.words import count, span

if TYPE_CHECKING:
    from windlass import Windlass
    from windlass.ports.store import Opened, QueueStats, WorkerInfo

FOUND_MOST = 10
EMBEDDED = "e-"
"""How the ids of those begin that beat for themselves."""
WITHOUT_SUPERVISOR = (
    "works inside another process: it cannot end a handler that ignores its timeout, leaves tasks of process slots to "
    "others, and nobody sees it die; its jobs wait for the next supervisor then"
)


def examine(app: Windlass) -> list[Reading]:
    """Look at everything that can be looked at; what fails to answer is a reading too.

    The store is opened, never migrated: a patient is not operated on by being looked at.
    """
    opened = app.engine.bare()
    readings = [Reading("url", opened.url), *_own(opened)]
    if any(each.name in ("file", "readable", "schema", "rights") and each.verdict == "bad" for each in readings):
        return readings
    try:
        return [*readings, *_records(opened), *_service(opened)]
    except StoreError as error:
        return [*readings, Reading("readable", False, "bad", str(error))]


def _own(opened: Opened) -> Iterator[Reading]:
    diagnose = getattr(opened, "diagnose", None)
    if diagnose is not None:
        yield from diagnose()
        return
    version = opened.shell.run(opened.store.version())
    yield Reading("schema", version)


def _records(opened: Opened) -> Iterator[Reading]:
    found = opened.shell.run(opened.store.audit())
    if not found:
        yield Reading("integrity", "ok")
    for problem in found[:FOUND_MOST]:
        yield Reading("integrity", problem, "bad")
    if len(found) > FOUND_MOST:
        yield Reading("integrity", f"and {len(found) - FOUND_MOST} more", "bad")


def _service(opened: Opened) -> Iterator[Reading]:
    stats = opened.shell.run(opened.store.stats())
    workers = opened.shell.run(opened.store.workers())
    alive = [each for each in workers if not each.taken and each.lease_until >= stats.now]
    silent = [each for each in workers if each not in alive]
    yield Reading("workers", len(alive))
    for each in silent:
        since = span(stats.now - each.lease_until)
        yield Reading("worker_silent", each.id, "warning", f"for {since}; another supervisor will take its jobs over")
    for each in alive:
        if each.supervisor.startswith(EMBEDDED):
            yield Reading("worker_embedded", each.id, "warning", WITHOUT_SUPERVISOR)
    yield from _locks(opened.run_directory(), {each.id for each in workers})
    for queue in stats.queues:
        yield from _queue(queue, alive)
    yield from _schedules(opened, alive)
    with suppress(SchemaError):  # of an older version, which cannot have set anything aside
        departing = opened.shell.run(opened.store.standing(None, 0)).departing
        if departing:
            yield Reading("departing", departing, "warning", "are set aside on the way to another store: copy again")


def _schedules(opened: Opened, alive: Sequence[WorkerInfo]) -> Iterator[Reading]:
    # A scheduler looks at one that has ended once more, and sets its `next_at` to None.
    ticking = sum(each.next_at is not None and not each.paused for each in opened.shell.run(opened.store.schedules()))
    if ticking and not alive:
        yield Reading("schedules", ticking, "bad", "are open and nobody fires them: no supervisor is alive")
    elif ticking:
        yield Reading("schedules", ticking)


def _locks(directory: str | None, known: set[str]) -> Iterator[Reading]:
    """Lock files of workers: the kernel says which are alive."""
    from windlass.runtime import lockfile

    if directory is None or not os.path.isdir(directory):
        return
    held, free = 0, []
    for name in os.listdir(directory):
        if not (name.startswith(lockfile.PREFIX) and name.endswith(lockfile.SUFFIX)):
            continue
        worker = name[len(lockfile.PREFIX) : -len(lockfile.SUFFIX)]
        lock = lockfile.obtain(directory, worker)
        if lock is None:
            held += 1
            continue
        lock.close()  # only looked at: whoever takes its jobs over removes it
        if worker in known:
            free.append(worker)
    yield Reading("locks", held, "ok", f"{count(held, 'worker process')} of this machine")
    for worker in free:
        yield Reading(
            "worker_dead", worker, "warning", "its processes are gone; the next supervisor takes its jobs over"
        )


def _queue(queue: QueueStats, alive: Sequence[WorkerInfo]) -> Iterator[Reading]:
    waiting = queue.queued + queue.waiting
    if not waiting:
        return
    waits = "waits" if waiting == 1 else "wait"
    served = any(queue.queue == name.partition(":")[0] for each in alive for name in each.queues)
    if queue.paused:
        yield Reading("queue", queue.queue, "warning", f"is paused, and {count(waiting, 'job')} {waits}")
    elif not served:
        verdict: Verdict = "bad" if queue.queued else "warning"
        yield Reading(
            "queue", queue.queue, verdict, f"has {count(waiting, 'job')} waiting and no worker that serves it"
        )
