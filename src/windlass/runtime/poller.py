"""The slow poll behind the hints: losing a hint costs latency, never a job."""

from __future__ import annotations

from collections.abc import Callable

from windlass.core.errors import StoreReplaced
from windlass.ports.store import Opened

EVERY = 0.05
"""Twenty looks a second cost 0.1 % of a core; one every millisecond was measured at almost 5 %."""


class Poller:
    """A Service that calls `changed` whenever another connection may have committed something, and `replaced`, once, if
    the store that is open has become one that nobody else will ever open."""

    name = "poller"

    def __init__(
        self, opened: Opened, changed: Callable[[], object], replaced: Callable[[StoreReplaced], object]
    ) -> None:
        self._opened = opened
        self._replaced = replaced
        self._ended = False
        self._changed = changed
        self._last = -1

    def start(self) -> None:
        """See Service."""

    def tick(self) -> float:
        """See Service."""
        if self._ended:
            return EVERY
        try:
            number = self._opened.shell.changed()
        except StoreReplaced as problem:
            self._ended = True
            self._replaced(problem)
            return EVERY
        if number != self._last:
            self._last = number
            self._changed()
        return EVERY

    def stop(self) -> None:
        """See Service."""
