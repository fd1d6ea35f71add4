"""Unique jobs, decided: what becomes of a job whose key another one has.

A key has at most one owner, a job that has not ended, and behind it at most one successor, which is blocked until the
owner has ended. How a job arrives follows from its own policy and from where those two are.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

import msgspec

from windlass.core.job import UniqueKey, read_meta

POLICIES = ("reject", "return-existing", "replace", "keep-last", "debounce", "throttle")


class Arrival(StrEnum):
    """What becomes of a job that finds its key taken."""

    REFUSE = "refuse"
    """It is an error."""
    EXISTING = "existing"
    """The owner stands for it."""
    REPLACE = "replace"
    """It takes the place of the one that waits: of the successor, or else of the owner, whose id stays."""
    FOLLOW = "follow"
    """It becomes the successor of an owner that runs."""
    OUST = "oust"
    """The same, and the owner is asked to cancel."""


def unique_of(meta: str) -> UniqueKey | None:
    """The unique key in the JSON text of a Meta; None where there is none, or where it cannot be read."""
    return _unique(meta) if '"unique"' in meta else None


@lru_cache(maxsize=4_096)
def _unique(meta: str) -> UniqueKey | None:
    try:
        return read_meta(meta).unique
    except msgspec.DecodeError:
        return None


def arrive(policy: str, *, running: bool, succeeded: bool) -> Arrival:
    """What becomes of a job of this policy whose key has an owner that runs, or waits, and perhaps a successor."""
    if policy in ("return-existing", "throttle"):
        return Arrival.EXISTING
    if policy not in ("replace", "keep-last", "debounce"):  # also one that only a later version knows: harmless
        return Arrival.REFUSE
    if succeeded or not running:
        return Arrival.REPLACE
    return Arrival.OUST if policy == "replace" else Arrival.FOLLOW


def due_of(unique: UniqueKey, due: int, now: int, first: int) -> int:
    """When a job is due that takes the place of another, which was enqueued at `first`: a debounce moves on with every
    arrival, and no further than its `max_wait` after the first."""
    if unique.max_wait is None:
        return due
    return min(due, max(now, first + unique.max_wait))
