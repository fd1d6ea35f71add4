"""The lock files of workers, as the kernel keeps them: held while any process of the worker lives, by whatever end."""

from __future__ import annotations

from collections.abc import Callable

from windlass.testing.simulation.scheduler import Process


class SimulatedLock:
    """See runtime.lockfile.WorkerLock: one process's share."""

    def __init__(self, locks: Locks, fd: int, worker: str, holder: Process) -> None:
        self._locks = locks
        self.fd = fd
        self.path = worker
        self._holder = holder

    def close(self) -> None:
        """See WorkerLock."""
        self._locks.let_go(self.path, self._holder)
        self.fd = -1

    def remove(self) -> None:
        """See WorkerLock."""
        self._locks.files.pop(self.path, None)
        self.close()


class Locks:
    """All of one machine, in the place of the functions of `runtime.lockfile`."""

    def __init__(self, acting: Callable[[], Process]) -> None:
        """`acting` answers the process that calls."""
        self._acting = acting
        self.files: dict[str, list[Process]] = {}
        """Worker id -> who holds it; a dead holder holds nothing."""
        self._by_fd: dict[int, str] = {}
        self._fds = 1_000

    def create(self, _directory: str, worker: str) -> SimulatedLock:
        """See lockfile.create."""
        self.files[worker] = []
        return self._lock(worker)

    def obtain(self, _directory: str, worker: str) -> SimulatedLock | None:
        """See lockfile.obtain."""
        if worker not in self.files or any(holder.alive for holder in self.files[worker]):
            return None
        return self._lock(worker)

    def exists(self, _directory: str, worker: str) -> bool:
        """See lockfile.exists."""
        return worker in self.files

    def sweep(self, _directory: str, known: set[str]) -> int:
        """See lockfile.sweep."""
        stale = [w for w, holders in self.files.items() if w not in known and not any(h.alive for h in holders)]
        for worker in stale:
            del self.files[worker]
        return len(stale)

    def share(self, fd: int, process: Process) -> None:
        """A descriptor of the lock is passed on."""
        worker = self._by_fd.get(fd, "")
        if worker in self.files:
            self.files[worker].append(process)

    def let_go(self, worker: str, process: Process) -> None:
        """One share less."""
        holders = self.files.get(worker, [])
        if process in holders:
            holders.remove(process)

    def _lock(self, worker: str) -> SimulatedLock:
        self._fds += 1
        self._by_fd[self._fds] = worker
        process = self._acting()
        self.files[worker].append(process)
        return SimulatedLock(self, self._fds, worker, process)
