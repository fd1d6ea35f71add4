"""Why a job is where it is: from the facts that a store read together, to one cause, in one sentence.

The order of the questions is the order in which a job meets what they ask about: its time, its queue, its
workers, what they know, and last whether they have room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from windlass.core.family import STOPPED, parent_of
from windlass.core.job import BACKFILL, SCHEDULE, Attempt, ErrorInfo, Job, KeyLimit, Policy, State, read_meta
from windlass.core.words import brief, count, instant, span

PARKED = ("unknown_task", "unknown_version")
"""Why workers put aside a job that they cannot run."""
AHEAD_MOST = 10_000
"""Where a store stops to count those in front."""


class Worker(Protocol):
    """What a cause needs to know of a worker (`ports.store.WorkerInfo` has it)."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def slots(self) -> int: ...
    @property
    def busy(self) -> int: ...
    @property
    def queues(self) -> tuple[str, ...]: ...
    @property
    def tasks(self) -> tuple[str, ...]: ...
    @property
    def started_at(self) -> int: ...
    @property
    def lease_until(self) -> int: ...
    @property
    def taken(self) -> bool: ...


class Facts(Protocol):
    """What a store reads about one job in one transaction (`ports.store.Why` has it)."""

    @property
    def job(self) -> Job: ...
    @property
    def now(self) -> int: ...
    @property
    def paused(self) -> bool: ...
    @property
    def ahead(self) -> int: ...
    @property
    def workers(self) -> Sequence[Worker]: ...
    @property
    def attempts(self) -> Sequence[Attempt]: ...
    @property
    def where(self) -> str: ...
    @property
    def limit(self) -> KeyLimit | None: ...
    @property
    def running(self) -> int: ...
    @property
    def owner(self) -> str | None: ...
    @property
    def awaited(self) -> str | None: ...
    @property
    def awaited_state(self) -> State | None: ...
    @property
    def queue_limit(self) -> int | None: ...
    @property
    def queue_running(self) -> int: ...


class Cause(msgspec.Struct, frozen=True):
    """The answer. `code` is a word that scripts can rely on; `facts` are the sentence's parts, as values."""

    code: str
    sentence: str
    facts: dict[str, Any] = {}


def explain(facts: Facts) -> Cause:
    """Name the one cause why the job is not running, or what became of it."""
    return _STATES[facts.job.state](facts)


# --- what has ended, and what runs ----------------------------------------------------------------------


def _completed(facts: Facts) -> Cause:
    job = facts.job
    took = f" after running for {span(_ran(job))}" if job.started_at is not None else ""
    return Cause(
        "completed",
        f"completed at {instant(job.finished_at)} in attempt {job.attempt}{took}",
        {"finished_at": instant(job.finished_at), "attempt": job.attempt, "worker": job.worker},
    )


def _cancelled(facts: Facts) -> Cause:
    job = facts.job
    when = "while it ran" if job.started_at is not None else _between(facts) or "before it started"
    if job.reason == "shed":
        return Cause(
            "shed",
            f"shed at {instant(job.finished_at)}: queue {job.queue!r} was full when it came",
            {"finished_at": instant(job.finished_at), "queue": job.queue},
        )
    if job.reason == STOPPED:
        parent = parent_of(job.meta)
        return Cause(
            "parent_cancelled",
            f"cancelled at {instant(job.finished_at)}, as it came: its parent {parent} was being cancelled with its "
            "children",
            {"finished_at": instant(job.finished_at), "parent": parent},
        )
    said = f": {job.reason}" if job.reason not in (None, "cancelled") else ""
    return Cause(
        "cancelled",
        f"cancelled at {instant(job.finished_at)}, {when}{said}",
        {"finished_at": instant(job.finished_at), "reason": job.reason},
    )


def _expired(facts: Facts) -> Cause:
    job = facts.job
    after = _between(facts)
    missed = f"it ended {after}, before the next" if after else "no worker had come to it by then"
    return Cause(
        "expired",
        f"expired: it was to start before {instant(job.expires_at)}, and {missed}",
        {"expires_at": instant(job.expires_at), "finished_at": instant(job.finished_at)},
    )


def _between(facts: Facts) -> str:
    """After which of its attempts a job ended that did not run at its end; empty if it never had one."""
    job = facts.job
    if job.attempt:
        return f"after attempt {job.attempt}"
    return "after a run that was not counted" if facts.attempts else ""


