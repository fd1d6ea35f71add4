"""Standard error that nobody reads, or that is not there: no reason to stop working."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.rig import HERE, PROGRAM, REPOSITORY, Rig, Supervised, eventually, rig
from windlass.core.job import State


def supervised(r: Rig, stderr: int | None) -> Supervised:
    """A supervisor whose standard error is `stderr`, or closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "worker", str(HERE / "proving_ground.py"), "--processes", "1"],
        cwd=REPOSITORY,
        env={**os.environ, **r.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        preexec_fn=(lambda: os.close(2)) if stderr is None else None,  # noqa: PLW1509 - as the shell's 2>&- does
    )
    log = r.directory / f"log-{len(r.supervised)}"
    log.touch()
    r.supervised.append(Supervised(process, log))
    return r.supervised[-1]


@pytest.fixture
def full() -> Iterator[int]:
    """The end of a pipe that takes no byte more."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"-" * 65_536)
    except BlockingIOError:
        os.set_blocking(write, True)
    yield write
    os.close(read)
    os.close(write)


def test_a_full_pipe_stops_no_supervisor(tmp_path: Path, full: int) -> None:
    with rig(tmp_path) as r:
        supervisor = supervised(r, full)
        [first] = eventually(r.workers)
        os.kill(first.pid, signal.SIGKILL)
        [second] = eventually(lambda: [w for w in r.workers() if w.pid != first.pid])
        [job] = r.enqueue("good", ())
        eventually(lambda: r.job(job).state is State.COMPLETED)
        assert r.job(job).result == str(second.pid)
        assert supervisor.stop() == 0


def test_a_closed_standard_error_keeps_nobody_from_working(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        supervisor = supervised(r, None)
        [job] = r.enqueue("good", ())
        eventually(lambda: r.job(job).state is State.COMPLETED)
        assert supervisor.stop() == 0
