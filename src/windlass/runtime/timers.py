"""Soft deadlines of runs."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from windlass.runtime.run import Run

FEW = 64
"""Ended runs that may lie in the heap at any time."""


class Timers:
    """All soft deadlines in one heap with one timer: `asyncio.timeout` costs 5 us a job, and most jobs finish."""

    def __init__(self, loop: asyncio.AbstractEventLoop, late: Callable[[Run], None]) -> None:
        self._loop = loop
        self._late = late
        self._heap: list[tuple[float, int, Run]] = []
        self._handle: asyncio.TimerHandle | None = None
        self._count = 0
        self._cleared = 0
        """How many of them are of runs that have ended."""

    def add(self, run: Run, timeout: float) -> None:
        """Call `late` in `timeout` seconds unless the run's deadline was cleared by then."""
        run.deadline = self._loop.time() + timeout
        self._count += 1
        heapq.heappush(self._heap, (run.deadline, self._count, run))
        self._arm()

    def clear(self, run: Run) -> None:
        """The run has ended. It leaves the heap when half of it is of such runs: one by one would cost a walk each,
        and behind one job with a limit of an hour all that end in that hour would be kept, payloads and all."""
        if run.deadline is None:
            return
        run.deadline = None
        self._cleared += 1
        if self._cleared * 2 > len(self._heap) and self._cleared >= FEW:
            self._heap = [entry for entry in self._heap if entry[2].deadline is not None]
            heapq.heapify(self._heap)
            self._cleared = 0

    def _arm(self) -> None:
        while self._heap and self._heap[0][2].deadline is None:
            heapq.heappop(self._heap)
            self._cleared -= 1
        if self._heap and (self._handle is None or self._handle.when() > self._heap[0][0]):
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._loop.call_at(self._heap[0][0], self._fire)

    def _fire(self) -> None:
        self._handle = None
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            run = heapq.heappop(self._heap)[2]
            if run.deadline is None:
                self._cleared -= 1
            else:
                run.deadline = None
                self._late(run)
        self._arm()

    def close(self) -> None:
        """Forget every deadline."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