def _dead(facts: Facts) -> Cause:
    job = facts.job
    error, policy = _error(job.error), _policy(job)
    last = facts.attempts[-1].outcome if facts.attempts else "failed"
    said = f": {_told(error)}" if error else ""
    why = _END.get(job.reason or "", _FOR_GOOD)
    if last == "discarded":  # its error only says the same again
        why, said = "its handler gave it up in attempt {job.attempt}: {reason}", ""
    elif job.reason == "attempts_exhausted" and job.attempt == 1:
        why = "its only attempt failed"
    told = why.format(
        job=job,
        attempts=count(job.attempt, "attempt"),
        crashes=count(job.crashes, "time"),
        losses=count(job.losses, "time"),
        reason=brief(job.reason or "no reason given"),
    )
    return Cause(
        "dead",
        f"dead since {instant(job.finished_at)}: {told}{said}",
        {
            "reason": job.reason,
            "outcome": last,
            "finished_at": instant(job.finished_at),
            "attempt": job.attempt,
            "max_attempts": policy.max_attempts,
            "crashes": job.crashes,
            "losses": job.losses,
            "error": _told(error) if error else None,
        },
    )


_FOR_GOOD = "attempt {job.attempt} failed in a way that trying again cannot mend ({reason})"
_END = {
    "attempts_exhausted": "all {attempts} that it was allowed were used, the last failed",
    "crashed": "it brought down its process {crashes}, running alone",
    "lost_too_often": "its worker was lost {losses} while it ran",
    "payload": "its payload does not fit the task",
    "result_unserialisable": "its handler finished, but what it returned cannot be stored",
    "result_too_large": "its handler finished, but what it returned is too large to be stored",
    "failed": "attempt {job.attempt} failed in a way that trying again cannot mend",
}


def _running(facts: Facts) -> Cause:
    job = facts.job
    since = job.started_at or facts.now
    known = {
        "worker": job.worker,
        "started_at": instant(job.started_at),
        "running_for": round((facts.now - since) / 1e6, 6),
        "attempt": job.attempt,
    }
    began = f"{instant(job.started_at)} ({span(facts.now - since)})"
    place = f"on worker {job.worker} since {began}, attempt {job.attempt}"
    holder = next((each for each in facts.workers if each.id == job.worker), None)
    if job.cancelling:
        return Cause("cancelling", f"cancelling: it was asked to stop and still runs {place}", known)
    if holder is not None and not _alive(holder, facts.now):
        silent = span(facts.now - holder.lease_until)
        return Cause("worker_silent", f"running {place}, whose lease lapsed {silent} ago", known)
    return Cause("running", f"running {place}", known)


# --- what waits for its time ----------------------------------------------------------------------------


def _scheduled(facts: Facts) -> Cause:
    job = facts.job
    if job.reason in PARKED and not _snoozed(facts):
        return _parked(facts)
    if job.due_at <= facts.now:
        return _queued(facts)
    if job.reason:
        said = "" if job.reason == "snoozed" else f": {brief(job.reason)}"
        return _until(facts, "snoozed", f"put off until {_due(facts)}{said}", {"reason": job.reason})
    return _until(facts, "scheduled", f"scheduled until {_due(facts)}", {})


def _snoozed(facts: Facts) -> bool:
    """Whether the reason is its handler's own words: those may be the words that stores use when they park a job."""
    last = facts.attempts[-1] if facts.attempts else None
    return last is not None and last.outcome == "snoozed" and last.reason == facts.job.reason


def _retrying(facts: Facts) -> Cause:
    job = facts.job
    if job.due_at <= facts.now:
        return _queued(facts)
    error = _error(job.error)
    most = _policy(job).max_attempts
    said = f" with {_told(error)}" if error else ""
    return _until(
        facts,
        "retrying",
        f"retrying until {_due(facts)}, after attempt {job.attempt} of {most} failed{said}",
        {
            "attempt": job.attempt,
            "max_attempts": most,
            "reason": job.reason,
            "error": _told(error) if error else None,
        },
    )


