"""A clock that stands still until it is told."""

from __future__ import annotations

import threading

from windlass.core.duration import Duration, micros
from windlass.core.errors import InvalidValue
from windlass.names import shown

EPOCH = 1_780_000_000_000_000
"""Where a ManualClock begins, in microseconds since 1970: May 2026."""

CENTURY = 36_525 * 86_400.0


class ManualClock:
    """A store's clock for tests: calling it answers microseconds since 1970; only `advance` and `set` move it.

    May be read and moved from any thread. Pass it as `clock` wherever a store is opened. Raises InvalidValue for a
    `start` that is no whole number of microseconds.
    """

    def __init__(self, start: int = EPOCH) -> None:
        self._now = _instant(start, "start")
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
        """Jump to an instant in microseconds, backwards too, as a clock that is corrected does. Raises
        InvalidValue for what is no whole number."""
        with self._lock:
            self._now = _instant(now, "now")


def _instant(value: object, field: str) -> int:
    """Checked here: the store that reads it would fail, far from the mistake."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidValue(field, f"{shown(value)} must be a whole number of microseconds since 1970")
    return value
