"""Dead letters in a worker's log: a line for each, as many as anybody would read, once the store has them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import msgspec

from windlass.core.job import ErrorInfo, Settled, State, Transition
from windlass.core.words import brief

log = logging.getLogger("windlass.worker")

LINES = 10
"""In a second; when all jobs of a task die, `windlass dead groups` says more than a log."""


class Letters:
    """Says which jobs have died. Only the worker that decided so knows their tasks."""

    def __init__(self) -> None:
        self._tasks: dict[str, str] = {}
        self._since = float("-inf")
        self._said = 0

    def expect(self, transition: Transition, task: str) -> None:
        """This is going to be settled; what does not die is none of ours."""
        if transition.state is State.DEAD:
            self._tasks[transition.id] = task

    def tell(self, batch: Iterable[Transition], answers: Sequence[Settled], now: float) -> None:
        """What the store has answered to those that were settled; `now` is in seconds, of any clock that only runs."""
        if not self._tasks:
            return
        for transition, answer in zip(batch, answers, strict=False):
            task = self._tasks.pop(transition.id, None)
            if task is not None and answer == Settled.APPLIED and transition.state is State.DEAD:
                self._say(transition, task, now)

    def _say(self, transition: Transition, task: str, now: float) -> None:
        if now - self._since >= 1.0:
            self._since, self._said = now, 0
        self._said += 1
        if self._said == LINES + 1:
            log.warning("more jobs have died within a second than are told here; see `windlass dead groups`")
        if self._said <= LINES:
            facts = {"job": transition.id, "task": task, "reason": transition.reason, **_error(transition.error)}
            log.warning("a job has died", extra={"facts": facts})


def _error(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    found = msgspec.json.decode(text, type=ErrorInfo)
    return {"error": brief(f"{found.kind}: {found.message}"), "group": found.fingerprint}
