"""How many jobs may run at once, as a task says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from windlass.core.job import KeyLimit
from windlass.keys import Key, check_key, key_of
from windlass.names import valid_name

MOST = 10_000
LIMITS_MOST = 8


class Limit(msgspec.Struct, frozen=True):
    """At most `most` jobs at once, counted over all workers and machines.

    Without more, those of the task. With a `key`, those of the task whose key is the same: the name of a parameter, or
    a function that takes the arguments by name (those that it names, or all by `**`) and answers text. With a `name`,
    those of every task whose limit has this name (and the same key, if there is one).
    """

    most: int
    key: Key | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError that names the field."""
        _check_most(self.most)
        check_key(self.key)
        if self.name is not None:
            valid_name(self.name, "name")

    def of(self, task: str, arguments: Mapping[str, Any]) -> KeyLimit:
        """The limit of one job. Raises InvalidJob for a key that cannot be had."""
        name = self.name or task
        # No name has a comma in it, so no two limits can be taken for one another.
        return KeyLimit(name if self.key is None else f"{name},{key_of(self.key, arguments, 'limit_key')}", self.most)


def _check_most(most: Any) -> None:
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= MOST:
        raise ValueError(f"most: {most!r} must be a whole number, 1..{MOST}")


def read_limits(value: Any, key: Any = None) -> tuple[Limit, ...]:
    """The limits in the options `limit` and `limit_key`; raises ValueError."""
    if value is None and key is None:
        return ()
    if isinstance(value, int) and not isinstance(value, bool):
        return (Limit(value, key),)
    if key is not None:
        raise ValueError("limit_key goes with a limit that is a number; otherwise say Limit(1, key=...)")
    given = (value,) if isinstance(value, Limit) else value
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) > LIMITS_MOST:
        raise ValueError(f"{value!r} must be a number, a Limit, or a list of at most {LIMITS_MOST} of these")
    found = tuple(each if isinstance(each, Limit) else Limit(each) for each in given)
    if len({(each.name, each.key) for each in found}) < len(found):
        raise ValueError(f"{value!r} says twice how many may run")
    return found
