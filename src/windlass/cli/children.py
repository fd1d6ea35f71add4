"""A worker of our own, for commands that show or measure something and then clean up."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from windlass.cli.exits import Refused

if TYPE_CHECKING:
    from windlass import Windlass

START_WITHIN = 30.0
END_WITHIN = 20.0


@contextlib.contextmanager
def worker(app: Windlass, target: str, processes: int, directory: str) -> Iterator[None]:
    """A supervisor with `processes` workers on `app`'s store, in `directory`; ended, and waited for, on the way out."""
    log = os.path.join(directory, "worker.log")
    with open(log, "wb") as output:
        child = _start(app.settings.url, target, processes, directory, output)
    try:
        _await_workers(app, processes, child, log)
        yield
    finally:
        child.terminate()
        try:
            child.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _start(url: str, target: str, processes: int, directory: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "windlass", "worker", target, "--processes", str(processes)]
    return subprocess.Popen(
        command,
        cwd=directory,
        env={**os.environ, "WINDLASS_URL": url},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the command, which then ends its worker in order
    )


def _await_workers(app: Windlass, processes: int, child: subprocess.Popen[bytes], log: str) -> None:
    deadline = time.monotonic() + START_WITHIN
    while len([each for each in app.client.workers() if each.slots]) < processes:
        if child.poll() is not None or time.monotonic() > deadline:
            with open(log, encoding="utf-8", errors="replace") as file:
                said = file.read().strip().splitlines()
            raise Refused("the worker did not start: " + (said[-1] if said else "it said nothing"))
        time.sleep(0.02)
