"""Jobs as a test looks at them: arguments by name, as the handler gets them; and how to tell one from another."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from windlass.core.errors import InvalidJob, UnknownTask
from windlass.core.job import ErrorInfo, Job, Meta, State
from windlass.core.words import brief, count, span

if TYPE_CHECKING:
    from windlass.app import Windlass

SHOWN = 20
"""Jobs listed in a message."""
TEXT_MOST = 60


class SeenJob(msgspec.Struct, frozen=True):
    """A job as it was when it was looked at."""

    id: str
    task: str
    arguments: dict[str, Any]
    """By name and of the annotated types, defaults included; of a task whose code is elsewhere, as it was given."""
    state: State
    queue: str
    priority: int
    attempt: int
    """Runs that were charged."""
    reason: str | None
    error: ErrorInfo | None
    """The last one: `kind`, `message`, `trace`."""
    result: Any
    tags: tuple[str, ...]
    wait: float
    """Seconds from its enqueue, by the test's clock, until it was due then; 0 for at once."""
    due_in: float
    """Seconds until it is due, by the test's clock; negative if it has been."""
    record: Job

    def __str__(self) -> str:
        how = f"{self.state.value}, queue {self.queue!r}"
        if not self.state.terminal and self.due_in > 0:
            how += f", due in {span(self.due_in * 1e6)}"
        if self.error is not None:
            how += f", {self.error.kind}: {brief(self.error.message, TEXT_MOST)}"
        return f"{call_text(self.task, self.arguments)} [{how}]"


def see(app: Windlass, job: Job, now: int) -> SeenJob:
    """`job`, looked at with the eyes of its task."""
    return SeenJob(
        id=job.id,
        task=job.task,
        arguments=_arguments(app, job),
        state=job.state,
        queue=job.queue,
        priority=job.priority,
        attempt=job.attempt,
        reason=job.reason,
        error=None if job.error is None else msgspec.json.decode(job.error, type=ErrorInfo),
        result=None if job.result is None else _result(app, job, job.result),
        tags=msgspec.json.decode(job.meta, type=Meta).tags,
        wait=max(0.0, (job.due_at - job.created_at) / 1e6),
        due_in=(job.due_at - now) / 1e6,
        record=job,
    )


