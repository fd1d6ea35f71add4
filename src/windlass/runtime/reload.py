"""Watches the application's source files, for `windlass dev`: the workers name them, here only dates are looked at."""

from __future__ import annotations

import os
from collections.abc import Iterable

EVERY = 0.5
DEADLINE = 5.0
"""Seconds that running jobs get when a file was saved; whoever edits code waits for its effect."""


class Sources:
    """Files and when they were last written."""

    def __init__(self) -> None:
        self._dates: dict[str, int] = {}

    def watch(self, files: Iterable[str], since: int | None = None) -> None:
        """Watch these too. Loaded by a process that started at `since` (nanoseconds since 1970), what was written later
        counts as changed: the process may have read less."""
        for path in files:
            written = _written(path)
            self._dates.setdefault(path, written if since is None or written < since else -1)

    def changed(self) -> list[str]:
        """Those that were written, removed or made since the last call."""
        now = {path: _written(path) for path in self._dates}
        found = [path for path, date in now.items() if date != self._dates[path]]
        self._dates = now
        return found


def _written(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
