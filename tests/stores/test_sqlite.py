"""The SQLite store through apsw, which brings its own library."""

from __future__ import annotations

from pathlib import Path

from windlass import stores
from windlass.ports.store import Opened
from windlass.testing import ManualClock
from windlass.testing.conformance import Suite


class TestSqlite(Suite):
    @staticmethod
    def open(path: Path, clock: ManualClock) -> Opened:
        return stores.open(f"sqlite:///{path}/jobs.db", clock=clock)
