"""Jobs for people: a line in a list, a page of facts, a history."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from windlass.core import document
from windlass.core.errors import InvalidJob
from windlass.core.job import BACKFILL, SCHEDULE
from windlass.core.words import brief, instant, span

if TYPE_CHECKING:
    from windlass import Filter, Windlass
    from windlass.cli.output import Output
    from windlass.core.job import Attempt, Job
    from windlass.ports.store import Page

PAYLOAD_MOST = 4_000


def searched(app: Windlass, wanted: Filter, limit: int, after: str | None) -> Page:
    """A page of a search; what is wrong with `after` is named as it was written."""
    try:
        return app.client.search(wanted, limit=limit, after=after)
    except InvalidJob as error:
        raise InvalidJob(f"--{error.field}", error.problem) from error


def page(out: Output, found: Page, empty: str) -> None:
    """One page of a search."""
    if out.as_json:
        out.document({"jobs": [document.summary(job) for job in found.jobs], "next": found.next})
        return
    now = _now()
    rows = [
        (job.id, job.task, job.queue, _state(job), job.attempt, span(now - job.created_at), _note(job, now))
        for job in found.jobs
    ]
    out.table(("id", "task", "queue", "state", "attempt", "age", "note"), rows, empty)
    if found.next:
        out.say(f"there are more: --after {found.next}")


def head(job: Job, attempts: Sequence[Attempt]) -> list[tuple[str, object]]:
    """Everything about one job, as names and values; the trace of its error where no attempt, told below, has it."""
    doc = document.full(job)
    shown = [
        ("id", job.id),
        ("task", job.task if job.version == 1 else f"{job.task} (version {job.version})"),
        ("state", _state(job) + (f" ({job.reason})" if job.reason and job.reason != job.state else "")),
        ("queue", job.queue),
        ("priority", job.priority),
        ("attempt", f"{job.attempt} of {doc['max_attempts']}"),
        ("crashes", job.crashes or None),
        ("losses", job.losses or None),
        ("created", doc["created_at"]),
        ("due", doc["due_at"]),
        ("expires", doc["expires_at"]),
        ("started", doc["started_at"]),
        ("finished", doc["finished_at"]),
        ("worker", job.worker),
        ("limits", limits(doc["limits"])),
        ("unique", doc["unique"]),
        ("tags", ", ".join(doc["tags"]) or None),
        ("headers", ", ".join(f"{name}={value}" for name, value in doc["headers"].items()) or None),
        ("correlation", doc["correlation_id"] if doc["correlation_id"] != job.id else None),
        ("parent", doc["parent_id"]),
        ("schedule", doc["schedule"]),
        ("tick", doc["tick"]),
        ("progress", _progress(doc["progress"])),
        ("payload", _long(job.payload)),
        ("result", "kept for its time to live only" if job.result_expired else _long(job.result)),
        ("error", _error(doc["error"], trace=job.error not in [each.error for each in attempts])),
    ]
    return [(name, value) for name, value in shown if value is not None]


def limits(said: list[dict[str, Any]]) -> str | None:
    """Limits of a job, or of a schedule's."""
    told = []
    for each in said:
        if each["key"].startswith((SCHEDULE, BACKFILL)):
            told.append("one at once of its schedule" + ("'s backfills" if each["key"].startswith(BACKFILL) else ""))
            continue
        name, keyed, key = each["key"].partition(",")
        told.append(f"{each['most']} at once of {name}" + (f" for {key!r}" if keyed else ""))
    return ", ".join(told) or None


def history(out: Output, attempts: Sequence[Attempt]) -> None:
    """Every attempt, and the traces of those that failed."""
    out.say()
    rows = [
        (
            each.number,
            each.outcome,
            each.reason,
            instant(each.started_at),
            span(each.ended_at - each.started_at) if each.started_at is not None else None,
            each.worker,
        )
        for each in attempts
    ]
    out.table(("attempt", "outcome", "reason", "started", "took", "worker"), rows, "no attempt has ended")
    for each in attempts:
        error = document.error(each.error)
        if error is not None:
            said, _, trace = str(_error(error)).partition("\n")
            out.say()
            out.say(f"attempt {each.number} {each.outcome}: {said}")
            if trace:
                out.block(trace)


def _state(job: Job) -> str:
    return "cancelling" if job.cancelling else job.state.value


def _note(job: Job, now: int) -> str:
    error = document.error(job.error)
    if job.state in ("scheduled", "retrying"):
        wait = f"in {span(job.due_at - now)}" if job.due_at > now else "due"
        return wait + (f", after {short(error)}" if error else f", {job.reason}" if job.reason else "")
    if job.state == "running":
        progress = _progress(document.progress(job.progress))
        return f"for {span(now - (job.started_at or now))}" + (f", {progress}" if progress else "")
    if error and job.state == "dead":
        return f"{job.reason}: {short(error)}"
    return job.reason or ""


def short(error: dict[str, Any]) -> str:
    """An error in a few words: its class without the module, and the first line of its message."""
    kind = str(error["kind"]).rpartition(".")[2]
    return brief(f"{kind}: {error['message']}" if error["message"] else kind, 80)


def _error(error: dict[str, Any] | None, *, trace: bool = True) -> str | None:
    if error is None:
        return None
    said = f"{error['kind']}: {error['message']}" if error["message"] else str(error["kind"])
    return f"{said}\n{error['trace'].rstrip()}" if trace and error.get("trace") else said


def _progress(progress: dict[str, Any] | None) -> str | None:
    if progress is None:
        return None
    of = f" of {progress['total']:g}" if progress["total"] is not None else ""
    return f"{progress['done']:g}{of}" + (f" {brief(progress['note'], 60)}" if progress["note"] else "")


def _long(text: str | None) -> str | None:
    if text is None or len(text) <= PAYLOAD_MOST:
        return text
    return f"{text[:PAYLOAD_MOST]}… ({len(text):,} characters; --json has them all)"


def _now() -> int:
    return round(dt.datetime.now(dt.UTC).timestamp() * 1e6)