def _until(facts: Facts, code: str, sentence: str, known: dict[str, Any]) -> Cause:
    """It waits for its time; what would stop it then is said now, while there is time to mend it."""
    wait = round((facts.job.due_at - facts.now) / 1e6, 6)
    known = {"due_at": instant(facts.job.due_at), "due_in": wait, **known}
    then = _obstacle(facts)
    if then is not None:
        known["then"] = then.code
        sentence += f"; as things stand it will wait even then: {then.sentence}"
    return Cause(code, sentence, known)


def _parked(facts: Facts) -> Cause:
    """Workers looked at it and put it aside: none of them could run it."""
    job = facts.job
    found = _obstacle(facts)
    known = {"task": job.task, "version": job.version, "queue": job.queue, "due_at": instant(job.due_at)}
    again = "at once" if job.due_at <= facts.now else f"at {_due(facts)}"
    if found is not None:
        return Cause(found.code, f"{found.sentence}; it is looked at again {again}", {**found.facts, **known})
    what = "" if job.reason == "unknown_task" else f"version {job.version} of "
    saw = f"the workers that saw it did not know {what}task {job.task!r}"
    return Cause(str(job.reason), f"{saw}; one that does is looked for {again}", known)


def _blocked(facts: Facts) -> Cause:
    """What it waits for; and that nobody is there who could bring that about, as nobody is."""
    found = _behind(facts)
    if any(_claims(each, facts.now, suspects=True) for each in facts.workers):
        return found
    nobody = _nobody(facts)
    return Cause(found.code, f"{found.sentence}; {nobody.sentence}", {**nobody.facts, **found.facts})


def _behind(facts: Facts) -> Cause:
    limit = facts.limit
    if limit is not None and limit.key.startswith((SCHEDULE, BACKFILL)):
        return _overlapping(facts, limit.key)
    if limit is not None:
        name, keyed, key = limit.key.partition(",")
        whose = f" for {key!r}" if keyed else ""
        known = {"limit": name, "key": key or None, "running": facts.running, "most": limit.most}
        turn = ""
        if facts.awaited and not facts.running:
            turn = f", and it is the turn of job {facts.awaited}{_which_is(facts)}"
            known |= _awaited(facts)
        return Cause(
            "limit",
            f"blocked by the limit {name!r}{whose}: {_those_running(facts.running, limit.most)}{turn}",
            known,
        )
    if facts.owner is not None:
        return Cause(
            "unique",
            f"blocked: job {facts.owner}{_which_is(facts)} has the same unique key, and must end first",
            {"owner": facts.owner, **_awaited(facts)},
        )
    reason = facts.job.reason or "no reason was given"
    return Cause("blocked", f"blocked: {brief(reason)}", {"reason": facts.job.reason})


def _overlapping(facts: Facts, key: str) -> Cause:
    """It is a tick behind another one."""
    name = key.removeprefix(BACKFILL).removeprefix(SCHEDULE)
    which = "backfilled jobs" if key.startswith(BACKFILL) else "jobs"
    known = {"schedule": name, "running": facts.running, **_awaited(facts)}
    if facts.awaited is None:
        return Cause("overlap", f"blocked: {which} of schedule {name!r} must not overlap; none runs, it is next", known)
    other = f"job {facts.awaited}{_which_is(facts)}"
    return Cause("overlap", f"blocked behind {other}: {which} of schedule {name!r} must not overlap", known)


def _which_is(facts: Facts) -> str:
    return f" ({facts.awaited_state})" if facts.awaited_state else ""


def _awaited(facts: Facts) -> dict[str, Any]:
    return {"awaited": facts.awaited, "awaited_state": facts.awaited_state}


# --- what is due ----------------------------------------------------------------------------------------


def _queued(facts: Facts) -> Cause:
    return _obstacle(facts) or _full(facts) or (_suspect(facts) if facts.job.suspect else _in_line(facts))


def _full(facts: Facts) -> Cause | None:
    queue, most = facts.job.queue, facts.queue_limit
    if most is None or facts.queue_running < most:
        return None
    return Cause(
        "queue_limit",
        f"queue {queue!r} is at its limit: {_those_running(facts.queue_running, most)}, with {_those(facts.ahead)} "
        "before it",
        {"queue": queue, "running": facts.queue_running, "most": most, "place": facts.ahead + 1},
    )


