"""The one shape of everything that is done again and again: start, stop, and a tick that says when to come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Durations are measured on it; tests hand in one that they turn by hand."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class SystemClock:
    """This machine's."""

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()


class Service(Protocol):
    """A background duty."""

    name: str

    def start(self) -> None:
        """Once, before the first tick."""
        ...

    def tick(self) -> float:
        """Do what is due now; answer the seconds until there may be more."""
        ...

    def stop(self) -> None:
        """Once, after the last tick; gives back what others would otherwise wait for."""
        ...


def lease_clock() -> float:
    """Seconds on the clock that goes on while the machine is suspended (as the store's clock does), where there is one:
    a lease may have run out during a sleep."""
    return time.clock_gettime(_LEASE_CLOCK)


_LEASE_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

Post = Callable[[Callable[[], object]], None]
"""How a thread hands a call to the loop that it works for."""
