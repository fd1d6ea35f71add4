"""What tests of Windlass, of a store for it, and of applications that use it are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from windlass.testing.clock import ManualClock
    from windlass.testing.faults import WorkerKilled
    from windlass.testing.jobs import Drained, Jobs, engine
    from windlass.testing.seen import SeenJob

__all__ = ["Drained", "Jobs", "ManualClock", "SeenJob", "WorkerKilled", "engine"]

_PLACES = {"ManualClock": "clock", "SeenJob": "seen", "WorkerKilled": "faults"}


def __getattr__(name: str) -> Any:
    """Each when it is asked for: the pytest plugin is loaded by every pytest, and most of those test something else."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_PLACES.get(name, 'jobs')}"), name)