def _obstacle(facts: Facts) -> Cause | None:
    """What keeps a due job from being claimed until somebody acts; None if nothing does."""
    job = facts.job
    if facts.paused:
        return Cause("queue_paused", f"queue {job.queue!r} is paused", {"queue": job.queue})
    alive = [each for each in facts.workers if _claims(each, facts.now, suspects=job.suspect)]
    if not alive:
        return _nobody(facts)
    serving = [each for each in alive if job.queue in _names(each.queues)]
    if not serving:
        served = sorted({queue for each in alive for queue in _names(each.queues)})
        theirs = f"{count(len(alive), 'worker')} alive, for {_listed(served)}"
        return Cause(
            "queue_unserved",
            f"no worker serves queue {job.queue!r} ({theirs})",
            {"queue": job.queue, "workers": len(alive), "served": served},
        )
    return _ignorance(job, serving) or _departure(serving) or _hold_up(facts, serving)


def _nobody(facts: Facts) -> Cause:
    # A supervisor beats too; that it lives, and has no worker at the moment, says nothing of when the last one did.
    lapsed = [each for each in facts.workers if not each.taken and each.lease_until < facts.now]
    last = max((each.lease_until for each in lapsed), default=None)
    said, known = "", {"queue": facts.job.queue, "workers": 0, "store": facts.where}
    if last is not None:
        said = f"; the lease of the last one lapsed at {instant(last)} ({span(facts.now - last)} ago): it is stopped, "
        said += "stuck or gone"
        known["lapsed_at"] = instant(last)
    # A worker that was started elsewhere may well be alive, on another file of the same name.
    on = f" on {facts.where}" if facts.where else ""
    return Cause("no_workers", f"no worker is alive{on}{said}", known)


def _ignorance(job: Job, serving: Sequence[Worker]) -> Cause | None:
    known = [version for each in serving for version in _versions(each, job.task)]
    facts: dict[str, Any] = {"task": job.task, "queue": job.queue, "workers": len(serving)}
    if not known:
        return Cause(
            "unknown_task",
            f"no worker knows task {job.task!r}; {_those_of(serving)} queue {job.queue!r} without it",
            facts,
        )
    if max(known) < job.version:
        return Cause(
            "unknown_version",
            f"no worker knows version {job.version} of task {job.task!r}: the newest known is {max(known)}",
            {**facts, "version": job.version, "known": max(known)},
        )
    return None


def _departure(serving: Sequence[Worker]) -> Cause | None:
    if any(each.state != "draining" for each in serving):
        return None
    return Cause(
        "workers_stopping",
        f"the {count(len(serving), 'worker')} that could run it are stopping and claim no more",
        {"workers": len(serving)},
    )


def _hold_up(facts: Facts, serving: Sequence[Worker]) -> Cause | None:
    """Workers that beat, for their supervisors do that, and cannot claim."""
    job = facts.job
    able = [each for each in serving if _knows(each, job) and each.state != "draining"]
    if job.suspect or not able or any(each.state not in ("starting", "stalled") for each in able):
        return None
    first = min(able, key=lambda each: (each.state, each.started_at))
    others = f", nor can the {count(len(able) - 1, 'other')}" if len(able) > 1 else ""
    known = {"queue": job.queue, "worker": first.id, "workers": len(able)}
    if first.state == "stalled":
        stuck = "its event loop does not turn, so something in it blocks"
        return Cause(
            "worker_stalled", f"worker {first.id} serves queue {job.queue!r} and cannot claim{others}: {stuck}", known
        )
    since = facts.now - first.started_at
    said = f"worker {first.id} serves queue {job.queue!r} and cannot claim yet{others}"
    hook = f"it has been starting for {span(since)}, and its start hook has not returned"
    return Cause("worker_starting", f"{said}: {hook}", {**known, "starting_for": round(since / 1e6, 6)})


def _knows(worker: Worker, job: Job) -> bool:
    return max(_versions(worker, job.task), default=0) >= job.version


