"""The threads that run plain handlers."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from windlass.core.job import Failed, Outcome
from windlass.runtime.run import Run
from windlass.runtime.verdict import describe

Call = tuple[list[Any], dict[str, Any]]
"""Arguments of a handler, by position and by name."""


class Threads:
    """Daemon threads, made when needed, at most `most`: a stuck one must not keep the process from ending."""

    def __init__(
        self,
        most: int,
        loop: asyncio.AbstractEventLoop,
        execute: Callable[[Run, Call], Outcome | None],
        ended: Callable[[Run, Outcome | None], None],
    ) -> None:
        self._most = most
        self._loop = loop
        self._execute = execute
        self._ended = ended
        self._work: SimpleQueue[tuple[Run, Call] | None] = SimpleQueue()
        self._out: deque[tuple[Run, Outcome | None]] = deque()
        self._threads: list[threading.Thread] = []
        self._busy = 0
        self._waking = False

    def submit(self, run: Run, call: Call) -> None:
        """Run it in a thread, with a copy of the caller's context variables."""
        self._busy += 1
        if self._busy > len(self._threads) and len(self._threads) < self._most:
            thread = threading.Thread(target=self._serve, name=f"windlass-job-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._work.put((run, call))

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            run, call = item
            outcome: Outcome | None
            try:
                outcome = contextvars.copy_context().run(self._execute, run, call)
            except BaseException as error:  # whatever it was: a thread that dies silently leaves its job running
                outcome = Failed(describe(error))
            self._out.append((run, outcome))
            # One wake-up for however many end before the loop looks: a wake-up each cost more than the no-op itself.
            if not self._waking:
                self._waking = True
                try:
                    self._loop.call_soon_threadsafe(self._collect)
                except RuntimeError:  # the loop was closed: the worker is gone, and its jobs are reaped
                    return
            del item, run, call, outcome

    def _collect(self) -> None:
        self._waking = False
        while self._out:
            run, outcome = self._out.popleft()
            self._busy -= 1
            self._ended(run, outcome)

    def close(self) -> None:
        """End the idle threads; one that is stuck in a handler ends with the process."""
        for _ in self._threads:
            self._work.put(None)
