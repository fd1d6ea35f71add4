"""Dead letters as a product: groups, a redrive at a rate, a purge with bounds; and how tasks fare."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import World
from windlass.client import Client
from windlass.core.duration import micros
from windlass.core.job import ErrorInfo, Failed, State, Succeeded
from windlass.ports.store import Filter, Selected

PAY = ErrorInfo("shop.CardDeclined", "card 4242 declined", "Traceback\n  at pay\n", "shop.bank:charge")
MAIL = ErrorInfo("OSError", "away", "Traceback\n  at send\n", "shop.mail:send")


def lose(world: World, error: ErrorInfo = PAY, task: str = "tasks.add") -> str:
    id = world.enqueue(task)
    world.end(Failed(error, permanent=True))
    return id


def groups(world: World) -> dict[str, Any]:
    return {each["error"]["place"]: each for each in world.json("dead", "groups")["groups"]}


# --- groups -------------------------------------------------------------------------------------------------------


def test_groups(world: World) -> None:
    world.enqueue("tasks.send", queue="mail")
    assert world.run("dead", "groups").out == "no dead letters\n"
    ids = [lose(world) for _ in range(3)]
    mail = lose(world, MAIL)
    found = groups(world)
    assert {place: (each["count"], each["latest"]) for place, each in found.items()} == {
        "shop.bank:charge": (3, ids[2]), "shop.mail:send": (1, mail),
    }  # fmt: skip
    head, first, second = world.run("dead", "groups").out.splitlines()
    assert head.split() == ["GROUP", "JOBS", "TASK", "ERROR", "PLACE", "FIRST", "DIED", "LAST", "DIED"]
    assert first.startswith(f"{found['shop.bank:charge']['group']}  3")
    assert "CardDeclined: card 4242 declined  shop.bank:charge" in first
    assert "tasks.add  OSError: away" in second
    assert len(world.json("dead", "groups", "--limit", "1")["groups"]) == 1


def test_a_group_whole(world: World) -> None:
    ids = [lose(world) for _ in range(12)]
    lose(world, MAIL)
    group = groups(world)["shop.bank:charge"]["group"]
    found = world.json("dead", "show", group)
    assert (found["count"], found["latest"], found["letter"]["id"]) == (12, ids[11], ids[11])
    assert found["ids"] == ids[:1:-1]
    assert found["letter"]["attempts"][0]["error"]["trace"] == PAY.trace
    said = world.run("dead", "show", group).out
    assert f"group       {group}" in said and "jobs        12" in said and "Traceback" in said and " ..." in said
    assert [each["id"] for each in world.json("dead", "list", "--group", group, "--limit", "2")["jobs"]] == [ids[11], ids[10]]
    assert world.run("dead", "show", "0123456789ab").code == 3
    assert "no dead letters are of group 0123456789ab" in world.run("dead", "show", "0123456789ab").err


def test_a_group_by_its_beginning(world: World) -> None:
    """One that there is not is no job of zero letters, and neither is what could be two."""
    ids = [lose(world) for _ in range(2)]
    mail = lose(world, MAIL)
    found = groups(world)
    bank, post = (found[place]["group"] for place in ("shop.bank:charge", "shop.mail:send"))
    assert bank[0] != post[0]  # or this test needs other errors
    assert world.json("dead", "show", bank[:4])["group"] == bank
    assert [each["id"] for each in world.json("dead", "list", "--group", post[:4])["jobs"]] == [mail]
    for words in (["list"], ["redrive"], ["purge", "--yes"], ["purge", "--yes", "--keep", "0"]):
        ran = world.run("dead", *words, "--group", "nope")
        assert (ran.code, ran.out, ran.err) == (3, "", "windlass: no dead letters are of group nope\n")
    assert set(world.json("dead", "redrive", "--group", bank[:4])["changed"]) == set(ids)
    for _ in range(20):  # sixteen digits are soon used up
        lose(world, ErrorInfo("E", "x", "", f"place:{len(groups(world))}"))
    first = sorted(each["group"][0] for each in groups(world).values())
    twice = next(digit for digit, after in zip(first, first[1:], strict=False) if digit == after)
    ran = world.run("dead", "redrive", "--group", twice)
    assert (ran.code, ran.err.startswith(f"windlass: '{twice}' begins ")) == (3, True)
    assert world.run("dead", "redrive", "--task", "nope").code == 0


# --- redrive ------------------------------------------------------------------------------------------------------


def test_redrive_a_group(world: World) -> None:
    ids = [lose(world) for _ in range(3)]
    mail = lose(world, MAIL)
    group = groups(world)["shop.bank:charge"]["group"]
    assert world.run("dead", "redrive", "--group", group, "--dry-run").out == "3 jobs would be queued again\n"
    assert set(world.json("dead", "redrive", "--group", group)["changed"]) == set(ids)
    assert world.app.client.fetch(mail).state is State.DEAD
    assert "shop.bank:charge" not in groups(world)


def test_letters_that_die_again_are_redriven_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause may still be there: each runs once more, also while the command goes on, and none is left out."""
    monkeypatch.setattr("windlass.cli.acts.BATCH", 3)
    ids = [lose(world) for _ in range(8)]
    revive, redriven = Client.revive, list[str]()

    def revived(client: Client, *args: Any, **how: Any) -> Selected:
        told = revive(client, *args, **how)
        redriven.extend(told.changed)
        for _ in told.changed:
            world.end(Failed(PAY, permanent=True))
        return told

    monkeypatch.setattr(Client, "revive", revived)
    assert world.run("dead", "redrive", "--all").out == "8 jobs queued again\n"
    assert redriven == ids[::-1]
    assert world.app.client.stats().states["dead"] == 8


