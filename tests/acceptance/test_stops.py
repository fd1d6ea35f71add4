"""SIGTERM at random: nothing is lost, nothing is charged, nothing is done twice (I26)."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from tests.acceptance.rig import eventually, rig

ROUNDS = {"closing": 60, "soak": 1_000}.get(os.environ.get("WINDLASS_PROOF", ""), 6)


def test_stopped_at_random_nothing_is_lost_charged_or_done_twice(tmp_path: Path) -> None:
    """I26."""
    seed = int(os.environ.get("WINDLASS_SEED", time.time_ns() % 1_000_000))
    print(f"WINDLASS_SEED={seed}")
    chance = random.Random(seed)
    with rig(tmp_path) as r:
        for _ in range(ROUNDS):
            supervisor = r.supervise("--processes", "2", "--concurrency", "8", "--stop-timeout", "10s")
            for task in ("good", "good_thread", "good_process"):
                few = 3 if task == "good_process" else 60
                r.enqueue(task, *[(chance.choice((0, 0, 0.01, 0.1)),) for _ in range(few)])
            time.sleep(chance.random() * 1.2)  # from before the workers are there until all is done
            began = time.monotonic()
            assert supervisor.stop() == 0
            assert time.monotonic() - began < 5.0
            assert not r.workers()
        last = r.supervise("--processes", "2")
        eventually(r.all_ended)
        assert last.stop() == 0
        assert r.violations(exactly_once=True) == []
        assert {(job.state, job.attempt, job.losses) for job in r.jobs()} == {("completed", 1, 0)}


def test_a_stop_is_heard_at_once(tmp_path: Path) -> None:
    """I26: no job starts more than 100 ms after the signal, and the running one ends."""
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "2", "--concurrency", "1")
        jobs = r.enqueue("good", *[(0.3,)] * 12)
        r.started(jobs[0])
        supervisor.process.terminate()
        told = time.monotonic()
        assert supervisor.process.wait(10) == 0
        starts = r.lines(what="start")
        assert max(line.at for line in starts) < told + 0.1
        assert len(r.lines(what="end")) == len(starts)
        assert {job.attempt for job in r.jobs() if job.state == "queued"} == {0}


def test_a_second_signal_hands_running_jobs_back(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "1", "--stop-timeout", "60s")
        [job] = r.enqueue("good", (60,))
        r.started(job)
        supervisor.process.terminate()
        time.sleep(0.7)
        assert supervisor.process.poll() is None
        assert supervisor.stop(5.0) == 0
        assert (r.job(job).state, r.job(job).attempt) == ("queued", 0)
