"""Jobs that kill their worker, among others that must not suffer for it (I6)."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.rig import eventually, rig

CRASH_BUDGET = 3
POISON = {"segfault": 6, "suicide": 6, "glutton": 5, "gil_hog": 3}
GOOD = 2_000
SCALE = {"closing": 5, "soak": 50}.get(os.environ.get("WINDLASS_PROOF", ""), 1)


def test_poison_among_good_jobs(tmp_path: Path) -> None:
    """I6: poison is dead within its budgets, nobody else is charged for it, nothing is lost."""
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "2", "--concurrency", "10")
        poison = []
        for kind, count in POISON.items():
            for _ in range(count * SCALE):
                r.enqueue("good", *[(0.005,)] * (GOOD // 20))
                poison += r.enqueue(kind, ())
        eventually(r.all_ended, 100.0 * SCALE)
        jobs = r.jobs()
        assert Counter(job.state for job in jobs) == {"completed": GOOD * SCALE, "dead": 20 * SCALE}
        assert {job.id for job in jobs if job.state == "dead"} == set(poison)
        reasons = Counter((job.task.removeprefix("proving_ground."), job.reason) for job in jobs if job.state == "dead")
        assert reasons == {
            (kind, "attempts_exhausted" if kind == "gil_hog" else "crashed"): count * SCALE
            for kind, count in POISON.items()
        }
        good = [job for job in jobs if job.state == "completed"]
        assert {(job.attempt, job.crashes) for job in good} == {(1, 0)}
        assert r.violations(starts_most=1 + CRASH_BUDGET + 2) == []
        assert supervisor.stop() == 0


CRASHED, ATTEMPTS = "crashed", "attempts_exhausted"
SLY = {
    "fatal_payload": (("x",), CRASHED),
    "endless_payload": (("x",), ATTEMPTS),
    "exiting_payload": (("x",), ATTEMPTS),
    "fatal_payload_process": (("x",), CRASHED),
    "afterwards": ((), CRASHED),
    "cancel_all": ((), CRASHED),
    "stop_loop": ((), ATTEMPTS),
    "close_all": ((), CRASHED),
    "close_all_async": ((), CRASHED),
    "abort": ((), ATTEMPTS),
}


@pytest.mark.parametrize("kind", SLY)
def test_poison_that_strikes_before_or_after_its_handler(tmp_path: Path, kind: str) -> None:
    """I6: while its payload is decoded, when it has ended, or by what its worker's loop lives of."""
    call, reason = SLY[kind]
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "1", "--concurrency", "10")
        poison = r.enqueue(kind, call)
        good = r.enqueue("good", *[(0.01,)] * 100)
        poison += r.enqueue(kind, call)
        eventually(r.all_ended, 60.0)
        assert [(r.job(job).state, r.job(job).reason) for job in poison] == [("dead", reason)] * 2
        assert {(r.job(job).state, r.job(job).attempt, r.job(job).crashes) for job in good} == {("completed", 1, 0)}
        assert max(r.job(job).losses for job in poison) <= CRASH_BUDGET + 2
        assert r.violations(starts_most=1 + CRASH_BUDGET + 2) == []
        assert supervisor.stop() == 0


def test_a_process_slot_dies_alone(tmp_path: Path) -> None:
    """I6: a crash in a process slot is certainly its job's own, and its worker's other jobs do not notice."""
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "1", "--concurrency", "4")
        [neighbour] = r.enqueue("wait_for", (str(tmp_path / "gate"),))
        worker = r.started(neighbour).actor
        crashing, stuck = r.enqueue("segfault_process", ()) + r.enqueue("gil_hog_process", ())
        eventually(lambda: r.job(crashing).state == "dead" and r.job(stuck).state == "dead")
        assert (r.job(crashing).reason, r.job(crashing).crashes) == ("crashed", CRASH_BUDGET)
        assert (r.job(stuck).reason, r.job(stuck).attempt) == ("attempts_exhausted", 2)
        assert os.path.exists(f"/proc/{worker}")
        (tmp_path / "gate-1").touch()
        eventually(lambda: r.job(neighbour).state == "completed")
        assert len(r.lines(neighbour, "start")) == 1
        assert supervisor.stop() == 0


def test_lost_claim_answers_lose_no_job(tmp_path: Path) -> None:
    """I1, I4: what was granted without anybody hearing of it is found again, and is not given twice."""
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "2", "--concurrency", "5", LOSE_ANSWERS="3")
        eventually(lambda: len(r.workers()) == 2)
        for _ in range(50):
            r.enqueue("good", *[(0,)] * 10)
            time.sleep(0.02)
        eventually(r.all_ended)
        assert supervisor.stop() == 0
        assert sum(int(line.note) for line in r.lines(what="lost")) > 20, "too few grants were lost to prove anything"
        assert r.violations(exactly_once=True) == []
