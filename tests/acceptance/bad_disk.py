"""A disk under a worker that fails at the n-th request, writes down that it did, and then at another."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable

from tests.faults import disk
from windlass.testing import ledger

ACTS = ("eio", "full", "torn", "read")


class BadDisk(disk.Disk):
    """Fails once in about `every` requests."""

    def __init__(self, directory: str, every: int) -> None:
        super().__init__()
        self._directory = directory
        self._every = every
        self._dice = random.Random(os.getpid() ^ time.time_ns())
        self._lock = threading.Lock()  # connections of several threads ask
        self._draw()

    def ask(self, kind: str, file: str, perform: Callable[[], int], half: Callable[[], int] | None = None) -> int:
        """See Disk."""
        code = super().ask(kind, file, perform, half)
        with self._lock:
            if self.struck:
                name = f"disk {'eio' if self._name == 'read' else self._name}: {kind}"
                ledger.write(self._directory, "fault", note=name, kind="disk", pids=(os.getpid(),))
                self._draw()
        return code

    def _draw(self) -> None:
        self._name = self._dice.choice(ACTS)
        reads = self._name == "read"
        self.arm("eio" if reads else self._name, self._dice.randint(1, 2 * self._every), reads=reads)


kept: list[object] = []


def install(directory: str, every: int) -> None:
    """Whatever this process opens from now on lies on a bad disk."""
    kept.append(disk._Vfs(BadDisk(directory, every)))  # the default, as long as it is there
