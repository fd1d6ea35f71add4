"""`windlass deploy-check`: the jobs that wait, against code that is not released yet."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import World
from windlass import Windlass, deployment
from windlass.core.job import ErrorInfo, Failed, State, Succeeded
from windlass.ports.store import Backlog, Pending

NEXT = """
from windlass import Windlass

app = Windlass("sqlite:///another.db")

@app.task(name="tasks.add")
def add(a: int, b: int, c: int) -> int:
    return a + b + c

@app.task(name="tasks.send", version=3)
def send(to: str, locale: str) -> None: ...

@send.upcast(2)
def _(to: str) -> tuple[str, str]:
    return to, {"ada": "en"}[to]
"""


EXITS = """
import sys
from windlass import Windlass

app = Windlass("sqlite:///another.db")

@app.task(name="tasks.send", version=3)
def send(to: str) -> None: ...

@send.upcast(2)
def _(to: str) -> str:
    sys.exit(0)
"""


def test_an_upcaster_that_exits_is_no_green_check(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (world.directory / "release.py").write_text(EXITS)
    monkeypatch.delitem(sys.modules, "release", raising=False)
    world.enqueue("tasks.send", ["ada"], version=2)
    ran = check(world)
    assert ran.code == 1
    assert "cannot be bound: upcaster: raised SystemExit" in ran.out


@pytest.fixture
def release(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    import sys

    (world.directory / "release.py").write_text(NEXT)
    monkeypatch.delitem(sys.modules, "release", raising=False)
    return "release:app"


def check(world: World, *options: str) -> Any:
    return world.run("deploy-check", "release:app", "--url", "sqlite:///jobs.db", *options)


def test_all_that_would_not_run_is_told(world: World, release: str) -> None:
    """In whatever state it waits, by task, version and problem, the most frequent first."""
    missing = [world.enqueue(arguments=[1, 2]) for _ in range(3)]
    missing.append(world.enqueue(arguments=[3, 4], delay="1h"))
    world.end(Failed(ErrorInfo("E")))
    world.claim()
    world.enqueue(arguments=[1, 2, 3])
    wrong = world.enqueue(arguments=[1, 2, "x"])
    extra = world.enqueue(arguments={"a": 1, "b": 2, "c": 3, "d": 4})
    gone = [world.enqueue("tasks.gone") for _ in range(2)]
    fine, crashed = (world.enqueue("tasks.send", [to], version=2) for to in ("ada", "bob"))
    old, ahead = (world.enqueue("tasks.send", ["ada"], version=version) for version in (1, 4))
    ran = check(world)
    assert ran.code == 1
    assert [line for line in ran.out.splitlines() if not line.startswith("    ")] == [
        "4 `tasks.add` jobs lack the required `c`",
        "2 `tasks.gone` jobs: task `tasks.gone` no longer exists",
        "1 `tasks.add` job cannot be bound: c: expected int, got str",
        "1 `tasks.add` job has `d`, which the task takes no more",
        "1 `tasks.send` job has version 4, newer than the 3 of this code: they would wait",
        "1 `tasks.send` job of version 1 cannot be bound: payload: is of version 1, for which tasks.send has no upcaster",
        "1 `tasks.send` job of version 2 cannot be bound: upcaster: raised KeyError",
        "11 of 13 jobs would not fit",
    ]
    problems = {each["sentence"]: each for each in world.run("deploy-check", release, "--url", "sqlite:///jobs.db", "--json").json["problems"]}
    by_ids = {tuple(sorted(each["ids"])): each["kind"] for each in problems.values()}
    assert by_ids[wrong,] == by_ids[extra,] == by_ids[old,] == by_ids[crashed,] == "payload"
    assert (by_ids[ahead,], by_ids[tuple(sorted(gone))]) == ("newer_version", "unknown_task")
    three = problems["4 `tasks.add` jobs lack the required `c`"]
    assert (three["count"], len(three["ids"]), three["field"]) == (4, 3, "c")
    assert set(three["ids"]) <= set(missing)
    assert fine not in {id for each in problems.values() for id in each["ids"]}


def test_what_has_ended_does_not_matter(world: World, release: str) -> None:
    world.enqueue(arguments=[1, 2])
    world.end(Succeeded("3"))
    ran = check(world)
    assert (ran.code, ran.out) == (0, "no job waits\n")


def test_all_fit(world: World, tasks: str) -> None:
    """The application's own store, where none is named."""
    world.enqueue(arguments=[1, 2])
    ran = world.run("deploy-check", tasks)
    assert (ran.code, ran.out) == (0, "1 job looked at; all fit\n")
    found = world.json("deploy-check", tasks)
    assert found == {
        "ok": True, "looked_at": 1, "complete": True, "misfits": 0, "problems": [],
        "schedules_looked_at": 0, "schedules": [],
    }  # fmt: skip


