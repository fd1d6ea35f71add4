"""What a dead worker leaves behind: children of its jobs, adopted by the supervisor, that must end before the jobs run
again, so that two ffmpegs do not write one file."""

from __future__ import annotations

from collections.abc import Callable

from windlass.runtime import process
from windlass.runtime.logs import Log
from windlass.runtime.loop import Loop

PATIENCE = 3.0
"""Seconds that they may take to notice that nobody reads their output any more; then they are killed."""
GIVE_UP = 5.0
"""Seconds after which a process that cannot even be killed is left alone: the fence protects the store from it."""
LOOK = 0.02

log = Log("orphans")


class Orphans:
    """Waits for the adopted descendants of one dead child, without blocking the loop."""

    def __init__(self, loop: Loop, mark: str, then: Callable[[], None]) -> None:
        self._loop = loop
        self._mark = mark
        self._then = then
        self._began = loop.clock()
        self._told = False

    def wait(self) -> None:
        """Call `then` once none is left; at once if there is none."""
        left = process.orphans(self._mark)
        waited = self._loop.clock() - self._began
        if not left or waited > GIVE_UP:
            self._then()
            return
        if not self._told:
            log.info("waiting for what a dead worker's jobs started", pids=left)
            self._told = True
        if waited > PATIENCE:
            for pid in left:
                process.kill(pid)
        self._loop.later(LOOK, self.wait)
