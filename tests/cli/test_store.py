"""`windlass store`, `queues`, `stats`, `workers`: the whole at a glance, and its examination."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import World
from windlass.core.flow import Bounds
from windlass.core.job import Succeeded
from windlass.runtime import lockfile
from windlass.stores.sqlite.diagnosis import has_reset_bug


def readings(world: World, *arguments: str, healthy: bool = True) -> dict[str, dict[str, Any]]:
    ran = world.run("store", "doctor", "--json", *arguments)
    assert ran.json["healthy"] is healthy, ran.out
    assert ran.code == (0 if healthy else 1)
    return {each["name"]: each for each in ran.json["readings"]}


# --- doctor -------------------------------------------------------------------------------------------------------


def test_doctor_of_a_healthy_store(world: World) -> None:
    world.enqueue()
    world.beat()
    found = readings(world)
    assert {name: each["verdict"] for name, each in found.items() if name not in ("disk_free", "file_system")} == dict.fromkeys(
        ["url", "library", "file", "size", "wal", "journal_mode", "durability", "schema", "integrity", "workers"], "ok"
    )
    assert found["library"]["value"].startswith("SQLite 3.")
    assert "apsw" in found["library"]["value"]
    assert found["journal_mode"]["value"] == "wal"
    assert found["durability"]["value"] == "full"
    assert "a loss of power" in found["durability"]["note"]
    assert found["workers"]["value"] == 1
    text = world.run("store", "doctor").out
    assert text.splitlines()[-1] == "healthy"
    assert "what is enqueued survives a crash of every process, of the system, and a loss of power" in text


def test_doctor_names_the_durability_profile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.enqueue()
    world.beat()
    monkeypatch.setenv("WINDLASS_DURABILITY", "normal")
    found = readings(world)
    assert found["durability"]["value"] == "normal"
    assert "a loss of power may take the last commits" in found["durability"]["note"]


def test_doctor_of_jobs_in_the_applications_own_database(world: World) -> None:
    world.run("store", "migrate", "--url", "sqlite+stdlib:///shop.db")
    found = readings(world, "--url", "sqlite+stdlib:///shop.db")
    assert "the standard library's" in found["library"]["value"]
    assert found["journal_mode"]["value"] == "delete"


@pytest.mark.parametrize(
    ("version", "bad"),
    [
        ("3.6.23", False), ("3.7.0", True), ("3.40.1", True), ("3.44.5", True), ("3.44.6", False), ("3.45.0", True),
        ("3.50.4", True), ("3.50.7", False), ("3.51.0", True), ("3.51.2", True), ("3.51.3", False), ("3.52.0", False),
    ],
)  # fmt: skip
def test_which_libraries_may_damage_a_wal(version: str, bad: bool) -> None:
    assert has_reset_bug(version) is bad


def test_doctor_finds_no_store(world: World) -> None:
    found = readings(world, "--url", "sqlite:///none.db", healthy=False)
    assert (found["file"]["verdict"], found["file"]["note"]) == ("bad", "is not there; `windlass store migrate` makes it")
    assert not Path("none.db").exists()


def test_doctor_finds_a_damaged_file(world: World) -> None:
    for _ in range(300):
        world.enqueue(arguments=["x" * 200, 1])
    world.app.close()
    with open("jobs.db", "r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(4096 * 20))
    found = readings(world, healthy=False)
    assert {"integrity", "readable"} & {name for name, each in found.items() if each["verdict"] == "bad"}


def test_doctor_finds_what_is_no_database(world: World) -> None:
    Path("letter.db").write_text("Dear reader\n" * 1_000)
    found = readings(world, "--url", "sqlite:///letter.db", healthy=False)
    assert "is damaged or is no database" in found["readable"]["note"]


def test_doctor_finds_contradictions(world: World) -> None:
    """I3: the auditor is seen to fail."""
    id = world.enqueue()
    session = world.app.opened.shell.session()
    session.connection.execute("INSERT INTO windlass_waiting (seq, due, state) SELECT seq, 0, 'scheduled' FROM windlass_jobs")
    session.commit()
    found = readings(world, healthy=False)
    assert id in found["integrity"]["value"]


def test_doctor_finds_a_schema_to_come_and_one_of_the_future(world: World) -> None:
    world.enqueue()
    for version, note in (("0", "there is none yet: run `windlass store migrate`"), ("99", "is newer than this Windlass")):
        session = world.app.opened.shell.session()
        session.connection.execute("DELETE FROM windlass_schema_version")
        session.connection.execute("INSERT INTO windlass_schema_version (version, applied) VALUES (?, 0)", (int(version),))
        session.commit()
        found = readings(world, healthy=False)
        assert note in found["schema"]["note"]


def test_doctor_finds_queues_without_workers(world: World) -> None:
    world.enqueue(queue="mail")
    world.enqueue(queue="video", delay="1h")
    world.enqueue()
    world.beat()
    ran = world.run("store", "doctor", "--json")
    assert ran.code == 1
    found = {each["value"]: each for each in ran.json["readings"] if each["name"] == "queue"}
    assert (found["mail"]["verdict"], found["video"]["verdict"]) == ("bad", "warning")
    assert "default" not in found
    world.run("queues", "pause", "mail")
    ran = world.run("store", "doctor")
    assert ran.code == 0
    assert "WARNING  queue" in ran.out
    assert "mail: is paused, and 1 job waits" in ran.out


def test_doctor_asks_the_kernel_which_workers_live(world: World) -> None:
    world.beat("w1")
    world.beat("w2")
    directory = world.app.opened.run_directory()
    assert directory is not None
    living, dead = (lockfile.create(directory, name) for name in ("w1", "w2"))
    dead.close()
    found = readings(world)
    assert found["locks"]["value"] == 1
    assert (found["worker_dead"]["value"], found["worker_dead"]["verdict"]) == ("w2", "warning")
    assert lockfile.exists(directory, "w2")  # only looked at
    living.close()


def test_doctor_finds_a_lead_that_nobody_alive_has(world: World) -> None:
    world.beat()
    [worker] = world.do(world.store.workers())
    leads = {"scheduler": "s-gone", "somebody's lock": "s-gone", "maintainer": worker.supervisor}
    for name, holder in leads.items():
        world.do(world.store.lead(name, holder, 30_000_000))
    lead = readings(world)["lead"]
    assert (lead["value"], lead["verdict"]) == ("scheduler", "warning")
    assert "s-gone" in lead["note"]


def test_doctor_finds_silent_workers(world: World) -> None:
    world.beat("w1", hold=1)
    found = readings(world)
    assert found["worker_silent"]["value"] == "w1"
    assert found["workers"]["value"] == 0


def test_doctor_says_what_an_embedded_worker_cannot_promise(world: World, tasks: str) -> None:
    from windlass.loading import load

    world.run("store", "migrate")
    with load(tasks) as app:
        embedded = app.run_embedded()
        try:
            found = readings(world)
        finally:
            assert embedded.stop()
    assert "cannot end a handler that ignores its timeout" in found["worker_embedded"]["note"]
    assert "worker_embedded" not in readings(world)


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.ismount("/dev/shm"), reason="needs a tmpfs to write to")
def test_doctor_knows_a_file_system_that_is_memory(world: World) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        url = f"sqlite:///{place}/jobs.db"
        assert world.run("store", "migrate", "--url", url).code == 0
        found = readings(world, "--url", url)
        assert (found["file_system"]["value"], found["file_system"]["verdict"]) == ("tmpfs", "warning")


def test_doctor_warns_of_a_disk_that_is_almost_full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.enqueue()
    world.beat()
    real = os.statvfs

    def almost_full(path: Any) -> os.statvfs_result:
        found = list(real(path))
        found[4] = (8 << 20) // found[1]
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "statvfs", almost_full)
    found = readings(world, healthy=False)
    assert found["disk_free"]["verdict"] == "bad"
    assert "8.0 MiB: is almost nothing" in world.run("store", "doctor").out


# --- migrate, prune -----------------------------------------------------------------------------------------------


def test_migrate_makes_the_store_once(world: World) -> None:
    first = world.json("store", "migrate", "--url", "sqlite:///new.db")
    assert first == world.json("store", "migrate", "--url", "sqlite:///new.db")
    assert first["url"] == "sqlite:///new.db"
    assert first["version"] >= 1


def test_prune(world: World) -> None:
    for _ in range(3):
        world.enqueue()
        world.end(Succeeded())
    kept = world.enqueue()
    assert world.json("store", "prune") == {"jobs": 0, "results": 0, "keys": 0, "workers": 0}
    assert world.run("store", "prune", "--completed", "0s").out.startswith("removed 3 jobs, 0 results")
    assert world.app.client.fetch(kept).state == "queued"
    assert world.json("store", "prune", "--completed", "none")["jobs"] == 0


# --- queues, stats, workers ---------------------------------------------------------------------------------------


def test_stats(world: World) -> None:
    world.enqueue()
    world.enqueue(queue="mail", delay="1h")
    world.enqueue()
    world.claim()
    found = world.json("stats")
    assert {name: number for name, number in found["states"].items() if number} == {
        "queued": 1, "scheduled": 1, "running": 1,
    }  # fmt: skip
    assert set(found["states"]) == {
        "scheduled", "queued", "blocked", "running", "retrying", "completed", "dead", "cancelled", "expired",
    }  # fmt: skip
    assert (found["workers"], found["exact"]) == (1, False)
    default, mail = found["queues"]
    assert (default["queue"], default["queued"], default["running"], default["workers"]) == ("default", 1, 1, 1)
    assert default["oldest_due"] >= 0
    assert (mail["queue"], mail["waiting"], mail["workers"], mail["oldest_due"]) == ("mail", 1, 0, None)
    assert world.json("stats", "--exact")["exact"] is True
    assert world.run("stats").out.splitlines()[0].split() == ["STATE", "JOBS"]


def test_an_empty_store(world: World) -> None:
    world.run("store", "migrate")
    assert world.run("stats").out == "no jobs\n\nno queues\n"
    assert world.run("workers").out == "no workers are alive\n"
    assert world.run("jobs", "list").out == "no such jobs\n"
    assert world.run("dead", "list").out == "no dead letters\n"
    assert world.json("jobs", "list") == {"jobs": [], "next": None}


def test_queues_are_paused_and_resumed(world: World) -> None:
    world.enqueue()
    world.beat(queues=("default", "idle"))
    ran = world.run("queues", "pause", "default", "unheard-of")
    assert ran.out.splitlines()[0] == "queue 'default' is paused"
    found = {each["queue"]: each for each in world.json("queues", "list")["queues"]}
    assert {name: each["paused"] for name, each in found.items()} == {"default": True, "idle": False, "unheard-of": True}
    world.run("queues", "resume", "unheard-of")
    assert [each["queue"] for each in world.json("queues", "list")["queues"]] == ["default", "idle"]
    assert "default (paused)" in world.run("queues", "list").out
    assert world.json("queues", "resume", "default") == {"queues": {"default": {"paused": False}}}


def test_a_queue_that_nobody_knows_is_asked_about(world: World) -> None:
    """It may be meant for another, or be for jobs that are still to come; a script that reads JSON is not told."""
    world.enqueue(queue="plain")
    said = "no job waits or runs in queue 'plian', and no live worker serves it. Did you mean 'plain'?"
    for words in (["pause", "plian"], ["resume", "plian"], ["limit", "plian", "2"], ["bound", "plian", "--depth", "9"]):
        ran = world.run("queues", *words)
        assert (ran.code, ran.err) == (0, f"windlass: {said}\n")
        assert world.run("queues", *words, "--json").err == ""
    assert world.run("queues", "pause", "plain").err == ""


def test_what_is_no_queue_is_neither_paused_nor_resumed(world: World) -> None:
    world.enqueue()
    for word in ("pause", "resume"):
        for name, said in (("", "queue: '' must be text of 1 to 200"), ("a,b", "queue: 'a,b' must be printable, without commas")):
            ran = world.run("queues", word, name)
            assert (ran.code, ran.out) == (2, "")
            assert said in ran.err


def test_queues_are_limited(world: World) -> None:
    world.enqueue()
    assert world.run("queues", "limit", "default", "2").out == "queue 'default' has a limit of 2\n"
    assert world.json("queues", "limit", "default", "3") == {"queue": "default", "limit": 3}
    [found] = world.json("queues", "list")["queues"]
    assert (found["limit"], found["running"]) == (3, 0)
    assert "0 of 3" in world.run("queues", "list").out
    assert world.run("queues", "limit", "default", "none").out == "queue 'default' has no limit\n"
    for wrong in ("0", "-1", "many", "1.5"):
        assert world.run("queues", "limit", "default", "--", wrong).code == 2
    assert world.run("queues", "limit", "a:b", "1").code == 2


def test_queues_are_bounded(world: World) -> None:
    world.enqueue()
    said = world.run("queues", "bound", "default", "--depth", "1", "--age", "10m").out
    assert said == "queue 'default' is full with 1 job in line or once the first has waited 10m, and rejects what comes then\n"
    full = world.run("enqueue", "tasks.add")
    assert full.code == 4
    assert full.err.startswith("windlass: queue 'default' is full: 1 or more jobs wait")
    full = json.loads(world.run("enqueue", "tasks.add", "--json").err)
    assert (full["kind"], full["exit_code"], full["retry_after"]) == ("QueueFull", 4, 1.0)
    found = world.json("queues", "bound", "default", "--age", "none", "--when-full", "shed")
    assert found == {"queue": "default", "depth": 1, "age": None, "when_full": "shed"}
    [listed] = world.json("queues", "list")["queues"]
    assert listed["bounds"] == {"depth": 1, "age": None, "when_full": "shed"}
    assert world.run("queues", "list").out.splitlines()[1].endswith("1 job, then sheds")
    shed = world.run("enqueue", "tasks.add")
    assert world.json("jobs", "why", shed.out.strip())["cause"] == "shed"
    assert shed.err == "windlass: it was shed: its queue is full, so it is stored as cancelled and will not run\n"
    assert world.run("queues", "bound", "default", "none").out == "queue 'default' is unbounded\n"
    assert "FULL AT" not in world.run("queues", "list").out
    assert world.run("queues", "bound", "default", "--depth", "0").code == 2
    assert world.run("queues", "bound", "default", "--age", "soon").code == 2


def test_a_bound_is_only_taken_away_on_purpose(world: World) -> None:
    """What is not said stays as it is."""
    world.enqueue()
    refused = world.run("queues", "bound", "default", "--when-full", "shed")
    said = "windlass: queue 'default' has no bound: say --depth or --age with --when-full\n"
    assert (refused.code, refused.err) == (2, said)
    world.run("queues", "bound", "default", "--depth", "5", "--age", "10m")
    bare = world.run("queues", "bound", "default")
    assert (bare.code, bare.out) == (2, "")
    assert "say --depth or --age, or `windlass queues bound default none` to take the bounds away" in bare.err
    found = world.json("queues", "bound", "default", "--when-full", "shed")
    assert found == {"queue": "default", "depth": 5, "age": 600.0, "when_full": "shed"}
    found = world.json("queues", "bound", "default", "--depth", "6")
    assert found == {"queue": "default", "depth": 6, "age": 600.0, "when_full": "shed"}
    assert world.app.client.rules()["default"].bounds == Bounds(6, 600_000_000, shed=True)
    assert world.run("queues", "bound", "default", "none", "--depth", "2").code == 2
    assert world.run("queues", "bound", "default", "--depth", "none", "--age", "none").out == "queue 'default' is unbounded\n"


def test_workers(world: World) -> None:
    world.enqueue()
    world.claim("w1")
    world.beat("w2", hold=1, queues=("mail", "default"), busy=3)
    found = {each["id"]: each for each in world.json("workers")["workers"]}
    assert (found["w1"]["alive"], found["w2"]["alive"]) == (True, False)
    assert (found["w2"]["queues"], found["w2"]["busy"], found["w2"]["slots"]) == (["mail", "default"], 3, 4)
    assert "silent for" in world.run("workers").out


# --- enqueue ------------------------------------------------------------------------------------------------------


def test_enqueue_by_name(world: World) -> None:
    """The code of the task may be elsewhere, and the store may be new."""
    ran = world.run(
        "enqueue", "mail.send", '{"to": "a@b"}', "--queue", "mail", "--delay", "1h", "--priority", "80", "--tag", "x",
        "--tag", "y", "--header", "tenant=a=b", "--key", "k1", "--max-attempts", "2", "--timeout", "3s", "--expires", "2h",
    )  # fmt: skip
    made = f"windlass: there was no store at {world.directory}/jobs.db, so a new one was made there\n"
    assert (ran.code, ran.err) == (0, made)
    assert world.run("enqueue", "mail.send").err == ""
    found = world.json("jobs", "show", ran.out.strip())
    assert (found["task"], found["queue"], found["state"], found["priority"]) == ("mail.send", "mail", "scheduled", 80)
    assert (found["payload"], found["tags"], found["headers"]) == ([[], {"to": "a@b"}], ["x", "y"], {"tenant": "a=b"})
    assert found["max_attempts"] == 2
    assert found["expires_at"]


def test_enqueue_checks_the_types_of_the_task(world: World, tasks: str) -> None:
    found = world.json("enqueue", "tasks.send", '["a@b"]', "--app", tasks)
    assert found["created"]
    shown = world.json("jobs", "show", found["id"])
    assert (shown["queue"], shown["version"]) == ("mail", 2)


def test_enqueue_under_a_key(world: World) -> None:
    """I10b."""
    first = world.json("enqueue", "t", "[1]", "--key", "k")
    assert world.json("enqueue", "t", "[1]", "--key", "k") == {"id": first["id"], "created": False}
    again = world.run("enqueue", "t", "[1]", "--key", "k")
    assert (again.out, again.err) == (first["id"] + "\n", "windlass: it was enqueued before, under the same key\n")
    ran = world.run("enqueue", "t", "[2]", "--key", "k")
    assert ran.code == 1
    assert f"'k' belongs to job {first['id']}, which has another payload" in ran.err


def test_arguments_may_be_called_anything(world: World) -> None:
    """Names that Windlass itself uses for parameters are the task's own business."""
    values = {"self": 1, "task": 2, "args": [3], "kwargs": {}, "arguments": 4, "version": 5}
    id = world.json("enqueue", "t", json.dumps(values))["id"]
    assert world.json("jobs", "show", id)["payload"] == [[], values]


def test_enqueue_waits_for_the_result(world: World) -> None:
    ran = world.run("enqueue", "t", "--wait", "50ms")
    assert ran.code == 1
    assert ran.err.rstrip().endswith(f" has not ended within 50ms: no worker is alive on {world.directory}/jobs.db")
