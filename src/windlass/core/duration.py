"""Durations as people write them: "30s", "10m", a timedelta, or seconds."""

from __future__ import annotations

import math
import re
from datetime import timedelta

from windlass.core.errors import InvalidValue

Duration = str | float | int | timedelta
"""What a parameter called a duration accepts: "250ms", "30s", "10m", "2h", "1d", "1h30m", a timedelta, or seconds."""

YEAR = 366 * 86_400.0

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")


def seconds(value: object, field: str = "duration", *, most: float = YEAR) -> float:
    """Return `value` in seconds.

    Raises InvalidValue, a ValueError that names `field`, when it is no duration, is negative or not finite, or is over
    `most` seconds.
    """
    amount = _amount(value, field)
    if not 0 <= amount <= most:  # also false for NaN
        raise InvalidValue(field, f"{value!r} must be between 0 and {most:g} seconds")
    return amount


def micros(value: object, field: str = "duration", *, most: float = YEAR) -> int:
    """Return `value` in whole microseconds, the unit in which durations travel to a store; raises as `seconds` does."""
    return round(seconds(value, field, most=most) * 1e6)


def _amount(value: object, field: str) -> float:
    if isinstance(value, bool):
        raise InvalidValue(field, f'{value!r} is no duration; write "30s", "10m", a timedelta or seconds')
    if isinstance(value, (int, float)):
        try:
            return float(value) if math.isfinite(value) else math.nan
        except OverflowError:  # an integer past all floats; too long even to be repeated in a message
            raise InvalidValue(field, "the number is far too large to be seconds") from None
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        text = value.strip().lower()
        parts = _PART.findall(text)
        if parts and "".join(n + u for n, u in parts) == text:
            return sum(float(n) * _UNITS[u] for n, u in parts)
        try:
            return float(text)
        except ValueError:
            pass
    raise InvalidValue(field, f'{value!r} is no duration; write "30s", "10m", "2h", a timedelta or seconds')
