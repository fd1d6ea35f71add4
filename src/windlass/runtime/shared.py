"""Whether a store can be the meeting place of several processes, and lets this one work."""

from __future__ import annotations

from windlass.core.errors import CapabilityMissing, ConfigError
from windlass.ports.store import Opened


def must_be_shared(opened: Opened) -> None:
    """Raise CapabilityMissing for a store that every process would have for itself alone: what one enqueues, no other
    would ever see."""
    if "durable" not in opened.store.capabilities:
        raise CapabilityMissing(
            f"durable: {opened.url} lives in one process, and no other sees its jobs; name a store that lasts, for "
            "instance sqlite:///windlass.db, or run jobs in the process that enqueues them, by app.run_embedded()"
        )


def must_let_work(opened: Opened) -> None:
    """Raise ConfigError where the store's login has not the rights of a worker: it would wait for ever."""
    missing = getattr(opened, "missing_for_work", None)
    if missing is not None and (problem := missing()):
        raise ConfigError(f"url: {problem}")
