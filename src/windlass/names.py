"""What a name may be, and how a value stands in a message."""

from __future__ import annotations

from typing import Any

NAME_MOST = 200
KEY_MOST = 255
"""Characters of a name, and of a key."""


def valid_name(value: Any, field: str, *, most: int = NAME_MOST) -> str:
    """Return a queue's or task's name; raises ValueError for what could not be typed, shown or listed with commas."""
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise ValueError(f"{field}: {shown(value)} must be text of 1 to {most} characters")
    if not value.isprintable() or "," in value or value != value.strip():
        raise ValueError(f"{field}: {value!a} must be printable, without commas and without spaces at its ends")
    return value


def valid_queue(value: Any, field: str) -> str:
    """`valid_name` for a queue; in lists of queues a colon stands before a weight."""
    name = valid_name(value, field)
    if ":" in name:
        raise ValueError(f"{field}: {name!r} must have no colon")
    return name


def valid_version(value: Any, field: str) -> int:
    """Return the version of a payload; raises ValueError for what is no whole number, 1..2147483647."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
        raise ValueError(f"{field}: {shown(value)} must be a whole number, 1..{2**31 - 1}")
    return value


def shown(value: Any) -> str:
    """`value` as it may stand in a message, shortened."""
    try:
        text = ascii(value)
    except ValueError:  # Python writes no integers of so many digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."
