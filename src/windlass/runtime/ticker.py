"""What turns a duty of its own: a thread that steps, waits as long as the step says, and can be poked awake."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Protocol

Step = Callable[[], float | None]
"""Does what is due; answers the seconds until there may be more, None for "not before somebody pokes"."""


class Ticker(Protocol):
    """Turns one duty. A simulation hands in one that needs no thread."""

    def start(self) -> None:
        """Begin with the first step."""
        ...

    def poke(self) -> None:
        """Have a step at once, or one more after the one under way; from any thread."""
        ...

    def stop(self, timeout: float | None = None) -> bool:
        """Have one last step and the end; False if that was still under way after `timeout` seconds."""
        ...


class ThreadTicker:
    """The ticker of real life: a daemon thread."""

    def __init__(self, name: str, step: Step, end: Callable[[], object] | None = None) -> None:
        """`end` is called after the last step, on the same thread."""
        self._step = step
        self._end = end
        # Not an Event, whose wait makes a lock each time, in Python: a poll of 20 a second pays for it.
        self._pokes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """See Ticker."""
        self._thread.start()

    def poke(self) -> None:
        """See Ticker."""
        self._pokes.put(None)

    def stop(self, timeout: float | None = None) -> bool:
        """See Ticker. One that was never started has nothing to end."""
        self._ending = True
        self._pokes.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            # Emptied before the step, so that whatever is asked for during it is not slept through.
            while not self._pokes.empty():
                self._pokes.get_nowait()
            ending = self._ending
            delay = self._step()
            if ending:
                break
            with contextlib.suppress(queue.Empty):
                self._pokes.get(timeout=delay)
        if self._end is not None:
            self._end()
