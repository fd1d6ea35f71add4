"""Every test ends with an empty world: no process, thread, descriptor or file of its making is left behind.

A test that leaks makes a later one fail, far from the cause; so the leak is the failure, and it is the leaker's.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: the machine may be busy. Always the same examples for a sample, new ones for anything larger, as elsewhere.
SAMPLE = os.environ.get("WINDLASS_PROOF", "") in {"", "sample"}
settings.register_profile("patient", deadline=None, derandomize=SAMPLE)
settings.load_profile("patient")

REPOSITORY = Path(__file__).parent.parent
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; programs of ours would go on being deaf
    signal.signal(signal.SIGINT, signal.default_int_handler)

GRACE = 3.0  # seconds for things already told to end
FD_ALLOWANCE_TEST = 4  # imports and caches open some for good
FD_ALLOWANCE_SESSION = 24
LINUX = os.path.isdir("/proc/self/fd")

# A process started by a test, even one whose parent was killed, carries this mark in its environment. It names this
# very process, since tests may run in several at once.
MARK = f"WINDLASS_TEST_WORLD={os.getpid()}-{time.time_ns()}"
os.environ.update([MARK.split("=")])


def processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()} if LINUX else set()


def children() -> set[int]:
    """Of this process, living or never waited for."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task") if LINUX else []:
        with contextlib.suppress(OSError):  # a thread that ended while we looked
            found.update(map(int, Path(f"/proc/self/task/{task}/children").read_text().split()))
    return found


def marked(pid: int) -> bool:
    try:
        return MARK.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it ended while we looked
        return False


def described(pid: int) -> str:
    """What a process is, or nothing if it has gone, or is one that Python keeps for its own use."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
    kept = "multiprocessing.resource_tracker" in line or "multiprocessing.forkserver" in line
    return "" if kept else f"process {pid}: {line or 'ended, and nobody waited for it'}"


def left_processes(before: set[int]) -> dict[int, str]:
    """Our own children, and whatever carries our mark although its parent has gone."""
    ours = children()
    new = [pid for pid in (processes() | ours) - before if pid in ours or marked(pid)]
    return {pid: words for pid in new if (words := described(pid))}


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon}


def descriptors() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd") if LINUX else []:
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the one that listed them
            continue
    return found


def mounts(below: Path) -> list[str]:
    """File systems that were mounted in our temporary directory."""
    lines = Path("/proc/self/mounts").read_text().splitlines() if LINUX else []
    return [place for line in lines if (place := line.split()[1]).startswith(f"{below}/")]


def files() -> set[str]:
    """Databases, sockets and dumps in the repository itself: a test that forgot to say where its store is."""
    return {name for name in os.listdir(REPOSITORY) if name.startswith("core.") or ".db" in name or name.endswith(".sock")}


def settled(look: Callable[[], list[str]]) -> list[str]:
    """What is still there after a moment's grace; almost always nothing, and then at once."""
    deadline = time.monotonic() + GRACE
    while (left := look()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def leaked_descriptors(before: dict[str, str], allowance: int) -> list[str]:
    now = descriptors()
    if len(now) - len(before) > allowance:
        gc.collect()  # an object in a cycle is not yet a leak
        now = descriptors()
    new = [f"descriptor {fd}: {target}" for fd, target in now.items() if before.get(fd) != target]
    return new if len(now) - len(before) > allowance else []


@pytest.fixture(autouse=True)
def empty_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    pids, ours, open_before, named = processes(), threads(), descriptors(), files()
    yield
    left = settled(lambda: list(left_processes(pids).values()))
    for pid in left_processes(pids):  # it fails this test; it must not trouble the next
        os.kill(pid, signal.SIGKILL)
    left += settled(lambda: [f"thread {thread.name}" for thread in threads() - ours if thread.is_alive()])
    left += leaked_descriptors(open_before, FD_ALLOWANCE_TEST)
    for place in mounts(tmp_path_factory.getbasetemp()):
        left.append(f"mount {place}")
        subprocess.run(["umount", "--lazy", place], check=True)
    left += [f"file {name} in the repository" for name in files() - named]
    assert not left, "the test left behind:\n  " + "\n  ".join(left)


@pytest.fixture(autouse=True)
def _windlass_guard() -> None:
    """Instead of the one of our own pytest plugin, which may be there or not: it is for applications, and our tests open
    stores in places where nobody should."""


@pytest.fixture(autouse=True, scope="session")
def no_slow_leak() -> Iterator[None]:
    """What each test may leave by the allowance may not add up."""
    before = descriptors()
    yield
    left = leaked_descriptors(before, FD_ALLOWANCE_SESSION)
    assert not left, "the session left behind:\n  " + "\n  ".join(left)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the proofs went through, all variants of a test together: a run whose faults missed proves nothing."""
    sums: dict[str, Counter[str]] = {}
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for name, figures in report.user_properties if report.when == "call" else ():
            if name == "proof" and figures:
                found = sums.setdefault(report.nodeid.partition("[")[0], Counter())
                found.update(runs=1, **{what: count for what, count in figures.items() if isinstance(count, int)})
    if sums:
        terminalreporter.section(f"proofs ({os.environ.get('WINDLASS_PROOF') or 'sample'})")
    for test, found in sorted(sums.items()):
        terminalreporter.line(f"{test}: " + ", ".join(f"{what} {count:,}" for what, count in found.items()))
