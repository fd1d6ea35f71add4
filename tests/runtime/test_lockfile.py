"""The kernel's word on who is alive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from windlass.runtime import lockfile


def holder(lock: lockfile.WorkerLock, program: str = "import time; time.sleep(60)") -> subprocess.Popen[bytes]:
    """A process that inherits the lock, as a worker does."""
    return subprocess.Popen([sys.executable, "-c", program], pass_fds=[lock.fd])


def test_the_lock_lives_as_long_as_any_process_that_inherited_it(tmp_path: Path) -> None:
    """I8: a worker is dead when it and all its process slots are."""
    lock = lockfile.create(str(tmp_path), "w-1")
    worker, slot = holder(lock), holder(lock)
    assert lockfile.obtain(str(tmp_path), "w-1") is None
    lock.close()
    for process in (worker, slot):
        assert lockfile.obtain(str(tmp_path), "w-1") is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    got = lockfile.obtain(str(tmp_path), "w-1")
    assert got is not None
    assert lockfile.obtain(str(tmp_path), "w-1") is None  # one judge at a time
    got.remove()
    assert os.listdir(tmp_path) == []


def test_a_stopped_process_is_not_dead(tmp_path: Path) -> None:
    lock = lockfile.create(str(tmp_path), "w-1")
    worker = holder(lock)
    lock.close()
    worker.send_signal(signal.SIGSTOP)
    assert lockfile.obtain(str(tmp_path), "w-1") is None
    worker.kill()
    worker.wait()


def test_nothing_is_known_of_a_worker_without_a_file(tmp_path: Path) -> None:
    assert lockfile.obtain(str(tmp_path), "w-1") is None
    assert not lockfile.exists(str(tmp_path), "w-1")
    assert lockfile.obtain(str(tmp_path / "nowhere"), "w-1") is None
    assert lockfile.sweep(str(tmp_path / "nowhere"), set()) == 0


def test_a_sweep_takes_what_is_dead_and_unknown(tmp_path: Path) -> None:
    for name in ("w-dead", "w-known"):
        lockfile.create(str(tmp_path), name).close()
    alive = lockfile.create(str(tmp_path), "w-alive")
    (tmp_path / "hint-1.sock").touch()
    assert lockfile.sweep(str(tmp_path), {"w-known"}) == 1
    assert sorted(os.listdir(tmp_path)) == ["hint-1.sock", "worker-w-alive.lock", "worker-w-known.lock"]
    alive.remove()


def test_a_file_swept_away_while_it_is_made_is_made_again(tmp_path: Path, monkeypatch: object) -> None:
    """Between its creation and its lock a file looks stale; whoever makes it must notice."""
    flock = lockfile.fcntl.flock
    swept = []

    def sweep_first(fd: int, operation: int) -> None:
        if not swept:
            swept.append(os.unlink(lockfile.path_of(str(tmp_path), "w-1")))
        flock(fd, operation)

    lockfile.fcntl.flock = sweep_first
    try:
        lock = lockfile.create(str(tmp_path), "w-1")
    finally:
        lockfile.fcntl.flock = flock
    assert lockfile.obtain(str(tmp_path), "w-1") is None
    lock.remove()
    assert lockfile.obtain(str(tmp_path), "w-1") is None
    assert os.listdir(tmp_path) == []
