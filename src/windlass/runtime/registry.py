"""What a worker needs to know of a task, without knowing how tasks are declared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any

import msgspec

from windlass.core.words import nearest


class Mode(StrEnum):
    """Where a handler runs."""

    ASYNC = "async"
    """On the worker's event loop."""
    THREAD = "thread"
    PROCESS = "process"
    """In a child of its own, which can be killed without its neighbours."""


class TaskDef(msgspec.Struct, frozen=True, kw_only=True):
    """One registered handler."""

    name: str
    version: int
    """Payloads of this version and older ones (through upcasters) can be run; newer ones are released."""
    handler: Callable[..., Any]
    mode: Mode
    bind: Callable[[str, int], tuple[list[Any], dict[str, Any]]]
    """(payload JSON text, its version) -> args and kwargs of the annotated types; raises PayloadInvalid."""
    encode: Callable[[Any], str]
    """Result -> JSON text; raises PayloadInvalid (not storable) or PayloadTooLarge."""
    context: str | int | None = None
    """Where the handler wants its Context: a parameter's name, 0 for the first positional, None for nowhere."""
    resources: dict[str, type] = {}
    """Parameter name -> type of a resource that a worker start hook provides."""
    transient: tuple[type[BaseException], ...] = ()
    permanent: tuple[type[BaseException], ...] = ()
    exclusive: bool = False


class Registry(msgspec.Struct, kw_only=True):
    """All that an application registered for its workers."""

    tasks: dict[str, TaskDef] = {}
    start_hooks: list[Callable[..., Any]] = []
    """Run at worker start, in order, sync or async; what one returns (or an async/sync generator yields) is a resource,
    injected by its type."""
    stop_hooks: list[Callable[..., Any]] = []
    provides: dict[Any, Callable[..., Any]] = {}
    """Type of a resource -> the start hook that provides it: where TaskDef.resources asks for the type, what this hook
    returned goes in."""
    queues: tuple[str, ...] = ("default",)
    """The queues that its tasks name, "default" among them: what a worker serves unless told otherwise."""

    def labels(self) -> tuple[str, ...]:
        """Its tasks as operators see them: "name", or "name@version" for versions above 1."""
        return tuple(sorted(t.name if t.version == 1 else f"{t.name}@{t.version}" for t in self.tasks.values()))

    def unused(self, queues: Iterable[str]) -> dict[str, str]:
        """Those of `queues` that no task names, each with the name that may have been meant, or nothing. They may still
        be right: a job can be sent to any queue."""
        return {queue: nearest(queue, self.queues) for queue in queues if queue not in self.queues}

    def can_run(self, task: str, version: int) -> bool:
        """Whether a payload of `version` for `task` can be run here."""
        known = self.tasks.get(task)
        return known is not None and version <= known.version
