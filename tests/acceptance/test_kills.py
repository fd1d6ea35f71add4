"""SIGKILL: of workers, of supervisors, of what a job had started."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.acceptance.rig import command, eventually, rig, tree
from windlass.core.job import State


def test_the_job_of_a_killed_worker_starts_again_within_a_second(tmp_path: Path) -> None:
    """I8."""
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "2", "--concurrency", "4")
        gate = tmp_path / "gate"
        [job] = r.enqueue("wait_for", (str(gate),))
        first = r.started(job)
        os.kill(first.actor, signal.SIGKILL)
        killed = time.monotonic()
        second = r.started(job, 2)
        assert second.at - killed < 1.0
        assert second.actor != first.actor
        (tmp_path / "gate-2").touch()
        eventually(lambda: r.job(job).state is State.COMPLETED)
        assert [a.outcome for a in r.run(r.opened.store.attempts(job))] == ["crashed", "succeeded"]
        assert supervisor.stop() == 0
        assert r.violations() == []


def test_workers_die_with_their_supervisor_and_the_next_one_recovers(tmp_path: Path) -> None:
    """I8, by the kernel's lock: nobody waits for a lease of 15 s."""
    with rig(tmp_path) as r:
        first = r.supervise("--processes", "2")
        gate = tmp_path / "gate"
        jobs = r.enqueue("wait_for", *[(str(gate),)] * 3)
        slot = r.enqueue("good_process", (60,))
        for job in [*jobs, *slot]:
            r.started(job)
        below = tree(first.pid)
        first.kill()
        eventually(lambda: not [pid for pid in below if os.path.exists(f"/proc/{pid}/exe")], 2.0)
        assert r.job(jobs[0]).state is State.RUNNING
        (tmp_path / "gate-2").touch()
        began = time.monotonic()
        second = r.supervise("--processes", "2", "--stop-timeout", "500ms")
        for job in jobs:
            assert r.started(job, 2).at - began < 5.0
        eventually(lambda: all(r.job(job).state is State.COMPLETED for job in jobs))
        r.started(slot[0], 2)
        assert {job.losses for job in r.jobs()} == {1}
        assert second.stop() == 0  # the child that runs the job of a minute could be killed alone
        assert r.job(slot[0]).state is State.QUEUED
        assert not [name for name in os.listdir(f"{tmp_path}/jobs.db-run") if name.endswith(".lock")]


def test_what_a_job_had_started_is_gone_before_the_job_runs_again(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "1")
        [job] = r.enqueue("with_child", (str(tmp_path / "busy"), 1.0))
        first = r.started(job)
        eventually((tmp_path / "busy").exists)
        os.kill(first.actor, signal.SIGKILL)
        second = r.started(job, 2)
        assert (first.note, second.note) == ("free", "free")
        eventually(lambda: r.job(job).state is State.COMPLETED)
        assert supervisor.stop() == 0
        assert r.violations() == []


def test_orphans_of_jobs_are_waited_for(tmp_path: Path) -> None:
    """As process 1 of a container, nobody else would."""
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "1")
        jobs = r.enqueue("leave_orphan", *[()] * 5)
        eventually(lambda: all(r.job(job).state is State.COMPLETED for job in jobs))

        def below() -> list[bytes]:
            return [command(pid) for pid in tree(supervisor.pid)[1:]]

        assert any(b"sleep" in line for line in below())  # adopted
        eventually(lambda: all(b"windlass" in line for line in below()), 3.0)  # a zombie has no command line
        assert supervisor.stop() == 0
