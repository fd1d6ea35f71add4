"""Soft deadlines of runs."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from windlass.runtime.run import Run


class Timers:
    """All soft deadlines in one heap with one timer: `asyncio.timeout` costs 5 us a job, and most jobs finish."""

    def __init__(self, loop: asyncio.AbstractEventLoop, late: Callable[[Run], None]) -> None:
        self._loop = loop
        self._late = late
        self._heap: list[tuple[float, int, Run]] = []
        self._handle: asyncio.TimerHandle | None = None
        self._count = 0

    def add(self, run: Run, timeout: float) -> None:
        """Call `late` in `timeout` seconds unless the run's deadline was cleared by then."""
        run.deadline = self._loop.time() + timeout
        self._count += 1
        heapq.heappush(self._heap, (run.deadline, self._count, run))
        self._arm()

    def _arm(self) -> None:
        while self._heap and self._heap[0][2].deadline is None:
            heapq.heappop(self._heap)
        if self._heap and (self._handle is None or self._handle.when() > self._heap[0][0]):
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._loop.call_at(self._heap[0][0], self._fire)

    def _fire(self) -> None:
        self._handle = None
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            run = heapq.heappop(self._heap)[2]
            if run.deadline is not None:
                self._late(run)
        self._arm()

    def close(self) -> None:
        """Forget every deadline."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
