"""How large a worker and its supervisor may be: one number each, for whoever checks what a person asked for."""

from __future__ import annotations

PROCESSES_MOST = 256
"""Workers of one supervisor."""

CONCURRENCY_MOST = 10_000
"""Slots of one worker: its table in shared memory has room for that many."""