def _suspect(facts: Facts) -> Cause:
    job, policy = facts.job, _policy(facts.job)
    last = next((each for each in reversed(facts.attempts) if each.outcome in ("lost", "crashed")), None)
    how = f" ({brief(last.reason)})" if last is not None and last.reason else ""
    at_work = any(each.state == "quarantine" and _alive(each, facts.now) for each in facts.workers)
    turn = "is at work" if at_work else "has yet to be started"
    ahead = f", after {_those(facts.ahead)}" if facts.ahead else ""
    alone = f"it waits to run alone{ahead}; a quarantine process {turn}"
    return Cause(
        "suspect",
        f"suspect: a worker died while it ran{how}, so {alone}",
        {
            "losses": job.losses,
            "loss_budget": policy.loss_budget,
            "crashes": job.crashes,
            "crash_budget": policy.crash_budget,
            "ahead": facts.ahead,
            "quarantine": at_work,
        },
    )


def _in_line(facts: Facts) -> Cause:
    job = facts.job
    serving = [each for each in facts.workers if _serves(each, job, facts.now)]
    slots = sum(each.slots for each in serving)
    free = sum(max(0, each.slots - each.busy) for each in serving)
    known = {
        "queue": job.queue,
        "place": facts.ahead + 1,
        "slots": slots,
        "free": free,
        "workers": len(serving),
    }
    line = f"{_those(facts.ahead)} of queue {job.queue!r} before it"
    if free == 0:
        busy = f"all {count(slots, 'slot')} of {count(len(serving), 'worker')} are busy"
        if slots == 1:
            busy = "the only slot of the only worker is busy"
        return Cause("slots_full", f"{busy}, with {line}", known)
    if facts.ahead:
        return Cause("in_line", f"in line, with {line}", known)
    return Cause("next", f"next of queue {job.queue!r}: a worker with a free slot is about to take it", known)


# --- particulars ----------------------------------------------------------------------------------------


def _alive(worker: Worker, now: int) -> bool:
    return not worker.taken and worker.lease_until >= now


def _claims(worker: Worker, now: int, *, suspects: bool) -> bool:
    """Whether it takes jobs at all; a supervisor beats too, without slots, and quarantine is for suspects."""
    return _alive(worker, now) and worker.slots > 0 and (suspects or worker.state != "quarantine")


def _serves(worker: Worker, job: Job, now: int) -> bool:
    return (
        _alive(worker, now)
        and worker.state == "running"
        and job.queue in _names(worker.queues)
        and _knows(worker, job)
    )


def _names(queues: Sequence[str]) -> list[str]:
    return [queue.partition(":")[0] for queue in queues]


def _versions(worker: Worker, task: str) -> list[int]:
    """Under which versions a worker lists a task: "name" is 1, "name@3" is 3."""
    found = []
    for entry in worker.tasks:
        name, mark, version = entry.rpartition("@")
        if entry == task:
            found.append(1)
        elif mark and name == task and version.isdigit():
            found.append(int(version))
    return found


def _those(ahead: int) -> str:
    if ahead >= AHEAD_MOST:
        return f"{AHEAD_MOST:,} or more jobs"
    return count(ahead, "job") if ahead else "no jobs"


def _those_running(running: int, most: int) -> str:
    return f"{running} of {most} run" + ("s" if running == 1 else "")


def _those_of(serving: Sequence[Worker]) -> str:
    return f"{count(len(serving), 'worker')} serve{'s' if len(serving) == 1 else ''}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"


def _due(facts: Facts) -> str:
    return f"{instant(facts.job.due_at)} (in {span(facts.job.due_at - facts.now)})"


def _ran(job: Job) -> int:
    return (job.finished_at or 0) - (job.started_at or 0)


def _told(error: ErrorInfo) -> str:
    return brief(f"{error.kind}: {error.message}" if error.message else error.kind)


def _error(text: str | None) -> ErrorInfo | None:
    try:
        return msgspec.json.decode(text, type=ErrorInfo) if text else None
    except msgspec.DecodeError:  # written by a version that knew more; the cause is told without it
        return None


def _policy(job: Job) -> Policy:
    try:
        return read_meta(job.meta).policy
    except msgspec.DecodeError:
        return Policy()


_STATES: dict[State, Callable[[Facts], Cause]] = {
    State.COMPLETED: _completed,
    State.CANCELLED: _cancelled,
    State.EXPIRED: _expired,
    State.DEAD: _dead,
    State.RUNNING: _running,
    State.SCHEDULED: _scheduled,
    State.RETRYING: _retrying,
    State.BLOCKED: _blocked,
    State.QUEUED: _queued,
}
