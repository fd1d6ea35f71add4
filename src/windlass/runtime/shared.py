"""Whether a store can be the meeting place of several processes."""

from __future__ import annotations

from windlass.core.errors import CapabilityMissing
from windlass.ports.store import Opened


def must_be_shared(opened: Opened) -> None:
    """Raise CapabilityMissing for a store that every process would have for itself alone: what one enqueues, no other
    would ever see."""
    if "durable" not in opened.store.capabilities:
        raise CapabilityMissing(
            f"durable: {opened.url} lives in one process, and no other sees its jobs; name a store that lasts, for "
            "instance sqlite:///windlass.db, or run jobs in the process that enqueues them, by app.run_embedded()"
        )
