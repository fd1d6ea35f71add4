"""A clock that stands still until it is told."""

from __future__ import annotations

import threading

from windlass.core.duration import Duration, micros

EPOCH = 1_780_000_000_000_000
"""Where a ManualClock begins, in microseconds since 1970: May 2026."""

CENTURY = 36_525 * 86_400.0


class ManualClock:
    """A store's clock for tests: calling it answers microseconds since 1970; only `advance` and `set` move it.

    May be read and moved from any thread. Pass it as `clock` wherever a store is opened.
    """

    def __init__(self, start: int = EPOCH) -> None:
        self._now = start
        self._lock = threading.Lock()

    def __call__(self) -> int:
        return self._now

    def advance(self, by: Duration) -> int:
        """Move on by a duration ("10m", a timedelta, seconds) and answer the new time. Raises ValueError for
        what is no duration, is negative, or is over a century."""
        with self._lock:
            self._now += micros(by, "by", most=CENTURY)
            return self._now

    def set(self, now: int) -> None:
        """Jump to an instant in microseconds, backwards too, as a clock that is corrected does."""
        with self._lock:
            self._now = now