def test_redrive_at_a_rate(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The due times hold it, also across batches and after the command has ended."""
    monkeypatch.setattr("windlass.cli.acts.BATCH", 3)
    for _ in range(8):
        lose(world)
    ran = world.run("dead", "redrive", "--all", "--rate", "50/s", "--dry-run")
    assert ran.out == "8 jobs would be queued again, 20ms apart, the last in 140ms\n"
    assert world.app.client.stats().states["dead"] == 8
    assert world.run("dead", "redrive", "--all", "--rate", "30/m").out == "8 jobs queued again, 2s apart, the last in 14s\n"
    due = sorted(job.due_at for job in world.app.client.search(Filter()).jobs)
    apart = [(later - sooner) / 1e6 for sooner, later in zip(due, due[1:], strict=False)]
    # Never closer than asked for; between two batches by what the command itself took.
    assert all(2.0 <= each < 4.0 for each in apart), apart
    states = world.app.client.stats().states
    assert (states["queued"], states["scheduled"]) == (1, 7)


@pytest.mark.parametrize("rate", ["0/s", "fast", "5/d", "-1/s", "nan/s", "9999999/s"])
def test_rates_that_are_none(world: World, rate: str) -> None:
    lose(world)
    ran = world.run("dead", "redrive", "--all", f"--rate={rate}")
    assert ran.code == 2 and "is no rate; write 50/s" in ran.err
    assert world.app.client.stats().states["dead"] == 1


# --- purge --------------------------------------------------------------------------------------------------------


def age(world: World, ids: list[str], by: str) -> None:
    """Make letters older, as only time can."""
    import sqlite3

    world.app.close()
    with sqlite3.connect("jobs.db") as file:
        marks = ", ".join("?" * len(ids))
        file.execute(
            f"UPDATE windlass_ended SET finished = finished - ? WHERE seq IN (SELECT seq FROM windlass_jobs WHERE id IN ({marks}))",
            (micros(by), *ids),
        )
    file.close()


def left(world: World) -> list[str]:
    return [job.id for job in world.app.client.search(Filter(states=(State.DEAD,))).jobs][::-1]


def test_purge_by_age(world: World) -> None:
    ids = [lose(world) for _ in range(4)]
    alive = world.enqueue()
    age(world, ids[:2], "31d")
    age(world, ids[2:3], "29d")
    assert world.run("dead", "purge", "--older-than", "30d", "--dry-run").out == "2 jobs would be deleted\n"
    ran = world.run("dead", "purge", "--older-than", "30d")
    assert ran.code == 2 and "say --yes" in ran.err
    assert world.run("dead", "purge", "--older-than", "30d", "--yes").out == "2 jobs deleted\n"
    assert left(world) == ids[2:]
    assert world.app.client.fetch(alive).state is State.QUEUED


def test_purge_by_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.cli.acts.BATCH", 2)
    ids = [lose(world) for _ in range(7)]
    assert world.run("dead", "purge", "--keep", "9", "--yes").out == "0 jobs deleted\n"
    assert world.run("dead", "purge", "--keep", "7", "--yes").out == "0 jobs deleted\n"
    assert world.run("dead", "purge", "--keep", "3", "--yes").out == "4 jobs deleted\n"
    assert left(world) == ids[4:]
    assert world.run("dead", "purge", "--keep", "0", "--yes").out == "3 jobs deleted\n"


def test_purge_by_both(world: World) -> None:
    """What is past either bound goes, and is counted once."""
    ids = [lose(world) for _ in range(6)]
    mail = lose(world, MAIL)
    age(world, [ids[0], ids[4]], "31d")
    group = groups(world)["shop.bank:charge"]["group"]
    purge = ("dead", "purge", "--group", group, "--older-than", "30d", "--keep", "4")
    assert set(world.json(*purge, "--dry-run")["changed"]) == {ids[0], ids[1], ids[4]}
    assert set(world.json(*purge, "--yes")["changed"]) == {ids[0], ids[1], ids[4]}
    assert left(world) == [ids[2], ids[3], ids[5], mail]


def test_purge_mistakes(world: World) -> None:
    id = lose(world)
    assert "name no ids with them" in world.run("dead", "purge", id, "--keep", "1", "--yes").err
    assert "--older-than: 'old' is no duration" in world.run("dead", "purge", "--older-than", "old", "--yes").err
    assert left(world) == [id]


# --- stats --------------------------------------------------------------------------------------------------------


def test_how_tasks_fare(world: World) -> None:
    for _ in range(3):
        world.enqueue()
        world.end(Succeeded("1"))
    lose(world)
    world.enqueue("tasks.other", delay="1h")
    found = world.json("stats")
    (task,) = found["tasks"]
    assert (task["task"], task["jobs"], task["completed"], task["dead"], task["dead_ratio"]) == ("tasks.add", 4, 3, 1, 0.25)
    assert 0 <= task["waiting"]["p50"] <= task["total"]["p50"] <= task["total"]["p99"] < 60
    said = world.run("stats").out
    assert "TASK       COMPLETED  DEAD  RATIO" in said and "25.0%" in said
    assert said.endswith("of all ended jobs\n")
    assert world.run("stats", "--sample", "2").out.endswith("of the 2 ended jobs enqueued last\n")
    assert "RATIO" not in world.run("stats", "--sample", "0").out
    assert json.loads(world.run("stats", "--sample", "2", "--json").out)["tasks"][0]["jobs"] == 2
