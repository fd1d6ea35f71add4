"""Processes: how they are started, how they are tied to their parent, what becomes of what they leave behind.

Linux gives two things that others lack: a parent-death signal (a worker cannot outlive its supervisor, even in a C
call that never returns), and subreapers (an ffmpeg whose worker died becomes the supervisor's child, not init's, so
that it can be waited for before its job runs again). Elsewhere the closed socket has to do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import NoReturn

TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MARK = "WINDLASS_WORKER"
"""Environment variable that a worker's descendants inherit, so that orphans can be told apart."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform == "linux"


def spawn(command: Sequence[str], mark: str, pass_fds: Sequence[int], *, stdin: int | None = None) -> int:
    """Start a child, from the main thread (its parent-death signal follows the thread); answers its pid.

    Terminal signals are blocked across the start and stay blocked in the child until it is ready to ignore them: a
    Ctrl-C that arrives while it boots must not kill it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
    try:
        child = subprocess.Popen(
            command, pass_fds=tuple(pass_fds), stdin=stdin, env={**os.environ, MARK: mark}, close_fds=True
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    child.returncode = 0  # the supervisor waits for all children itself; Popen must not
    return child.pid


def die_with_parent(parent: int) -> None:
    """Be killed when the parent's main thread ends; exit at once if it has ended. For a child's main thread."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    if not LINUX:
        threading.Thread(target=_watch_parent, args=(parent,), name="windlass-parent", daemon=True).start()


def end_fork(error: BaseException | None = None) -> NoReturn:
    """End a child that a handler forked and that came back out of the handler, as the interpreter would have: by then
    the parent's worker, its loop and its descriptors are this process's only in appearance."""
    code = error.code if isinstance(error, SystemExit) else 0 if error is None else 1
    os._exit(code & 0xFF if isinstance(code, int) else int(code is not None))


def _watch_parent(parent: int) -> None:
    """For systems without a parent-death signal; a C call that keeps the GIL outlives its parent until it returns."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def become_subreaper() -> None:
    """Inherit the orphans of dead descendants, where the system can."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a child that has not been waited for (so that its pid is still its own)."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def exits() -> Iterable[tuple[int, int]]:
    """Wait for every child that has ended, adopted ones too; (pid, status) each. Never blocks."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def describe_exit(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"killed by signal {-code}"


def orphans(mark: str) -> list[int]:
    """Children of this process, adopted ones, that descend from the dead child with this mark."""
    return [pid for pid in _children() if _descends(pid, f"{MARK}={mark}".encode())]


def _descends(pid: int, wanted: bytes) -> bool:
    """Whether its environment holds `wanted`; yes while the kernel has not laid that out yet."""
    with contextlib.suppress(OSError):
        environ = _read(pid, "environ")
        if environ:
            return wanted in environ.split(b"\0")
        # Between an exec and the first instruction there are neither arguments nor environment, and whoever started
        # it may have died meanwhile: for this moment it must count. A zombie has no `exe`, which raises.
        os.readlink(f"/proc/{pid}/exe")
        return not _read(pid, "cmdline")
    return False


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def _children() -> set[int]:
    """Children of this process; empty where /proc cannot say."""
    pids: set[int] = set()
    if not LINUX:
        return pids
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children", "rb") as file:
                pids.update(map(int, file.read().split()))
    return pids


def _prctl(option: int, value: int) -> None:
    if LINUX:
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
