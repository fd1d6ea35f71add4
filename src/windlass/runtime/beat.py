"""The beat: one thread says for all workers of a supervisor that they live, whatever their jobs do.

It takes no lock that others hold for long, never logs (a full pipe behind standard error would stop it), and needs no
cooperation: what it reports of a worker it reads from the worker's slot table.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from windlass.core.errors import StoreError
from windlass.ports.store import BeatAnswer, Opened, WorkerReport
from windlass.runtime.service import Post, lease_clock

FIRST_RETRY = 0.1


class Round:
    """What one beat brought back: answers, or the error that there were none; `sent` is when it was sent."""

    __slots__ = ("answers", "error", "sent")

    def __init__(self, sent: float, answers: Sequence[BeatAnswer], error: Exception | None) -> None:
        self.sent = sent
        self.answers = answers
        self.error = error


class Beat:
    """Beats every hold/3 for whoever was added; what it learns goes to `heard`, by way of `post`."""

    def __init__(self, opened: Opened, hold: float, post: Post, heard: Callable[[Round], None]) -> None:
        self._opened = opened
        self._hold = hold
        self._post = post
        self._heard = heard
        self._reports: dict[str, Callable[[], WorkerReport]] = {}
        self._now = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="windlass-beat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def add(self, worker_id: str, report: Callable[[], WorkerReport]) -> None:
        """Beat for this worker too, at once: its first beat registers it."""
        self._reports[worker_id] = report
        self._now.set()

    def remove(self, worker_id: str) -> None:
        """Beat no more for this worker. One beat may still be under way; a taken id does not come back by it."""
        self._reports.pop(worker_id, None)

    def stop(self) -> None:
        """End the thread."""
        self._ending = True
        self._now.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        # Behind a store that is away the delay is capped, so that on its return everybody beats before anybody is
        # judged: a reaper needs a whole unbroken hold of its own.
        retry = FIRST_RETRY
        while not self._ending:
            self._now.clear()
            failed = self._beat_once()
            self._now.wait(retry if failed else self._hold / 3)
            retry = min(retry * 2, self._hold / 6) if failed else FIRST_RETRY

    def _beat_once(self) -> bool:
        reports = [report() for report in list(self._reports.values())]
        if not reports:
            return False
        sent = lease_clock()
        answers: list[BeatAnswer] = []
        error: Exception | None = None
        try:
            answers = self._opened.shell.run(self._opened.store.beat(reports), timeout=self._hold / 6)
        except StoreError as problem:
            error = problem
        except Exception as problem:
            error = problem
        outcome = Round(sent, answers, error)
        self._post(lambda: self._heard(outcome))
        return error is not None
