"""Every exception of Windlass. Whether trying again can help is its class, never its text."""

from __future__ import annotations


class WindlassError(Exception):
    """The root of everything that Windlass raises on purpose."""


class ConfigError(WindlassError):
    """A setting is wrong. The message names the setting, where its value came from, and what would be right."""


class RegistrationError(WindlassError):
    """A task, hook or option was declared in a way that cannot work. Raised while the application is imported."""


class InvalidValue(WindlassError, ValueError):
    """A duration, a curve or another argument cannot be what it says; `field` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class InvalidJob(InvalidValue):
    """A job was refused before anything was stored; `field` names the guilty part."""


class PayloadInvalid(InvalidJob):
    """The arguments do not fit the task, or are not JSON; `field` is the path inside the payload."""


class PayloadTooLarge(InvalidJob):
    """The payload is over its limit (256 KiB unless configured)."""


class InvalidSchedule(InvalidValue):
    """A schedule was refused before anything was stored; `field` names the guilty part."""


class ScheduleNotFound(WindlassError, LookupError):
    """No schedule of that name is in the store."""


class UnknownTask(WindlassError, LookupError):
    """No task of that name (or version) is registered in this application."""


class IdempotencyConflict(WindlassError):
    """The idempotency key was used before with another payload; `job_id` is the job that owns the key."""

    def __init__(self, key: str, job_id: str) -> None:
        super().__init__(f"idempotency_key: {key!r} belongs to job {job_id}, which has another payload")
        self.key = key
        self.job_id = job_id


class DuplicateJob(WindlassError):
    """Another job has the same unique key and has not ended; `job_id` says which. Nothing was stored."""

    def __init__(self, task: str, job_id: str) -> None:
        super().__init__(f"unique: job {job_id} of {task} has the same key, and has not ended")
        self.task = task
        self.job_id = job_id


class QueueFull(WindlassError):
    """The queue takes no more for now: it is as deep, or its first job has waited as long, as it may. Nothing was
    stored; `retry_after` says in how many seconds (1 to 60) there may be room."""

    def __init__(self, queue: str, depth: int, age: float, retry_after: float, late: float | None = None) -> None:
        """`late` is the bound of age, if that is what made it full."""
        why = f"{depth} or more jobs wait, the first for {age:.1f} s"
        if late is not None:
            why = f"its first job has waited for {age:.1f} s, past its bound of {late:g} s"
        super().__init__(f"queue {queue!r} is full: {why}; try again in {retry_after:.0f} s")
        self.queue = queue
        self.depth = depth
        self.age = age
        self.retry_after = retry_after


class LockTimeout(WindlassError, TimeoutError):
    """The lock was not to be had in time: others held it."""

    def __init__(self, name: str, waited: float) -> None:
        super().__init__(f"lock {name!r} was not to be had within {waited:g} s")
        self.name = name


class StoreError(WindlassError):
    """The store refused or failed."""


class StoreUnavailable(StoreError):
    """The store is locked, full or away. Nothing was applied: trying again is safe."""


class StoreTimeout(StoreUnavailable):
    """The deadline passed before the store took the operation up. Nothing was applied, and nothing will be."""


class StoreFull(StoreUnavailable):
    """The disk (or the server's memory) is full. Nothing was applied."""


class StoreCorrupt(StoreError):
    """The store's file is damaged or is not a Windlass store. `windlass store doctor` says more."""


class ChildConflict(StoreError):
    """A completion cannot be kept: the idempotency key of a child belongs to a job with another payload."""

    def __init__(self, key: str, owner: str) -> None:
        super().__init__(f"a child's idempotency_key {key!r} belongs to job {owner}, which has another payload")


class StoreReplaced(StoreError):
    """The store's file was deleted, or another put in its place: what is open here is seen by nobody who comes now.
    Whoever works on it must end, and begin anew on the file that is there."""


class OutcomeUnknown(StoreError):
    """The answer was lost, or did not come before the deadline: it may have been applied, or be applied yet. Sending it
    again with the same id or idempotency key tells, and applies nothing twice; a new job would be a second one."""


class SchemaError(StoreError):
    """The store's schema is missing, or newer than this version of Windlass."""


class CapabilityMissing(StoreError):
    """This store cannot do what was asked; the message names the capability."""


class JobError(WindlassError):
    """A job did not end with a result; `job_id` says which."""

    def __init__(self, job_id: str, message: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobNotFound(JobError, LookupError):
    """No job of that id is in the store."""


class JobFailed(JobError):
    """The job is dead. `kind`, `detail` and `trace` describe the last error as text; `reason` says why it was final."""

    def __init__(self, job_id: str, reason: str, kind: str = "", detail: str = "", trace: str = "") -> None:
        super().__init__(job_id, f"job {job_id} is dead ({reason})" + (f": {kind}: {detail}" if kind else ""))
        self.reason = reason
        self.kind = kind
        self.detail = detail
        self.trace = trace


class JobCancelled(JobError):
    """The job was cancelled."""


class JobExpired(JobError):
    """The job expired before it could start."""


class ResultExpired(JobError):
    """The job completed, but its result was kept only for its time to live."""


class ResultTimeout(JobError, TimeoutError):
    """The job had not ended when the wait did. The job goes on."""


class LeaseLost(JobError):
    """The job was taken over: whatever this run still writes is refused by its fence."""


class Retry(WindlassError):
    """Raised in a handler: try this job again after `delay` seconds (or "30s", a timedelta); costs an attempt.

    With `delay=None` the task's own backoff decides. Once attempts are used up the job is dead.
    """

    def __init__(self, delay: object = None, reason: str = "") -> None:
        super().__init__(reason or "retry asked for")
        self.delay = delay
        self.reason = reason


class Snooze(WindlassError):
    """Raised in a handler: run this job again after `delay`; costs no attempt."""

    def __init__(self, delay: object, reason: str = "") -> None:
        super().__init__(reason or "snoozed")
        self.delay = delay
        self.reason = reason


class Discard(WindlassError):
    """Raised in a handler: give this job up at once; it goes to the dead letters with `reason`."""

    def __init__(self, reason: str = "discarded") -> None:
        super().__init__(reason)
        self.reason = reason
