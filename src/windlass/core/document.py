"""Records as documents: what the command line prints with --json and what the web API answers, in the same words.

Instants are ISO 8601 in UTC, spans are seconds. A key that is there once is there always, so that a script need not
ask; what does not apply is null.
"""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.core.job import Attempt, ErrorInfo, Job, LogLine, Meta, Progress, read_meta
from windlass.core.latency import Spread, TaskLatency
from windlass.core.words import instant

Document = dict[str, Any]


def summary(job: Job) -> Document:
    """A job in a list."""
    return {
        "id": job.id,
        "task": job.task,
        "queue": job.queue,
        "state": job.state.value,
        "reason": job.reason,
        "cancelling": job.cancelling,
        "priority": job.priority,
        "attempt": job.attempt,
        "created_at": instant(job.created_at),
        "due_at": instant(job.due_at),
        "started_at": instant(job.started_at),
        "finished_at": instant(job.finished_at),
        "progress": progress(job.progress),
        "error": error(job.error, trace=False),
    }


def full(job: Job) -> Document:
    """Everything about a job but its history."""
    meta = _meta(job.meta)
    return {
        **summary(job),
        "version": job.version,
        "tenant": job.tenant,
        "expires_at": instant(job.expires_at),
        "max_attempts": meta.policy.max_attempts,
        "crashes": job.crashes,
        "losses": job.losses,
        "suspect": job.suspect,
        "fence": job.fence,
        "worker": job.worker,
        "tags": list(meta.tags),
        "unique": meta.unique.key if meta.unique else None,
        "limits": [{"key": limit.key, "most": limit.most} for limit in meta.limits],
        "headers": meta.headers,
        "correlation_id": meta.correlation_id or job.id,
        "parent_id": meta.parent_id or None,
        "schedule": meta.schedule or None,
        "tick": instant(meta.tick),
        "payload": raw(job.payload),
        "result": raw(job.result),
        "result_expired": job.result_expired,
        "error": error(job.error),
    }


def attempt(of: Attempt) -> Document:
    """One ended run."""
    return {
        "number": of.number,
        "fence": of.fence,
        "worker": of.worker,
        "started_at": instant(of.started_at),
        "ended_at": instant(of.ended_at),
        "outcome": of.outcome,
        "reason": of.reason,
        "error": error(of.error),
    }


def line(of: LogLine) -> Document:
    """One line that a handler logged."""
    return {"at": instant(of.at), "level": of.level, "message": of.message}


def progress(text: str | None) -> Document | None:
    """How far a job says it is."""
    try:
        found = msgspec.json.decode(text, type=Progress) if text else None
    except msgspec.DecodeError:  # one row that cannot be read must not hide the others (I23)
        return None
    if found is None:
        return None
    return {"done": found.done, "total": found.total, "note": found.note, "at": instant(found.at)}


def error(text: str | None, *, trace: bool = True) -> Document | None:
    """An exception as text."""
    try:
        found = msgspec.json.decode(text, type=ErrorInfo) if text else None
    except msgspec.DecodeError:
        return {"kind": "unknown", "message": text}
    if found is None:
        return None
    more = {"place": found.place or None, "fingerprint": found.fingerprint or None, "trace": found.trace}
    return {"kind": found.kind, "message": found.message, **(more if trace else {})}


def latency(of: TaskLatency) -> Document:
    """How a task fares; spans in seconds."""
    return {
        "task": of.task,
        "jobs": of.jobs,
        "completed": of.completed,
        "dead": of.dead,
        "dead_ratio": of.dead_ratio,
        "total": spread(of.total),
        "waiting": spread(of.waiting),
    }


def spread(of: Spread | None) -> Document | None:
    """Percentiles in seconds."""
    return None if of is None else {name: getattr(of, name) / 1e6 for name in ("p50", "p95", "p99")}


def raw(text: str | None) -> msgspec.Raw | None:
    """JSON text that is passed on as it is; what is no JSON becomes a string of it."""
    if text is None:
        return None
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return msgspec.Raw(msgspec.json.encode(text))
    return msgspec.Raw(text.encode())


def _meta(text: str) -> Meta:
    try:
        return read_meta(text)
    except msgspec.DecodeError:
        return Meta()
