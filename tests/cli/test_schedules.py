"""`windlass schedules`: what is shown, done and refused."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import World
from windlass.core.job import Succeeded
from windlass.ports.store import ClaimRequest, Quota
from windlass.runtime.scheduler import Scheduler


def add(world: World, name: str = "nightly", *options: str) -> object:
    return world.json("schedules", "add", name, "tasks.add", "[1, 2]", *(options or ("--cron", "0 3 * * *")))


def test_add_and_show(world: World) -> None:
    said = add(
        world, "nightly", "--cron", "0 3 * * fri", "--timezone", "Europe/Berlin", "--overlap", "queue", "--catch-up", "all",
        "--catch-up-limit", "5", "--jitter", "10m", "--start", "2026-01-01T00:00:00Z", "--end", "2126-01-01T00:00:00Z",
        "--queue", "mail", "--priority", "70", "--expires", "1h", "--timeout", "30s", "--max-attempts", "2", "--tag", "a",
        "--header", "h=1",
    )  # fmt: skip
    assert said == world.json("schedules", "show", "nightly")
    assert {name: said[name] for name in ("task", "arguments", "cron", "every", "timezone", "overlap")} == {
        "task": "tasks.add",
        "arguments": [[1, 2], {}],
        "cron": "0 3 * * fri",
        "every": None,
        "timezone": "Europe/Berlin",
        "overlap": "queue",
    }
    assert (said["catch_up"], said["catch_up_limit"], said["jitter"]) == ("all", 5, 600.0)
    assert (said["start"], said["end"]) == ("2026-01-01T00:00:00.000Z", "2126-01-01T00:00:00.000Z")
    assert (said["queue"], said["priority"], said["state"], said["revision"], said["origin"]) == ("mail", 70, "open", 1, "operator")
    assert len(said["next"]) == 5
    assert {tick[10:19] for tick in said["next"]} <= {"T01:00:00", "T02:00:00"}
    assert said["next"][0] == said["next_tick"]
    assert (said["expires"], said["timeout"], said["max_attempts"], said["tags"]) == (3_600.0, 30.0, 2, ["a"])
    assert (said["headers"], said["limits"], said["unique"]) == ({"h": "1"}, [], None)
    shown = world.run("schedules", "show", "nightly", "--next", "2").out
    for words in ("name       nightly", "zone       Europe/Berlin", "overlap    queue", "catch up   all, 5", "jitter     10m",
                  "priority   70", "expires    1h after it came", "timeout    30s", "attempts   2", "tags       a", "headers    h=1"):  # fmt: skip
        assert words in shown
    assert shown.count("  Fri ") == 2


def test_list_and_next(world: World) -> None:
    world.app.opened  # noqa: B018 - makes the store
    assert world.run("schedules", "list").out == "there are no schedules\n"
    assert world.run("schedules", "next").out == "there is no tick to come\n"
    add(world)
    add(world, "often", "--every", "90s")
    assert [each["name"] for each in world.json("schedules", "list")["schedules"]] == ["nightly", "often"]
    lines = world.run("schedules", "list").out.splitlines()
    assert lines[0].split() == ["NAME", "TASK", "WHEN", "ZONE", "STATE", "NEXT", "LAST"]
    assert lines[2].split()[:6] == ["often", "tasks.add", "every", "1m", "30s", "UTC"]
    ticks = world.json("schedules", "next", "--count", "7")["next"]
    assert len(ticks) == 7
    assert [tick["at"] for tick in ticks] == sorted(tick["at"] for tick in ticks)
    assert {tick["schedule"] for tick in ticks} <= {"often", "nightly"}
    assert {tick["schedule"] for tick in world.json("schedules", "next", "nightly")["next"]} == {"nightly"}
    world.run("schedules", "pause", "often")
    assert {tick["schedule"] for tick in world.json("schedules", "next")["next"]} == {"nightly"}


def test_edit(world: World) -> None:
    add(world)
    said = world.json("schedules", "edit", "nightly", "--every", "2h", "--arguments", "[3, 4]", "--end", "2126-01-01T00:00:00Z")
    assert (said["cron"], said["every"], said["arguments"], said["revision"]) == (None, 7_200.0, [[3, 4], {}], 2)
    assert world.json("schedules", "edit", "nightly", "--end", "none")["end"] is None
    nothing = world.run("schedules", "edit", "nightly")
    assert nothing.code == 2
    assert nothing.err.startswith("windlass: say what to change")
    assert world.json("schedules", "edit", "nightly", "--timeout", "30s", "--expires", "1h")["timeout"] == 30.0
    bare = world.json("schedules", "edit", "nightly", "--timeout", "none", "--expires", "none")
    assert (bare["timeout"], bare["expires"]) == (None, None)


def test_instants_without_a_zone_are_the_schedules_own(world: World) -> None:
    add(world, "nightly", "--cron", "0 3 * * *", "--timezone", "Asia/Tokyo", "--end", "2126-01-01T00:00")
    assert world.json("schedules", "show", "nightly")["end"] == "2125-12-31T15:00:00.000Z"
    assert world.json("schedules", "edit", "nightly", "--end", "2127-01-01T00:00Z")["end"] == "2127-01-01T00:00:00.000Z"
    said = world.json("schedules", "edit", "nightly", "--start", "2026-01-01T00:00", "--timezone", "UTC")
    assert said["start"] == "2026-01-01T00:00:00.000Z"
    world.run("schedules", "edit", "nightly", "--start", "none", "--timezone", "Asia/Tokyo")
    words = ("schedules", "backfill", "nightly", "--from", "2026-01-01T03:00", "--to", "2026-01-01T04:00", "--dry-run")
    assert world.json(*words)["ticks"] == ["2025-12-31T18:00:00.000Z"]
    wrong = world.run("schedules", "backfill", "nightly", "--from", "2026-01-02", "--to", "2026-01-01")
    assert (wrong.code, wrong.err.partition(" (")[0]) == (2, "windlass: --from: 2026-01-02 does not lie before --to, 2026-01-01")
    wrong = world.run("schedules", "add", "x", "tasks.add", "--every", "1h", "--end", "2020-01-01", "--start", "2021-01-01")
    assert (wrong.code, wrong.err.startswith("windlass: --")) == (2, True)


def test_who_fires_them(world: World) -> None:
    """Where nobody is there who would, an open schedule says so; one that is paused or has ended shows no tick."""
    nobody = "nobody fires schedules: no supervisor is alive"
    add(world)
    ended = add(world, "ended", "--every", "1h", "--end", "2020-01-01")
    assert (ended["state"], ended["next_tick"]) == ("ended", None)
    for words in (["list"], ["show", "nightly"]):
        assert world.run("schedules", *words).out.splitlines()[-1] == nobody
    assert nobody not in world.run("schedules", "show", "ended").out
    doctor = world.run("store", "doctor")
    assert (doctor.code, "are open and nobody fires them" in doctor.out) == (1, True)
    world.run("schedules", "pause", "nightly")
    assert nobody not in world.run("schedules", "list").out
    [_, paused] = world.json("schedules", "list")["schedules"]
    assert (paused["state"], paused["next_tick"], paused["next"]) == ("paused", None, [])
    assert "nothing fires until `windlass schedules resume nightly`" in world.run("schedules", "show", "nightly").out
    world.run("schedules", "resume", "nightly")
    world.beat()
    for words in (["list"], ["show", "nightly"]):
        assert nobody not in world.run("schedules", *words).out
    assert world.run("schedules", "show", "nightly", "--next", "0").out.splitlines()[-1].startswith("so far")


def test_pause_resume_delete(world: World) -> None:
    add(world)
    add(world, "b", "--every", "1h")
    assert world.run("schedules", "pause", "nightly", "b").out == "schedule 'nightly' is paused\nschedule 'b' is paused\n"
    assert [each["state"] for each in world.json("schedules", "list")["schedules"]] == ["paused", "paused"]
    assert world.run("schedules", "resume", "b").out.startswith("schedule 'b' is open; its next tick is 20")
    assert world.json("schedules", "delete", "b", "nightly") == {"deleted": ["b", "nightly"]}
    assert world.json("schedules", "list") == {"schedules": []}


def test_run_shows_where_a_job_comes_from(world: World) -> None:
    add(world)
    id = world.run("schedules", "run", "nightly").out.strip()
    assert world.json("jobs", "show", id)["schedule"] == "nightly"
    assert world.json("jobs", "show", id)["tick"].startswith("20")
    assert ["schedule", "nightly"] in [line.split() for line in world.run("jobs", "show", id).out.splitlines()]
    assert world.json("schedules", "show", "nightly")["last_job"] == id
    assert "one at once of its schedule\n" in world.run("jobs", "show", id).out


def test_why_a_job_waits_for_the_one_before_it(world: World) -> None:
    add(world)
    first = world.json("schedules", "run", "nightly")["id"]
    held = world.claim()
    assert held.id == first
    second = world.json("schedules", "run", "nightly")["id"]
    world.beat()
    assert world.do(world.store.claim("w1", 99, ClaimRequest(1, (Quota("default", 1),)))).jobs == []
    said = world.json("jobs", "why", second)
    assert said["cause"] == "overlap"
    assert said["sentence"] == f"blocked behind job {first} (running): jobs of schedule 'nightly' must not overlap"
    world.settle(held, Succeeded("3"))
    assert world.claim().id == second


def test_why_a_job_waits_for_one_that_waits_itself(world: World) -> None:
    """Nobody runs: then it must not say so, and if nobody is there who would, that too."""
    add(world)
    jobs = [world.json("schedules", "run", "nightly")["id"] for _ in range(3)]
    world.claim()
    assert world.do(world.store.claim("w1", 99, ClaimRequest(2, (Quota("default", 2),)))).jobs == []
    world.die("w1")
    said = world.json("jobs", "why", jobs[2])
    assert (said["cause"], said["facts"]["awaited"], said["facts"]["awaited_state"]) == ("overlap", jobs[0], "queued")
    assert said["sentence"].startswith(
        f"blocked behind job {jobs[0]} (queued): jobs of schedule 'nightly' must not overlap; no worker is alive on "
    )
    world.beat("w2")
    assert world.json("jobs", "why", jobs[2])["sentence"].endswith("must not overlap")


def test_of_several_each_is_done_and_each_is_told(world: World) -> None:
    for name in ("a", "b"):
        add(world, name)
    world.run("schedules", "pause", "a", "b")
    ran = world.run("schedules", "resume", "a", "nope", "b")
    assert ran.code == 3
    assert [line.partition(";")[0] for line in ran.out.splitlines()] == ["schedule 'a' is open", "schedule 'b' is open"]
    assert ran.err == "windlass: there is no schedule called 'nope'\n"
    ran = world.run("schedules", "pause", "nope", "b", "never", "--json")
    assert (ran.code, [each["name"] for each in ran.json["schedules"]]) == (3, ["b"])
    assert json.loads(ran.err)["error"] == "there is no schedule called 'nope'; there is no schedule called 'never'"
    ran = world.run("schedules", "delete", "nope", "b")
    assert (ran.code, ran.out) == (3, "schedule 'b' is deleted\n")


def test_backfill(world: World) -> None:
    add(world, "often", "--every", "10m")
    dry = world.json("schedules", "backfill", "often", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T01:00:00Z", "--dry-run")
    assert dry == {
        "ticks": [f"2026-01-01T00:{n}0:00.000Z" for n in range(6)],
        "enqueued": 6,
        "already": 0,
        "dry_run": True,
    }
    words = ("schedules", "backfill", "often", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T01:00:00Z")
    assert world.run(*words).out == "6 ticks: 6 jobs enqueued, 0 there already\n"
    assert world.run(*words, "--dry-run").out == "6 ticks: 0 jobs would be enqueued, 6 there already\n"
    assert len(world.json("schedules", "backfill", "often", "--from", "2h")["ticks"]) in (12, 13)
    refused = world.run("schedules", "backfill", "often", "--from", "2026-01-01T00:00:00Z", "--limit", "10")
    assert (refused.code, refused.err) == (2, "windlass: --limit: the range has more than 10 ticks; allow more, or ask less\n")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["show", "none"], 3, "there is no schedule called 'none'"),
        (["run", "none"], 3, "there is no schedule called 'none'"),
        (["pause", "none"], 3, "there is no schedule called 'none'"),
        (["add", "s", "t", "--cron", "x"], 2, "--cron: 'x' has 1 field;"),
        (["add", "s", "t", "--cron", "0 99 * * *"], 2, "--cron: hour: "),
        (["add", "s", "t"], 2, "--cron: say either cron or every"),
        (["add", "s", "t", "--every", "1h", "--timezone", "Berlin"], 2, "--timezone: 'Berlin' is no time zone; did you mean"),
        (["add", "s", "t", "--every", "1h", "--overlap", "x"], 2, "--overlap: 'x' must be one of skip, queue, cancel-previous"),
        (["add", "s", "t", "--every", "1h", "--start", "x"], 2, "--start: 'x' is no time"),
        (["add", "s", "t", "7", "--every", "1h"], 2, "ARGS: '7' is a number"),
        (["add", "s", "t", "--every", "1h", "--header", "x"], 2, "headers: 'x' must be NAME=VALUE"),
    ],
)
def test_mistakes_are_one_line(world: World, words: list[str], code: int, message: str) -> None:
    world.enqueue()  # there is a store
    ran = world.run("schedules", *words)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(f"windlass: {message}")
    assert ran.err.count("\n") == 1
    as_json = world.run("schedules", *words, "--json")
    assert json.loads(as_json.err)["exit_code"] == code


def test_with_an_application_tasks_and_types_are_checked(world: World, tasks: str) -> None:
    ran = world.run("schedules", "add", "s", "tasks.nope", "--every", "1h", "--app", tasks)
    assert (ran.code, ran.err) == (3, "windlass: tasks.py has no task 'tasks.nope'; it has tasks.add, tasks.send\n")
    ran = world.run("schedules", "add", "s", "tasks.add", '[1, "x"]', "--every", "1h", "--app", tasks)
    assert ran.code == 2
    assert ran.err.startswith("windlass: b: ")
    assert world.run("schedules", "add", "s", "tasks.send", '["a"]', "--every", "1h", "--app", tasks).code == 0
    assert world.json("schedules", "show", "s")["queue"] == "mail"


def test_a_schedule_of_the_code_says_so(world: World) -> None:
    task = world.app.task(name="t")(lambda: None)
    world.app.schedule(task, every="1h")
    Scheduler(world.app.opened, "s", world.app.defined).tick()
    assert "origin     code, last seen in code 20" in world.run("schedules", "show", "t").out
    refused = world.run("schedules", "delete", "t")
    assert refused.code == 2
    assert "would come back: pause it, or take it out of the code and delete it once no worker has shown it for 3m (in " in refused.err
