"""What a chaos run stands on: a store, and what goes wrong below it while processes are killed and stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.acceptance.rig import Rig, Supervised
from tests.acceptance.test_leases import stop_between_writes

BAD_DISK = 400
"""About so many requests of a worker's disk from one failure to the next; under all supervisors but the first."""

Pids = Callable[[int], list[int]]
"""The processes at a place: a supervisor with all below it, or behind the last of those the producer."""


class Ground(Protocol):
    """See above."""

    url: str
    """Of the store, for who is to be in no trouble; empty for a file in the rig's directory."""

    @property
    def enough(self) -> bool:
        """Whether there was trouble of every kind."""
        ...

    def environment(self, place: int) -> dict[str, str]:
        """What a process at that place is told."""
        ...

    def stop(self, r: Rig, victim: Supervised) -> None:
        """SIGSTOP to all of it, where that stops nobody else."""
        ...

    def begin(self, directory: Path, pids: Pids) -> None:
        """Trouble, which is written down in this directory, until `end`."""
        ...

    def end(self) -> None:
        """No more of it; what was under way is over."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


class BadDisks:
    """A file, on disks that fail now and then: see bad_disk.py, which is part of the workers."""

    url = ""
    enough = True
    """Disks count for themselves."""

    def environment(self, place: int) -> dict[str, str]:
        """See Ground."""
        return {"BAD_DISK": str(BAD_DISK)} if place else {}

    def stop(self, r: Rig, victim: Supervised) -> None:
        """See Ground."""
        stop_between_writes(r, victim)

    def begin(self, directory: Path, pids: Pids) -> None:
        """See Ground."""

    def end(self) -> None:
        """See Ground."""

    def close(self) -> None:
        """See Ground."""
