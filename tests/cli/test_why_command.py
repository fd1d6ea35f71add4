"""`windlass jobs why`: each cause, brought about in a real store."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import World
from windlass import Unique
from windlass.core.job import Discarded, ErrorInfo, Failed, Released, Snoozed, Succeeded

NO = ErrorInfo("ValueError", "no")


def why(world: World, id: str) -> dict[str, Any]:
    found: dict[str, Any] = world.json("jobs", "why", id)
    assert found["id"] == id
    said = world.run("jobs", "why", id)
    first = said.out.splitlines()[0]
    if "T" not in found["sentence"] and "starting for" not in found["sentence"]:  # the others hold spans, which go on
        assert first == found["sentence"]
    return found


def test_scheduled_until(world: World) -> None:
    found = why(world, world.enqueue(delay="10m"))
    assert found["cause"] == "scheduled"
    assert 595 < found["facts"]["due_in"] <= 600
    assert found["facts"]["then"] == "no_workers"


def test_snoozed_until(world: World) -> None:
    id = world.enqueue()
    world.end(Snoozed(90.0, "the bank is closed"))
    found = why(world, id)
    assert found["cause"] == "snoozed"
    assert found["sentence"].endswith("): the bank is closed")


def test_retrying_until_after_which_error(world: World) -> None:
    id = world.enqueue()
    world.end(Failed(ErrorInfo("requests.HTTPError", "503 Server Error")))
    found = why(world, id)
    assert found["cause"] == "retrying"
    assert found["sentence"].endswith("after attempt 1 of 5 failed with requests.HTTPError: 503 Server Error")
    assert found["facts"]["error"] == "requests.HTTPError: 503 Server Error"


def test_queue_paused(world: World) -> None:
    id = world.enqueue()
    world.beat()
    assert world.run("queues", "pause", "default").code == 0
    assert why(world, id)["sentence"] == "queue 'default' is paused"
    assert world.run("queues", "resume", "default").code == 0
    assert why(world, id)["cause"] == "next"


def test_blocked_by_a_limit(world: World) -> None:
    world.enqueue(limit=1, limit_key="user", arguments={"user": "ada"})
    id = world.enqueue(limit=1, limit_key="user", arguments={"user": "ada"})
    world.claim()
    world.enqueue()
    world.claim()  # which passes it by
    found = why(world, id)
    assert found["cause"] == "limit"
    assert found["sentence"] == "blocked by the limit 'tasks.add' for 'ada': 1 of 1 runs"
    assert found["facts"] == {"limit": "tasks.add", "key": "ada", "running": 1, "most": 1}


def test_blocked_by_a_unique_key(world: World) -> None:
    keep_last = Unique("n", policy="keep-last")
    owner = world.enqueue(arguments={"n": 1}, unique=keep_last)
    world.claim()
    id = world.enqueue(arguments={"n": 1}, unique=keep_last)
    found = why(world, id)
    assert found["cause"] == "unique"
    assert found["sentence"] == f"blocked: job {owner} (running) has the same unique key, and must end first"
    assert found["facts"] == {"owner": owner, "awaited": owner, "awaited_state": "running"}


def test_queue_at_its_limit(world: World) -> None:
    world.enqueue()
    world.enqueue()
    id = world.enqueue()
    world.run("queues", "limit", "default", "1")
    world.claim()
    found = why(world, id)
    assert found["cause"] == "queue_limit"
    assert found["sentence"] == "queue 'default' is at its limit: 1 of 1 runs, with 1 job before it"


def test_no_workers(world: World) -> None:
    """With the store that it was looked for in: a worker on another file of the same name is a common mistake."""
    found = why(world, world.enqueue())
    assert found["sentence"] == f"no worker is alive on {world.directory}/jobs.db"
    assert found["facts"]["store"] == f"{world.directory}/jobs.db"


def test_no_worker_serves_the_queue(world: World) -> None:
    id = world.enqueue(queue="mail")
    world.beat()
    assert why(world, id)["sentence"] == "no worker serves queue 'mail' (1 worker alive, for 'default')"


def test_no_worker_knows_the_task(world: World) -> None:
    id = world.enqueue("reports.build")
    world.beat()
    assert why(world, id)["cause"] == "unknown_task"


def test_no_worker_knows_the_version(world: World) -> None:
    id = world.enqueue(version=3)
    world.beat(tasks=("tasks.add@2",))
    found = why(world, id)
    assert (found["cause"], found["facts"]["known"]) == ("unknown_version", 2)


@pytest.mark.parametrize("reason", ["unknown_task", "unknown_version"])
def test_parked(world: World, reason: str) -> None:
    """I22."""
    id = world.enqueue(version=3)
    world.end(Released(reason, 32.0))
    world.beat(tasks=("other",) if reason == "unknown_task" else ("tasks.add@2",))
    found = why(world, id)
    assert found["cause"] == reason
    assert "; it is looked at again at " in found["sentence"]


def test_slots_full_and_place_in_line(world: World) -> None:
    for _ in range(3):
        world.enqueue()
    id = world.enqueue()
    world.beat(busy=4)
    found = why(world, id)
    assert found["sentence"] == "all 4 slots of 1 worker are busy, with 3 jobs of queue 'default' before it"
    assert found["facts"]["place"] == 4


def test_in_line(world: World) -> None:
    world.enqueue()
    id = world.enqueue()
    world.beat()
    assert why(world, id)["cause"] == "in_line"
    assert why(world, world.enqueue(priority=90))["cause"] == "next"


def test_workers_stopping(world: World) -> None:
    id = world.enqueue()
    world.beat(state="draining")
    assert why(world, id)["cause"] == "workers_stopping"


def test_a_start_hook_that_does_not_return(world: World) -> None:
    id = world.enqueue()
    world.beat(state="starting")
    found = why(world, id)
    assert (found["cause"], found["facts"]["worker"]) == ("worker_starting", "w1")
    assert "its start hook has not returned" in world.run("jobs", "why", id).out
    assert world.run("workers").out.splitlines()[1].split()[1] == "starting"


def test_a_loop_that_does_not_turn(world: World) -> None:
    id = world.enqueue()
    world.beat(state="stalled")
    found = why(world, id)
    assert (found["cause"], found["facts"]["worker"]) == ("worker_stalled", "w1")
    assert "its event loop does not turn" in world.run("jobs", "why", id).out


def test_suspect_waiting_for_quarantine(world: World) -> None:
    """I6."""
    id = world.enqueue()
    world.claim("w0")
    world.die("w0", executing=(id,), detail="killed by signal 11 (SIGSEGV)")
    world.beat("w1")
    found = why(world, id)
    assert found["cause"] == "suspect"
    assert "a worker died while it ran (killed by signal 11 (SIGSEGV))" in found["sentence"]
    assert found["facts"]["losses"] == 1


def test_running_and_cancelling(world: World) -> None:
    id = world.enqueue()
    world.claim()
    found = why(world, id)
    assert (found["cause"], found["facts"]["worker"]) == ("running", "w1")
    asked = world.run("jobs", "cancel", id)
    assert asked.out == "1 running job asked to stop\n"
    assert why(world, id)["cause"] == "cancelling"


def test_completed(world: World) -> None:
    id = world.enqueue()
    world.end(Succeeded("3"))
    assert why(world, id)["cause"] == "completed"


def test_cancelled(world: World) -> None:
    id = world.enqueue()
    assert world.run("jobs", "cancel", id).out == "1 job cancelled\n"
    assert why(world, id)["cause"] == "cancelled"


def test_expired(world: World) -> None:
    id = world.enqueue(expires="0s")
    world.do(world.store.promote(10))
    assert why(world, id)["cause"] == "expired"


def dead(world: World, id: str, reason: str, said: str) -> None:
    found = why(world, id)
    assert (found["cause"], found["facts"]["reason"]) == ("dead", reason)
    assert said in found["sentence"]


def test_dead_of_exhausted_attempts(world: World) -> None:
    id = world.enqueue(max_attempts=2)
    world.end(Failed(NO))
    world.app.client.revive(id)  # it waits for its backoff; now it is due
    world.end(Failed(NO))
    dead(world, id, "attempts_exhausted", "all 2 attempts that it was allowed were used, the last failed: ValueError: no")


def test_dead_of_a_permanent_error(world: World) -> None:
    id = world.enqueue()
    world.end(Failed(NO, permanent=True))
    dead(world, id, "failed", "attempt 1 failed in a way that trying again cannot mend: ValueError: no")


def test_dead_of_its_own_crashes(world: World) -> None:
    id = world.enqueue()
    world.claim("w0")
    world.die("w0", executing=(id,), detail="killed by signal 11")
    for n in (1, 2, 3):
        world.claim(f"q{n}", suspects=True)
        world.die(f"q{n}", executing=(id,), alone=True, detail="killed by signal 11")
    dead(world, id, "crashed", "it brought down its process 3 times, running alone: WorkerLost: killed by signal 11")


def test_dead_of_too_many_losses(world: World) -> None:
    """A job whose owners keep dying, though it runs alone without a crash: it must not go on for ever."""
    id = world.enqueue(max_attempts=100)
    for n in range(1, 11):
        world.claim(f"w{n}")
        world.die(f"w{n}", executing=(id,), detail="its host is gone")
        if n < 10:
            alone = world.claim(f"q{n}", suspects=True)
            world.settle(alone, Failed(NO), f"q{n}")  # it ran to its end, so it is no suspect any more
            world.app.client.revive(id)  # due now instead of after its backoff
    dead(world, id, "lost_too_often", "its worker was lost 10 times while it ran: WorkerLost: its host is gone")


def test_dead_because_its_handler_gave_it_up(world: World) -> None:
    id = world.enqueue()
    world.end(Discarded("customer left", ErrorInfo("windlass.Discard", "customer left")))
    dead(world, id, "customer left", "its handler gave it up in attempt 1: customer left")
    assert why(world, id)["sentence"].endswith("customer left")


def test_dead_because_its_result_cannot_be_stored(world: World) -> None:
    """I24."""
    id = world.enqueue()
    world.end(Failed(ErrorInfo("PayloadInvalid", "result.x: is no JSON"), permanent=True, reason="result_unserialisable"))
    dead(world, id, "result_unserialisable", "what it returned cannot be stored: PayloadInvalid: result.x: is no JSON")


def test_no_such_job(world: World) -> None:
    world.enqueue()
    ran = world.run("jobs", "why", "019d8e3c-1111-7000-8000-000000000001")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == "windlass: job 019d8e3c-1111-7000-8000-000000000001 is not in the store\n"
