"""The slow poll behind the hints: losing a hint costs latency, never a job."""

from __future__ import annotations

from collections.abc import Callable

from windlass.ports.store import Opened

EVERY = 0.05
"""Twenty looks a second cost 0.1 % of a core; one every millisecond was measured at almost 5 %."""


class Poller:
    """A Service that calls `changed` whenever another connection may have committed something."""

    name = "poller"

    def __init__(self, opened: Opened, changed: Callable[[], object]) -> None:
        self._opened = opened
        self._changed = changed
        self._last = -1

    def start(self) -> None:
        """See Service."""

    def tick(self) -> float:
        """See Service."""
        number = self._opened.shell.changed()
        if number != self._last:
            self._last = number
            self._changed()
        return EVERY

    def stop(self) -> None:
        """See Service."""
