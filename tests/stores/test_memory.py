"""The memory store passes the suite: the specification is held to the words of the seam."""

from __future__ import annotations

from pathlib import Path

from windlass.stores.memory import OpenedMemory, open_memory
from windlass.testing import ManualClock
from windlass.testing.conformance import Suite


class TestMemory(Suite):
    @staticmethod
    def open(path: Path, clock: ManualClock) -> OpenedMemory:
        return open_memory(clock=clock)
