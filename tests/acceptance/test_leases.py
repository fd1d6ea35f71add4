"""SIGSTOP of a whole process tree past its lease, where leases judge: whoever wakes up late changes nothing (I4)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.rig import Rig, Supervised, eventually, rig, stop_tree
from windlass.core.errors import StoreTimeout
from windlass.core.job import State

HOLD = 1.0
ROUNDS = {"closing": 50, "soak": 500}.get(os.environ.get("WINDLASS_PROOF", ""), 2)


def supervise(r: Rig) -> Supervised:
    return r.supervise("--processes", "1", WINDLASS_LIVENESS="lease", WINDLASS_HOLD=f"{HOLD}s")


def stop_between_writes(r: Rig, a: Supervised) -> None:
    """SIGSTOP everything of `a`, but not while one of them holds the file's write lock: that would stop everybody."""
    while True:
        stop_tree(a)  # perhaps with the lock
        try:
            r.opened.shell.run(r.opened.store.lead("probe", "test", 1), timeout=0.3)
        except StoreTimeout:
            a.signal_tree(signal.SIGCONT)
            time.sleep(0.02)
        else:
            return


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_ghost_changes_nothing(tmp_path: Path, number: int) -> None:
    """I4, A-B-A: A is stopped, B takes its job over and fails it, A' (a new worker of A's supervisor) claims it again
    and is running it while the old handler of A ends."""
    with rig(tmp_path) as r:
        gate = tmp_path / "gate"
        a = supervise(r)
        [job] = r.enqueue("wait_for", (str(gate), True))
        first = r.started(job)
        stop_between_writes(r, a)
        b = supervise(r)
        second = r.started(job, 2)  # taken over, in quarantine, after a whole hold of B's own
        assert second.fence > first.fence
        state = r.job(job)
        assert (state.state, state.fence, state.losses) == (State.RUNNING, second.fence, 1)

        # A's handler ends as soon as it wakes, while the job runs at B: its outcome must be refused.
        (tmp_path / "gate-1").touch()
        a.signal_tree(signal.SIGCONT)
        eventually(lambda: not os.path.exists(f"/proc/{first.actor}"), 15.0)  # told that it was taken over, it left
        ghosts = [line for line in r.lines(job, "end") if line.actor == first.actor]
        assert {line.fence for line in ghosts} <= {first.fence}  # most often it ended first
        state = r.job(job)
        assert (state.state, state.fence, state.result) == (State.RUNNING, second.fence, None)

        # B, which claims no more, fails it and leaves; A' runs the third.
        b.process.terminate()
        eventually(lambda: "stopping" in b.log.read_text())
        (tmp_path / "gate-2").touch()
        assert b.process.wait(20) == 0
        third = r.started(job, 3)
        assert third.fence > second.fence
        (tmp_path / "gate-3").touch()
        eventually(lambda: r.job(job).state is State.COMPLETED)
        assert r.job(job).result == '"run 3"'
        outcomes = [attempt.outcome for attempt in r.run(r.opened.store.attempts(job))]
        # B's other worker may have just claimed it when it was told to stop, and handed it back.
        assert [outcome for outcome in outcomes if outcome != "released"] == ["lost", "failed", "succeeded"]
        assert a.stop() == 0
        assert r.violations() == []


def test_an_exclusive_job_is_dead_before_its_lease_ends(tmp_path: Path) -> None:
    """I5: cut off from the store, its child is killed while nobody else may run it yet."""
    hold = 2.0
    with rig(tmp_path, WINDLASS_HOLD=f"{hold}s", WINDLASS_LIVENESS="lease") as r:
        supervisor = r.supervise("--processes", "1")
        [job] = r.enqueue("only_one", (2.5,))
        first = r.started(job)
        time.sleep(0.3)
        with r.away():
            cut_off = time.monotonic()  # it was renewed before
            time.sleep(hold * 1.5)
            alive = [line.at for line in r.lines(job, "alive")]
            assert cut_off < max(alive) < cut_off + hold
            assert not os.path.exists(f"/proc/{first.actor}/exe")
        eventually(lambda: r.job(job).state is State.COMPLETED)
        assert len(r.lines(job, "start")) == 2
        running = 0
        for line in r.lines(job):  # whoever shows life is the one that started last
            running = line.actor if line.what == "start" else running
            assert line.actor == running
        assert (r.job(job).losses, r.job(job).crashes, r.job(job).attempt) == (1, 0, 1)
        assert supervisor.stop() == 0


def test_a_stopped_tree_is_left_alone_where_the_kernel_judges(tmp_path: Path) -> None:
    """I8: it is slow, not dead; nobody takes its job, and it finishes."""
    with rig(tmp_path, WINDLASS_HOLD="500ms") as r:
        gate = tmp_path / "gate"
        a = r.supervise("--processes", "1")
        [job] = r.enqueue("wait_for", (str(gate),))
        r.started(job)
        stop_between_writes(r, a)
        b = r.supervise("--processes", "1")
        eventually(lambda: len(r.workers()) == 2)
        time.sleep(2.0)
        (tmp_path / "gate-1").touch()
        a.signal_tree(signal.SIGCONT)
        eventually(lambda: r.job(job).state is State.COMPLETED)
        assert (r.job(job).losses, len(r.lines(job, "start"))) == (0, 1)
        assert (a.stop(), b.stop()) == (0, 0)
        assert r.violations(exactly_once=True) == []
