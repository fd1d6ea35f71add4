"""A supervisor under test, in this process, with fake or real workers and a store that the test can look into."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from windlass import stores
from windlass.core.errors import StoreUnavailable
from windlass.core.job import Held, NewJob
from windlass.core.placement import job_id
from windlass.ports.store import ClaimRequest, Opened, Quota
from windlass.runtime import process
from windlass.runtime.member import Member, Phase
from windlass.runtime.supervisor import Supervisor

logging.getLogger("windlass").addHandler(logging.NullHandler())  # or the supervisor would add one for stderr
FAKE = os.path.join(os.path.dirname(__file__), "fake_worker.py")
PATIENCE = 10.0


def eventually(what: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Wait until `what()` is true, and answer it."""
    deadline = time.monotonic() + patience
    while not (answer := what()):
        assert time.monotonic() < deadline, f"never happened: {what.__code__.co_names}"
        time.sleep(0.005)
    return answer


def descendants(pid: int) -> list[int]:
    """The living children of another process."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


class Away:
    """A shell whose store comes and goes."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self.away = False
        self.asked = 0

    def run(self, plan: Any, timeout: float | None = None) -> Any:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("gone fishing")
        return self._shell.run(plan, timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shell, name)


class WithDirectory:
    """The memory store, with a directory for locks: as if the kernel judged."""

    def __init__(self, opened: Opened, directory: str | None) -> None:
        self._opened = opened
        self._directory = directory

    def run_directory(self) -> str | None:
        return self._directory

    def close(self) -> None:
        """The test still reads it; memory needs no closing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)


class Session:
    """`Session(...).run(driver)`: the supervisor on this (main) thread, `driver(session)` on another, then a stop."""

    def __init__(
        self,
        directory: str | None = None,
        *,
        processes: int = 2,
        stop_timeout: float = 2.0,
        shared: bool = True,
        **target: Any,
    ) -> None:
        self.opened: Opened = WithDirectory(stores.open("memory://"), directory)  # type: ignore[assignment]
        if shared:  # the supervisor and the hands of its fake workers are all in this process
            self.opened.store.capabilities |= {"durable"}
        self.supervisor = Supervisor(
            json.dumps(target),
            lambda _: self.opened,
            processes=processes,
            stop_timeout=stop_timeout,
            log_level="error",
            command=[sys.executable, FAKE],
        )
        self.failure: BaseException | None = None
        self._seq = 0

    def run(self, driver: Callable[[Session], None]) -> int:
        def drive() -> None:
            try:
                driver(self)
            except BaseException as error:
                self.failure = error
            finally:
                self.stop()

        others = process._children()  # multiprocessing's resource tracker, for one, lives as long as this process
        thread = threading.Thread(target=drive)
        thread.start()
        code = self.supervisor.run()
        thread.join()
        while left := process._children() - others:  # orphans of the last worker: this process is still a subreaper
            for pid in left:
                with contextlib.suppress(ChildProcessError, ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        process._prctl(process._PR_SET_CHILD_SUBREAPER, 0)
        if self.failure is not None:
            raise self.failure
        return code

    def stop(self) -> None:
        if not self.supervisor._stopping:
            self.supervisor._loop.post(self.supervisor.stop)

    @property
    def members(self) -> list[Member]:
        return list(self.supervisor._crew)

    def running(self, count: int, *, quarantine: bool = False) -> list[Member]:
        """Wait for `count` workers that may claim."""

        def look() -> list[Member] | None:
            found = [m for m in self.members if m.phase is Phase.RUNNING and m.quarantine == quarantine]
            return found if len(found) == count else None

        return eventually(look)

    def do(self, plan: Any) -> Any:
        return self.opened.shell.run(plan)

    def claimed(self, member: Member, count: int = 1, *, suspects: bool = False) -> list[Held]:
        """Enqueue jobs (unless for suspects) and claim them in a worker's name."""
        if not suspects:
            self.do(self.opened.store.enqueue([new_job() for _ in range(count)]))
        self._seq += 1
        request = ClaimRequest(count, (Quota("default", count),), suspects=suspects)
        claimed = self.do(self.opened.store.claim(member.id, self._seq, request))
        assert len(claimed.jobs) == count
        return list(claimed.jobs)

    def job(self, held: Held) -> Any:
        return self.do(self.opened.store.fetch([held.id]))[0]


def new_job(**fields: Any) -> NewJob:
    return NewJob(id=job_id(time.time_ns() // 1_000_000, os.urandom(10)), task="t", payload="[[],{}]", **fields)