def named(app: Windlass, task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as given in a test, by name. Raises TypeError for what the task does not take."""
    signature = _signature(app, task)
    if signature is None:
        return {**{f"args[{n}]": value for n, value in enumerate(args)}, **kwargs}
    try:
        return _flat(signature.bind_partial(*args, **kwargs))
    except TypeError as error:
        raise TypeError(f"{task}: {error}; it takes {', '.join(signature.parameters) or 'no arguments'}") from None


def _arguments(app: Windlass, job: Job) -> dict[str, Any]:
    signature = _signature(app, job.task)
    if signature is None:
        args, kwargs = msgspec.json.decode(job.payload)
        return named(app, job.task, args, kwargs)
    try:
        args, kwargs = app.tasks[job.task].taskdef().bind(job.payload, job.version)
        bound = signature.bind_partial(*args, **kwargs)
    except (InvalidJob, TypeError):  # a payload of another version, or one that an editor broke
        return {"payload": job.payload}
    bound.apply_defaults()
    return _flat(bound)


def _result(app: Windlass, job: Job, text: str) -> Any:
    try:
        return app.named(job.task, job.version).decode(text)
    except InvalidJob:  # what a fake returned need not be what the task declares; `job.result()` says so
        return msgspec.json.decode(text)


def _flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """`**extra` as arguments of their own."""
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            found.update(value)
        else:
            found[name] = value
    return found


def _signature(app: Windlass, task: str) -> inspect.Signature | None:
    """What a caller passes: the parameters without those that the worker fills in. None where the code is elsewhere."""
    try:
        definition = app.tasks[task].taskdef()
    except (KeyError, UnknownTask):
        return None
    parameters = list(inspect.signature(app.tasks[task].function).parameters.values())
    provided = {parameters[0].name} if definition.context == 0 else {definition.context}
    kept = [each for each in parameters if each.name not in provided and each.name not in definition.resources]
    return inspect.Signature(kept)


class Wanted(msgspec.Struct, frozen=True):
    """What a test expects of a job; None, and arguments that are not named, stand for anything."""

    task: str
    arguments: dict[str, Any]
    queue: str | None = None
    priority: int | None = None
    delay: float | None = None
    """Seconds."""
    at: dt.datetime | None = None
    tags: tuple[str, ...] | None = None
    state: State | None = None

    def __str__(self) -> str:
        options = {name: getattr(self, name) for name in OPTIONS if getattr(self, name) is not None}
        said = "".join(f", {name}={value!r}" for name, value in options.items())
        return call_text(self.task, self.arguments) + (f" with{said[1:]}" if said else "")

    def differences(self, job: SeenJob) -> list[str]:
        """In what `job` is another one, in words; none if it is what is wanted."""
        found = [
            f"{name} is {_short(job.arguments[name])}, not {_short(value)}"
            if name in job.arguments
            else f"it has no argument {name!r}"
            for name, value in self.arguments.items()
            if name not in job.arguments or not _equal(job.arguments[name], value)
        ]
        if self.delay is not None and abs(job.wait - self.delay) > 0.000_5:
            found.append(f"delay is {span(job.wait * 1e6)}, not {span(self.delay * 1e6)}")
        if self.at is not None and round(self.at.timestamp() * 1e6) != job.record.due_at:
            found.append(f"it is due {_time(job.record.due_at)}, not {self.at.isoformat()}")
        if self.tags is not None and not set(self.tags) <= set(job.tags):
            found.append(f"tags are {job.tags!r}, without {sorted(set(self.tags) - set(job.tags))!r}")
        for name in ("queue", "priority", "state"):
            wanted, is_ = getattr(self, name), getattr(job, name)
            if wanted is not None and wanted != is_:
                found.append(f"{name} is {str(is_)!r}, not {str(wanted)!r}")
        return found


OPTIONS = ("queue", "priority", "delay", "at", "tags", "state")


def complaint(wanted: Wanted, times: int | None, matching: int, jobs: Sequence[SeenJob]) -> str:
    """Why an expectation failed: what there was, and what came nearest."""
    expected = "a job" if times is None else count(times, "job")
    lines = [f"expected {expected} {wanted}, found {matching}."]
    others = [job for job in jobs if job.task == wanted.task and wanted.differences(job)]
    if others:
        nearest = min(others, key=lambda job: len(wanted.differences(job)))
        lines.append(f"Nearest: {nearest}: {'; '.join(wanted.differences(nearest))}.")
    return "\n".join([*lines, listing(jobs)])


def listing(jobs: Sequence[SeenJob]) -> str:
    """Jobs one below the other."""
    if not jobs:
        return "No job was enqueued."
    more = [f"  ... and {len(jobs) - SHOWN} more"] if len(jobs) > SHOWN else []
    return "\n".join([f"Enqueued ({count(len(jobs), 'job')}):", *(f"  {job}" for job in jobs[:SHOWN]), *more])


def call_text(task: str, arguments: Mapping[str, Any]) -> str:
    """A call as a person would write it."""
    return f"{task}({', '.join(f'{name}={_short(value)}' for name, value in arguments.items())})"


def _equal(is_: Any, wanted: Any) -> bool:
    # `mock.ANY` and its like stand on the right, where their own __eq__ is asked.
    return bool(wanted == is_) or (isinstance(wanted, tuple) and isinstance(is_, list) and list(wanted) == is_)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= TEXT_MOST else text[: TEXT_MOST - 3] + "..."


def _time(micros: int) -> str:
    return dt.datetime.fromtimestamp(micros / 1e6, dt.UTC).isoformat()
