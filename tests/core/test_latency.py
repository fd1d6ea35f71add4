"""Endings of jobs as shares and percentiles."""

from __future__ import annotations

import random

from windlass.core.job import State
from windlass.core.latency import Spread, TaskLatency, summarise

DONE, DEAD, GONE = State.COMPLETED, State.DEAD, State.CANCELLED


def test_by_task() -> None:
    ends = [
        ("b", DONE, 0, 10, 15, 40),
        ("a", DEAD, 0, 0, 5, 7),
        ("b", DEAD, 0, 0, 1, 20),
        ("b", DONE, 0, 0, 3, 30),
        ("b", GONE, 0, 0, None, 99),
        ("c", GONE, 0, 0, None, 99),
    ]
    assert summarise(ends) == [
        TaskLatency("a", 1, 0, 1, 1.0, Spread(7, 7, 7), Spread(5, 5, 5)),
        TaskLatency("b", 4, 2, 1, 1 / 3, Spread(30, 40, 40), Spread(3, 5, 5)),
        TaskLatency("c", 1, 0, 0, 0.0, None, None),
    ]
    assert summarise([]) == []


def test_percentiles_are_nearest_ranks() -> None:
    """Against the definition, counted out: at least that share is no larger, and no smaller value will do."""
    chance = random.Random(7)
    for count in (1, 2, 3, 19, 20, 21, 100, 101):
        spans = [chance.randrange(50) for _ in range(count)]
        (found,) = summarise(("t", DONE, 0, 0, 0, span) for span in spans)
        assert found.total is not None
        for share, value in zip((50, 95, 99), (found.total.p50, found.total.p95, found.total.p99), strict=True):
            enough = [each for each in spans if sum(other <= each for other in spans) * 100 >= share * count]
            assert value == min(enough), (count, share)


def test_a_clock_that_was_set_back_makes_no_negative_spans() -> None:
    (found,) = summarise([("t", DONE, 100, 100, 90, 95)])
    assert (found.total, found.waiting) == (Spread(0, 0, 0), Spread(0, 0, 0))
