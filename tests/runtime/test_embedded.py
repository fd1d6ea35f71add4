"""A worker inside the user's own process."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.runtime.harness import eventually, new_job
from tests.worker.harness import task
from windlass import stores
from windlass.core.job import State
from windlass.ports.store import ClaimRequest, Death, Quota, Selection, WorkerReport
from windlass.runtime.embedded import Embedded, Settings
from windlass.runtime.registry import Mode, Registry

HOLD = 0.6


class World:
    """A store, an embedded worker, and handlers that the test can look into."""

    def __init__(self, url: str) -> None:
        self.opened: Any = stores.open(url)
        self.run = self.opened.shell.run
        self.store = self.opened.store
        self.run(self.store.migrate())
        self.ran: list[str] = []
        self.gate = threading.Event()
        tasks = [
            task("t", lambda: self.ran.append("t")),
            task("wait", self._wait, Mode.THREAD),
            task("sleep", self._sleep),
            task("child", lambda: None, Mode.PROCESS),
        ]
        registry = Registry(tasks={each.name: each for each in tasks})
        self.embedded = Embedded(registry, lambda: self.opened, Settings(hold=HOLD, concurrency=4))

    def _wait(self) -> None:
        self.ran.append("wait")
        self.gate.wait(20)

    async def _sleep(self) -> None:
        self.ran.append("sleep")
        await asyncio.sleep(60)

    def enqueue(self, name: str = "t") -> str:
        import msgspec

        job = msgspec.structs.replace(new_job(), task=name)
        self.run(self.store.enqueue([job]))
        self.opened.shell.hint()
        return job.id

    def state(self, job: str) -> State:
        return self.run(self.store.fetch([job]))[0].state

    def workers(self) -> list[Any]:
        return [worker for worker in self.run(self.store.workers()) if not worker.taken]

    def reaches(self, job: str, state: State) -> None:
        eventually(lambda: self.state(job) is state)


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db")
    yield made
    made.gate.set()
    made.embedded.stop(1.0)
    made.opened.close()


def test_it_runs_jobs_and_leaves_without_a_trace(world: World) -> None:
    before = set(threading.enumerate())
    world.embedded.start()
    world.embedded.start()  # twice is once
    assert world.embedded.running
    assert len(world.workers()) == 1
    world.reaches(world.enqueue(), State.COMPLETED)
    assert world.embedded.stop()
    assert not world.embedded.running
    assert world.workers() == []
    directory = world.opened.run_directory()
    assert not directory or os.listdir(directory) == []
    assert {t.name for t in set(threading.enumerate()) - before} <= {"windlass-store"}  # the store's own, for its loop


def test_it_starts_again_under_another_name(world: World) -> None:
    world.embedded.start()
    [first] = world.workers()
    world.embedded.stop()
    world.embedded.start()
    [second] = world.workers()
    assert first.id != second.id
    world.reaches(world.enqueue(), State.COMPLETED)


def test_a_job_waits_no_longer_than_a_hint(world: World) -> None:
    world.embedded.start()
    world.reaches(world.enqueue(), State.COMPLETED)
    best = 9.0
    for _ in range(5):
        time.sleep(0.02)
        began = time.monotonic()
        job = world.enqueue()
        while world.state(job) is not State.COMPLETED:
            time.sleep(0.0005)
        best = min(best, time.monotonic() - began)
    assert best < 0.1


def test_a_stop_hands_back_what_does_not_end(world: World) -> None:
    """I26."""
    world.embedded.start()
    job = world.enqueue("sleep")
    eventually(lambda: world.ran)
    assert world.embedded.stop(0.05)
    found = world.run(world.store.fetch([job]))[0]
    assert (found.state, found.attempt, found.losses) == (State.QUEUED, 0, 0)


def test_a_handler_that_cannot_be_stopped_is_said(world: World) -> None:
    world.embedded.start()
    job = world.enqueue("wait")
    eventually(lambda: world.ran)
    assert not world.embedded.stop(0.05)
    world.gate.set()
    assert world.embedded.stop(5.0)
    world.reaches(job, State.COMPLETED)


def test_a_cancellation_arrives_with_the_beat(world: World) -> None:
    world.embedded.start()
    job = world.enqueue("sleep")
    eventually(lambda: world.ran)
    world.run(world.store.cancel(Selection(ids=(job,))))
    world.reaches(job, State.CANCELLED)


def test_taken_over_it_registers_anew(world: World) -> None:
    """I4."""
    world.embedded.start()
    [first] = world.workers()
    world.run(world.store.reap([Death(worker=first.id, observed=True)]))
    eventually(lambda: [w for w in world.workers() if w.id != first.id])
    world.reaches(world.enqueue(), State.COMPLETED)


def test_suspects_run_alone_and_first(world: World) -> None:
    """I6: what a dead process held may be what killed it."""
    world.run(world.store.beat([WorkerReport(id="w-dead", supervisor="s", host="h", pid=1, hold=10**7)]))
    jobs = [world.enqueue() for _ in range(3)]
    world.run(world.store.claim("w-dead", 1, ClaimRequest(3, (Quota("default", 3),))))
    world.run(world.store.reap([Death(worker="w-dead", observed=True)]))
    states = []
    world.embedded.start()
    states.append(world.workers()[0].state)
    for job in jobs:
        world.reaches(job, State.COMPLETED)
    eventually(lambda: [w.state for w in world.workers()] == ["running"])
    assert states == ["quarantine"]
    world.reaches(world.enqueue(), State.COMPLETED)


def test_the_store_knows_whether_it_has_come_up(world: World) -> None:
    """So that whoever asks why a job waits is told of the start hook, and not for longer than it takes."""
    gate = threading.Event()

    async def patient() -> None:
        while not gate.is_set():
            await asyncio.sleep(0.01)

    world.embedded._registry = msgspec.structs.replace(world.embedded._registry, start_hooks=[patient])
    world.embedded._settings = msgspec.structs.replace(world.embedded._settings, hold=60.0)  # no beat but for a reason
    world.embedded.start()
    assert [w.state for w in world.workers()] == ["starting"]
    gate.set()
    eventually(lambda: [w.state for w in world.workers()] == ["running"])


def test_what_needs_a_supervisor_is_left_to_one(world: World) -> None:
    world.embedded.start()
    job = world.enqueue("child")
    assert "child" not in world.workers()[0].tasks
    world.reaches(world.enqueue(), State.COMPLETED)
    eventually(lambda: world.state(job) is State.SCHEDULED)
    assert world.run(world.store.fetch([job]))[0].reason == "unknown_task"


def test_a_child_process_starts_anew_and_leaves_its_parent_alone(tmp_path: Path) -> None:
    """I28: no connection, no lock crosses a fork."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    world = World(url)
    world.embedded.start()
    world.reaches(world.enqueue(), State.COMPLETED)
    world.embedded.stop()  # the forking server's own worker is stopped before it forks, as its manual says
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert not world.embedded.running
            world.opened = stores.open(url)
            world.run, world.store = world.opened.shell.run, world.opened.store
            world.embedded.start()
            world.reaches(world.enqueue(), State.COMPLETED)
            assert world.embedded.stop()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    world.embedded.start()
    world.reaches(world.enqueue(), State.COMPLETED)
    world.embedded.stop()
    world.opened.close()


