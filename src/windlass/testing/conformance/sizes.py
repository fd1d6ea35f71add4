"""The sizes of every proof: a glance where it is proven elsewhere, a sample a day, a closing run, and hours."""

from __future__ import annotations

import os
import time

SIZES = ("glance", "sample", "closing", "soak")


def size(sample: int, closing: int, soak: int) -> int:
    """The count for the size that WINDLASS_PROOF names. Raises ValueError for another name."""
    name = os.environ.get("WINDLASS_PROOF") or "sample"
    if name not in SIZES:
        raise ValueError(f"WINDLASS_PROOF: {name!r} must be one of {', '.join(SIZES)}")
    return {"glance": -(-sample // 5), "sample": sample, "closing": closing, "soak": soak}[name]


def seeds(sample: int, closing: int, soak: int) -> list[int]:
    """The seeds to try: the one in WINDLASS_SEED, else always the same for a sample, new ones for anything larger."""
    given = os.environ.get("WINDLASS_SEED")
    if given:
        return [int(given)]
    count = size(sample, closing, soak)
    first = 0 if count <= sample else time.time_ns() % 10**9
    return list(range(first, first + count))
