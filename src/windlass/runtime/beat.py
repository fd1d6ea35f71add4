"""The beat: one thread says for all workers of a supervisor that they live, whatever their jobs do.

It takes no lock that others hold for long, never logs (a full pipe behind standard error would stop it), and needs no
cooperation: what it reports of a worker it reads from the worker's slot table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from windlass.core.errors import StoreError
from windlass.ports.store import BeatAnswer, Opened, WorkerReport
from windlass.runtime.host import HOST, Host
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

    def __init__(
        self, opened: Opened, hold: float, post: Post, heard: Callable[[Round], None], host: Host = HOST
    ) -> None:
        self._opened = opened
        self._hold = hold
        self._post = post
        self._heard = heard
        self._reports: dict[str, Callable[[], WorkerReport]] = {}
        self._retry = FIRST_RETRY
        self._ending = False
        self._ticker = host.ticker("windlass-beat", self._step)

    def start(self) -> None:
        """Begin."""
        self._ticker.start()

    def add(self, worker_id: str, report: Callable[[], WorkerReport]) -> None:
        """Beat for this worker too, at once: its first beat registers it."""
        self._reports[worker_id] = report
        self._ticker.poke()

    def now(self) -> None:
        """Beat without waiting for the next time: there is something to tell."""
        self._ticker.poke()

    def remove(self, worker_id: str) -> None:
        """Beat no more for this worker. One beat may still be under way; a taken id does not come back by it."""
        self._reports.pop(worker_id, None)

    def stop(self) -> None:
        """End the thread."""
        self._ending = True
        self._ticker.stop()

    def _step(self) -> float:
        # Behind a store that is away the delay is capped, so that on its return everybody beats before anybody is
        # judged: a reaper needs a whole unbroken hold of its own.
        if self._ending or not self._beat_once():
            self._retry = FIRST_RETRY
            return self._hold / 3
        delay = self._retry
        self._retry = min(delay * 2, self._hold / 6)
        return delay

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
