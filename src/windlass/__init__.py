"""Windlass: background jobs for Python, on the database you already have."""

from __future__ import annotations

from windlass.app import Windlass
from windlass.core.backoff import Backoff
from windlass.core.errors import (
    ConfigError,
    Discard,
    DuplicateJob,
    IdempotencyConflict,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    LockTimeout,
    PayloadInvalid,
    QueueFull,
    ResultTimeout,
    Retry,
    Snooze,
    StoreUnavailable,
    WindlassError,
)
from windlass.core.job import State
from windlass.declaration import provided
from windlass.handle import Job
from windlass.limits import Limit
from windlass.ports.store import Filter
from windlass.runtime.context import Context
from windlass.task import Task
from windlass.unique import Unique

__all__ = [
    "Backoff",
    "ConfigError",
    "Context",
    "Discard",
    "DuplicateJob",
    "Filter",
    "IdempotencyConflict",
    "Job",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "JobNotFound",
    "Limit",
    "LockTimeout",
    "PayloadInvalid",
    "QueueFull",
    "ResultTimeout",
    "Retry",
    "Snooze",
    "State",
    "StoreUnavailable",
    "Task",
    "Unique",
    "Windlass",
    "WindlassError",
    "provided",
]
