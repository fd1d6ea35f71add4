"""Flow control, decided: which of the jobs in line may run now, and whose turn an ended run makes it.

A limit is a key and a number that ride with the job, so that any process can decide about it, also one that never
imported its task. How many run is counted from the live rows, by the store, in the transaction that grants: there is
no counter that a crash could leave wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec

from windlass.core.job import KeyLimit, Meta

Limits = tuple[KeyLimit, ...]

_decode = msgspec.json.Decoder(Meta).decode


def limits_of(meta: str) -> Limits:
    """The limits in the JSON text of a Meta; none where it cannot be read, as one bad row must not stop a queue."""
    # Most jobs have none, and are asked on every claim: a search of a short text, not a parse.
    return _limits(meta) if '"limits"' in meta else ()


@lru_cache(maxsize=4_096)
def _limits(meta: str) -> Limits:
    try:
        return _decode(meta).limits
    except msgspec.DecodeError:
        return ()


def keys_of(limits: Iterable[Limits]) -> list[str]:
    """Every key in them, once, in order."""
    return list(dict.fromkeys(limit.key for each in limits for limit in each))


def admit(line: Sequence[Limits], running: Mapping[str, int], room: int) -> list[KeyLimit | None]:
    """Go through jobs in the order in which they stand until `room` of them are let in. For each that was looked at:
    None if it may run, else the first of its limits that is full.

    `running` counts, by key, the jobs that run now; those let in here count for the ones behind them.
    """
    count = Counter(running)
    verdicts: list[KeyLimit | None] = []
    for limits in line:
        if room <= 0:
            break
        full = next((limit for limit in limits if count[limit.key] >= limit.most), None)
        if full is None:
            room -= 1
            count.update(keys_of((limits,)))
        verdicts.append(full)
    return verdicts


def passed_on(blocked: Iterable[tuple[Limits, KeyLimit]]) -> dict[str, int]:
    """How many turns, by key, jobs that were just blocked leave to others: under each of their keys that is not the
    one which blocks them, another may have its turn."""
    turns: Counter[str] = Counter()
    for limits, full in blocked:
        turns.update(key for key in keys_of((limits,)) if key != full.key)
    return dict(turns)


def turns(freed: int | None, most: int, running: int) -> int:
    """How many of those that wait for a key are let back into line: as many as runs have ended (None: whatever there
    is room for), and never more than there is room for."""
    room = max(0, most - running)
    return room if freed is None else min(freed, room)