def test_a_fork_while_it_runs_leaves_the_lock_with_the_parent(tmp_path: Path) -> None:
    from windlass.runtime import lockfile

    world = World(f"sqlite:///{tmp_path}/jobs.db")
    world.embedded.start()
    [worker] = world.workers()
    directory = world.opened.run_directory()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)  # lives until the parent is done
        os._exit(0)
    os.close(read)
    assert lockfile.obtain(directory, worker.id) is None
    world.embedded._lock.close()  # as if the parent had died
    eventually(lambda: lockfile.obtain(directory, worker.id)).close()  # the child gave it up as soon as it began
    os.close(write)
    os.waitpid(pid, 0)
    world.embedded.stop()
    world.opened.close()


def test_an_application_starts_one_with_one_call(tmp_path: Path) -> None:
    from windlass import Windlass

    with Windlass(f"sqlite:///{tmp_path}/jobs.db", hold="600ms") as app:

        @app.task
        def double(n: int) -> int:
            return 2 * n

        worker = app.run_embedded(concurrency=2, queues="default:3")
        assert double.enqueue(21).result(timeout=10) == 42
        assert worker.stop()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"concurrency": -5}, "concurrency: -5 must be a whole number, 1..10000"),
        ({"concurrency": 0}, "concurrency: 0 must be a whole number, 1..10000"),
        ({"concurrency": 20_000}, "concurrency: 20000 must be a whole number, 1..10000"),
        ({"queues": "default,x:2.5"}, "queues: 'x:2.5': a weight must be a whole number, 1..1000"),
        ({"queues": "default,default:3"}, "queues: 'default' is named twice"),
    ],
)
def test_what_it_cannot_do_is_refused_before_it_starts(asked: dict[str, Any], said: str) -> None:
    from windlass import ConfigError, Windlass

    with Windlass("memory://") as app, pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        app.run_embedded(**asked)


def test_queues_are_read_by_one_rule_wherever_they_are_said() -> None:
    """An empty part once served a queue without a name, on the command line only."""
    from windlass import Windlass
    from windlass.config import served_queues

    said, read = "default,,x:3,", ([("default", None), ("x", 3)], False)
    with Windlass("memory://") as plain, Windlass("memory://", queues=said) as told:
        assert served_queues(said, plain.settings, plain.registry.queues) == read
        assert served_queues(None, told.settings, told.registry.queues) == read
        assert served_queues(None, plain.settings, plain.registry.queues) == ([("default", None)], False)
        assert served_queues("b,a", plain.settings, plain.registry.queues) == ([("b", None), ("a", None)], True)
