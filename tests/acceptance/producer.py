"""A process that enqueues jobs of all kinds until it is ended, and writes down each that was acknowledged.

What it had asked for when it is killed may be stored or not; what it wrote down is.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import Any

from tests.acceptance import load
from windlass import DuplicateJob
from windlass.core.errors import StoreError
from windlass.testing import ledger

TURN = 0.2
BACKLOG_MOST = 3_000
WAITING = ("queued", "scheduled", "retrying", "running", "blocked")
KEYS = 12
MIX = {
    "quick": 40,
    "sleeper": 10,
    "threaded": 9,
    "in_process": 2,
    "flaky": 8,
    "failing": 2,
    "steps": 6,
    "booked": 4,
    "limited": 7,
    "limited_thread": 4,
    "only": 3,
    "last": 3,
    "parent": 2,
}


SECONDS = {0.0: 50, 0.02: 22, 0.1: 15, 0.5: 10, 2.0: 3}
"""How long jobs run, and how many of a hundred do: so short that most end between two faults, so long that each fault
meets some."""


def arguments(kind: str, dice: random.Random) -> tuple[Any, ...]:
    """Of one job."""
    [seconds] = dice.choices(list(SECONDS), list(SECONDS.values()))
    match kind:
        case "quick" | "failing" | "booked":
            return ()
        case "flaky":
            return (dice.randint(0, 2),)
        case "parent":
            return (dice.randint(1, 4),)
        case "steps":
            return (min(seconds, 1.0),)
        case "limited" | "limited_thread" | "only" | "last":
            return (dice.randrange(KEYS), min(seconds, 0.5))
    return (seconds,)


def enqueue(kind: str, calls: list[tuple[Any, ...]]) -> Iterator[str]:
    """The ids that were acknowledged."""
    task = getattr(load, kind)
    if kind not in {"only", "last"}:
        yield from (job.id for job in task.enqueue_many(calls))
        return
    for call in calls:
        try:
            yield task.enqueue(*call).id
        except DuplicateJob:
            ledger.write(load.LEDGER, "duplicate")


def mix() -> dict[str, int]:
    """Of all kinds that the store can do."""
    can = load.app.opened.store.capabilities
    return {kind: share for kind, share in MIX.items() if kind != "booked" or "transaction" in can}


def turn(dice: random.Random, count: int) -> None:
    known = mix()
    kinds = dice.choices(list(known), list(known.values()), k=count)
    for kind in sorted(set(kinds)):
        try:
            for job in enqueue(kind, [arguments(kind, dice) for _ in range(kinds.count(kind))]):
                ledger.write(load.LEDGER, "acked", job)
        except StoreError as error:
            ledger.write(load.LEDGER, "unacknowledged", note=f"{type(error).__name__}: {error}")


def room() -> bool:
    """Whether not too much waits already. A store that is away is asked for more: that is what it must answer well."""
    try:
        states = load.app.client.stats().states
    except StoreError:
        return True
    return sum(states.get(state, 0) for state in WAITING) < BACKLOG_MOST


def main() -> None:
    seed, rate = int(os.environ["CHAOS_SEED"]), float(os.environ["CHAOS_RATE"])
    dice = random.Random(seed)
    looked = 0.0
    while True:
        began = time.monotonic()
        if began - looked > 1.0:
            looked = began if room() else 0.0
        if looked:
            turn(dice, round(rate * TURN))
        time.sleep(max(0.0, began + TURN - time.monotonic()))


if __name__ == "__main__":
    main()
