"""How tasks fare: from when jobs were asked for, began and ended, to shares and percentiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from windlass.core.job import State

End = tuple[str, State, int, int, int | None, int]
"""Task, how it ended, and when it was created, due, started (None: never) and finished."""


class Spread(msgspec.Struct, frozen=True):
    """Percentiles of spans, in microseconds: half of them were at most `p50`, and so on."""

    p50: int
    p95: int
    p99: int


class TaskLatency(msgspec.Struct, frozen=True):
    """The jobs of one task in a sample of those that have ended."""

    task: str
    jobs: int
    completed: int
    dead: int
    dead_ratio: float
    """Of those that completed or died, the share that died; 0 where none did either."""
    total: Spread | None
    """From the enqueue to the end, of those that ran."""
    waiting: Spread | None
    """From when it was due for its last run to when that began."""


def summarise(endings: Iterable[End]) -> list[TaskLatency]:
    """The endings by task, sorted by its name."""
    by_task: dict[str, list[End]] = {}
    for end in endings:
        by_task.setdefault(end[0], []).append(end)
    return [_summary(task, ends) for task, ends in sorted(by_task.items())]


def _summary(task: str, ends: Sequence[End]) -> TaskLatency:
    completed = sum(state is State.COMPLETED for _, state, *_ in ends)
    dead = sum(state is State.DEAD for _, state, *_ in ends)
    # Clocks of stores are set back now and then; a span is never below nothing.
    ran = [(created, due, started, done) for _, _, created, due, started, done in ends if started is not None]
    return TaskLatency(
        task,
        len(ends),
        completed,
        dead,
        dead / (completed + dead) if completed + dead else 0.0,
        _spread([max(0, done - created) for created, _, _, done in ran]),
        _spread([max(0, started - due) for _, due, started, _ in ran]),
    )


def _spread(spans: list[int]) -> Spread | None:
    if not spans:
        return None
    spans.sort()
    return Spread(*(spans[_rank(len(spans), share)] for share in (50, 95, 99)))


def _rank(count: int, share: int) -> int:
    """Nearest rank: the smallest value that at least this share of the values does not exceed."""
    return max(0, -(-count * share // 100) - 1)
