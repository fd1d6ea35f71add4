"""The SQLite store through the sqlite3 of the standard library, as inside an application's own database."""

from __future__ import annotations

from pathlib import Path

from windlass import stores
from windlass.ports.plan import Plan, Statement, Steps
from windlass.ports.store import Opened
from windlass.testing import ManualClock
from windlass.testing.conformance import Suite


class TestSqliteStdlib(Suite):
    @staticmethod
    def open(path: Path, clock: ManualClock) -> Opened:
        return stores.open(f"sqlite+stdlib:///{path}/jobs.db", clock=clock)

    @staticmethod
    def make_newer(opened: Opened) -> None:
        def steps() -> Steps[None]:
            yield Statement("schema_applied", (999, 0))

        opened.shell.run(Plan(steps, "newer", write=True))