def test_what_schedules_will_enqueue(world: World, release: str) -> None:
    """Those that have ended will enqueue nothing; those of the new code are replaced by it, unless a person edited them."""
    create = world.app.client.schedules.create
    create("g1", "tasks.gone", every="1h")
    create("g2", "tasks.add", [1, 2], every="1h")
    create("g3", "tasks.add", [1, 2, 3, 4], every="1h", queue="theirs")
    create("g4", "tasks.add", [1, 2, "x"], every="1h")
    create("g5", "tasks.send", ["ada"], every="1h", version=4)
    create("fine", "tasks.add", [1, 2, 3], every="1h")
    create("ended", "tasks.gone", every="1h", end=datetime(2020, 1, 1, tzinfo=UTC))
    create("redefined", "tasks.gone", every="1h")
    (world.directory / "release.py").write_text(NEXT + "app.schedule(add, arguments=(1, 2, 3), name='redefined', every='2h')\n")
    ran = check(world)
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "schedule `g1` enqueues task `tasks.gone`, which no longer exists",
        "schedule `g2` enqueues `tasks.add` without the required `c`",
        "schedule `g3` enqueues `tasks.add` with what cannot be bound: args[]: is one too many; the task takes a, b, c",
        "schedule `g4` enqueues `tasks.add` with what cannot be bound: c: expected int, got str",
        "schedule `g5` enqueues version 4 of `tasks.send`, newer than the 3 of this code",
        "5 of 6 schedules would not fit",
    ]
    found = check(world, "--json").json
    assert (found["ok"], found["schedules_looked_at"]) == (False, 6)
    assert [each["schedule"] for each in found["schedules"]] == ["g1", "g2", "g3", "g4", "g5"]
    assert "1 of 1 schedule would not fit" in check(world, "--queue", "theirs").out


def test_a_sample(world: World, release: str) -> None:
    for _ in range(5):
        world.enqueue(arguments=[1, 2])
    ran = check(world, "--limit", "3")
    assert ran.code == 1
    assert ran.out.splitlines()[-1] == "3 of 3 jobs would not fit, a sample: there are more"
    assert world.run("deploy-check", release, "--url", "sqlite:///jobs.db", "--limit", "3", "--json").json["complete"] is False
    assert "a sample" not in check(world, "--limit", "100").out


def test_some_queues(world: World, release: str) -> None:
    world.enqueue(arguments=[1, 2])
    world.enqueue("other.service", queue="theirs")
    assert "other.service" not in check(world, "--queue", "default").out
    assert "1 of 1 job would not fit" in check(world, "--queue", "default").out
    assert check(world, "--queue", "default").err == ""
    typo = check(world, "--queue", "thiers")
    assert (typo.code, typo.out) == (2, "")
    assert "no job, schedule or task has queue 'thiers'. Did you mean 'theirs'?" in typo.err


def test_looking_changes_nothing(world: World, release: str) -> None:
    """The new code's schema may be newer: the release migrates, not the look before it."""
    assert check(world).code == 4
    assert "there is no store at" in check(world).err
    assert os.listdir(world.directory) == ["release.py"] or not any(".db" in name for name in os.listdir(world.directory))


def test_mistakes(world: World, release: str) -> None:
    world.enqueue()
    assert world.run("deploy-check", "nothing:app").code == 2
    assert world.run("deploy-check").code == 2
    assert check(world, "--limit", "0").code == 2


def test_problems_have_a_bound() -> None:
    """However many different ways there are in which payloads are wrong, a check ends, in little memory."""
    app = Windlass("memory://")
    jobs = [Pending(f"id-{n}", f"task-{n}", 1, "default", State.QUEUED, "[[],{}]") for n in range(3_000)]
    found = deployment.check(app.registry, [Backlog(jobs)])
    assert (found.looked, found.misfits) == (3_000, 3_000)
    assert len(found.found) == deployment.PROBLEMS_MOST + 1
    assert found.found[0].sentence == "2,000 jobs have still other problems"


def test_values_do_not_make_a_problem_of_its_own() -> None:
    app = Windlass("memory://")

    @app.task(name="t")
    def t(days: list[int]) -> None: ...

    payloads = [msgspec.json.encode([[[*range(n), "x"]], {}]).decode() for n in range(5)]
    jobs = [Pending(str(n), "t", 1, "default", State.QUEUED, text) for n, text in enumerate(payloads)]
    (found,) = deployment.check(app.registry, [Backlog(jobs)]).found
    assert found.sentence == "5 `t` jobs cannot be bound: days[]: expected int, got str"
