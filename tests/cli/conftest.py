"""The command line in this process, on a real file, and a hand that does what workers do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from windlass import Windlass
from windlass.cli import run
from windlass.core.job import Held, Meta, Outcome
from windlass.core.machine import decide
from windlass.ports.store import ClaimRequest, Death, Quota, WorkerReport

TASKS = """
from windlass import Context, Windlass

app = Windlass("sqlite:///jobs.db")

@app.task
def add(a: int, b: int) -> int:
    return a + b

@app.task(queue="mail", version=2)
def send(to: str, ctx: Context) -> None: ...
"""


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class World:
    """A store in a file of the current directory; `run` is `windlass ...`."""

    def __init__(self, capsys: pytest.CaptureFixture[str], directory: Path) -> None:
        self._capsys = capsys
        self.directory = directory
        self.app = Windlass("sqlite:///jobs.db")
        self._seq = 0

    def run(self, *arguments: str) -> Ran:
        self._capsys.readouterr()
        code = run(arguments)
        return Ran(code, *self._capsys.readouterr())

    def json(self, *arguments: str) -> Any:
        ran = self.run(*arguments, "--json")
        assert ran.code == 0, ran
        return ran.json

    def enqueue(self, task: str = "tasks.add", arguments: Any = None, **options: Any) -> str:
        return self.app.enqueue(task, arguments, **options).id

    # --- as a worker would

    @property
    def store(self) -> Any:
        return self.app.opened.store

    def do(self, plan: Any) -> Any:
        return self.app.opened.shell.run(plan)

    def beat(self, worker: str = "w1", **fields: Any) -> None:
        plain = {"queues": ("default",), "tasks": ("tasks.add",), "slots": 4, "busy": 0, "hold": 60_000_000}
        report = WorkerReport(id=worker, supervisor="s1", host="here", pid=1, **{**plain, **fields})
        (answer,) = self.do(self.store.beat([report]))
        assert not answer.taken

    def claim(self, worker: str = "w1", queue: str = "default", *, suspects: bool = False) -> Held:
        self.beat(worker, **({"state": "quarantine"} if suspects else {}))
        self._seq += 1
        claimed = self.do(self.store.claim(worker, self._seq, ClaimRequest(1, (Quota(queue, 1),), (), suspects)))
        (held,) = claimed.jobs
        return held

    def settle(self, held: Held, outcome: Outcome, worker: str = "w1") -> None:
        policy = msgspec.json.decode(held.meta, type=Meta).policy
        (answer,) = self.do(self.store.settle(worker, [decide(held, policy, outcome, 0.5)]))
        assert answer == "applied"

    def end(self, outcome: Outcome, queue: str = "default") -> Held:
        held = self.claim(queue=queue)
        self.settle(held, outcome)
        return held

    def die(self, worker: str, **how: Any) -> None:
        (answer,) = self.do(self.store.reap([Death(worker=worker, observed=True, **how)]))
        assert answer.taken


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[World]:
    for name in [name for name in os.environ if name.startswith("WINDLASS_") and name != "WINDLASS_TEST_WORLD"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WINDLASS_URL", "sqlite:///jobs.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    world = World(capsys, tmp_path)
    yield world
    world.app.close()


@pytest.fixture
def tasks(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file with an application of its own, by the name that a command gives it."""
    import sys

    (world.directory / "tasks.py").write_text(TASKS)
    monkeypatch.delitem(sys.modules, "tasks", raising=False)
    return "tasks.py"
