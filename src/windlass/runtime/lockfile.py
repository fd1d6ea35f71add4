"""One small locked file per worker: while any process of it lives, the kernel holds the lock; afterwards, nobody does.

No pid, no clock, no container can confuse it. The lock (`flock`) belongs to the open file, not to a process: the
supervisor opens it, the worker and its process slots inherit it, and the kernel lets go with the last of them, however
they ended. The supervisor keeps its own share until it has buried the worker: it alone knows how it died, and what its
jobs had started that still lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

PREFIX, SUFFIX = "worker-", ".lock"


class WorkerLock:
    """An open, locked file. Whoever has one either is the worker or knows that the worker is dead."""

    __slots__ = ("fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    def close(self) -> None:
        """Close this process's share of the lock; it is free once every other share is closed too."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Delete the file while it is still locked, then let go: nobody can lock a file that is about to vanish."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.close()


def path_of(directory: str, worker_id: str) -> str:
    """Where the lock file of a worker is."""
    return os.path.join(directory, f"{PREFIX}{worker_id}{SUFFIX}")


def create(directory: str, worker_id: str) -> WorkerLock:
    """Make and lock the file of a new worker; must be done before its first beat makes it known to others."""
    os.makedirs(directory, exist_ok=True)
    path = path_of(directory, worker_id)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _is_at(fd, path):
            return WorkerLock(path, fd)
        os.close(fd)  # a sweep took it for a stale one between open and lock


def obtain(directory: str, worker_id: str) -> WorkerLock | None:
    """The lock of a worker all of whose processes are dead; None while one lives, or where there is no such file."""
    path = path_of(directory, worker_id)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(fd, path):
            return WorkerLock(path, fd)
    except BlockingIOError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def exists(directory: str, worker_id: str) -> bool:
    """Whether the kernel can be asked about this worker at all."""
    return os.path.exists(path_of(directory, worker_id))


def sweep(directory: str, known: set[str]) -> int:
    """Remove the files of dead workers that the store no longer knows; answers how many."""
    removed = 0
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return 0
    for name in names:
        worker_id = name[len(PREFIX) : -len(SUFFIX)]
        if name.startswith(PREFIX) and name.endswith(SUFFIX) and worker_id not in known:
            lock = obtain(directory, worker_id)
            if lock is not None:
                lock.remove()
                removed += 1
    return removed


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
