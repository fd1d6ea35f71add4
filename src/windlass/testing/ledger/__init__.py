"""A ledger: what happened, written down by those to whom it happened, and checked without asking the store.

A folder of files, one for each process, to which it appends a line before and after whatever matters. A kill cannot
tear a line, and nothing is taken back. `docs/guides/ledgers.md` says what the lines are; `windlass ledger check` holds
them against each other.
"""

from __future__ import annotations

from windlass.testing.ledger.check import Problem, Report, check
from windlass.testing.ledger.export import export
from windlass.testing.ledger.history import History
from windlass.testing.ledger.line import DamagedLedger, Line, read, read_path, write

__all__ = [
    "DamagedLedger",
    "History",
    "Line",
    "Problem",
    "Report",
    "check",
    "export",
    "read",
    "read_path",
    "write",
]
