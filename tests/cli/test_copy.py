"""`windlass store copy`: what it says, and with which code it ends."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Ran, World
from windlass import Windlass
from windlass.core.job import Succeeded

FROM, TO = "sqlite:///jobs.db", "sqlite:///new.db"


def copy(world: World, *more: str) -> Ran:
    return world.run("store", "copy", FROM, TO, *more)


def test_it_moves_and_says_so(world: World) -> None:
    ids = [world.enqueue() for _ in range(3)]
    ran = copy(world)
    lines = ran.out.splitlines()
    assert ran.code == 0
    assert lines[0] == f"moved 3 jobs and 0 schedules to {TO}"
    assert lines[1].startswith("verified: 3 jobs left and arrived, checksum ")
    assert lines[2:] == [f"nothing is left at {FROM}: end its workers, and remove it when you like"]
    with Windlass(TO) as app:
        assert {app.job(id).state() for id in ids} == {"queued"}
    assert copy(world).out.startswith("moved 0 jobs")


def test_what_runs_is_left_and_the_code_says_so(world: World) -> None:
    world.enqueue()
    held = world.claim()
    ran = copy(world)
    assert ran.code == 1
    assert f"1 running and 0 other jobs are left at {FROM}\nrun this command again until nothing is left" in ran.out
    world.settle(held, Succeeded("1"))
    answer = world.json("store", "copy", FROM, TO)
    assert {name: answer[name] for name in ("moved", "running", "done", "verified")} == {
        "moved": 1, "running": 0, "done": True, "verified": True,
    }  # fmt: skip
    assert answer["departed"] == answer["arrived"]


def test_a_schedule_stays_until_its_jobs_have_ended(world: World) -> None:
    """I11: no tick comes twice, and none is jumped over."""
    assert world.run("schedules", "add", "s", "tasks.add", "[1, 2]", "--every", "1h").code == 0
    assert world.run("schedules", "run", "s").code == 0
    held = world.claim()
    ran = copy(world)
    assert ran.code == 1
    assert f"1 schedule ticks on at {FROM} until its jobs have ended" in ran.out
    world.settle(held, Succeeded("1"))
    assert copy(world).out.startswith(f"moved 1 job and 1 schedule to {TO}")
    assert [each.paused for each in world.do(world.store.schedules())] == [True]
    assert copy(world).code == 0


def test_a_dry_run_counts_and_changes_nothing(world: World) -> None:
    world.enqueue()
    world.enqueue(delay="1h")
    assert world.json("store", "copy", FROM, TO, "--dry-run") == {"jobs": {"queued": 1, "scheduled": 1}, "schedules": 0}
    assert copy(world, "--dry-run").out.splitlines()[-1] == f"2 jobs and 0 schedules at {FROM}"
    assert not (world.directory / "new.db").exists()
    world.do(world.store.depart("elsewhere", 1))
    assert world.json("store", "copy", FROM, TO, "--dry-run")["jobs"] == {"scheduled": 1, "set aside": 1}


def test_the_doctor_sees_what_a_copier_left_in_the_middle(world: World) -> None:
    world.enqueue()
    world.do(world.store.depart("elsewhere", 1))
    readings = {each["name"]: each for each in world.run("store", "doctor", "--json").json["readings"]}
    assert (readings["departing"]["value"], readings["departing"]["verdict"]) == (1, "warning")


def test_a_conflict_is_named_and_stays(world: World) -> None:
    """Never silently doubled."""
    mine = world.enqueue(idempotency_key="k")
    with Windlass(TO) as app:
        theirs = app.enqueue("tasks.add", idempotency_key="k").id
    ran = copy(world)
    assert ran.code == 1
    assert f"job {mine} stays: job {theirs} at TO has its key; cancel one of them" in ran.out
    assert copy(world, "--json").json["refused"] == [{"id": mine, "word": "conflict", "other": theirs}]
    assert world.run("jobs", "cancel", mine).code == 0
    assert copy(world).code == 1, "it comes without its key, and says so"
    assert copy(world).code == 0


@pytest.mark.parametrize(
    ("one", "other", "words", "code"),
    [
        ("sqlite:///no.db", TO, "there is no store at", 4),
        (FROM, FROM, "TO is the same store as FROM", 2),
        ("jobs.db", TO, "(from FROM)", 2),
        (FROM, "new.db", "(from TO)", 2),
        (FROM, "memory://", "durable: memory:// lives in one process", 2),
    ],
)
def test_mistakes_are_named(world: World, one: str, other: str, words: str, code: int) -> None:
    world.enqueue()
    ran = world.run("store", "copy", one, other)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert ran.err.count("\n") == 1
