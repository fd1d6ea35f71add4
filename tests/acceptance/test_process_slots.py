"""Process slots: a handler in a child process has all that a handler elsewhere has."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from tests.acceptance.rig import Rig, eventually, rig, tree
from windlass.ports.store import Selection


def ended(r: Rig, job: str) -> Any:
    return eventually(lambda: (found := r.job(job)).state.terminal and found)


def test_everything_that_a_context_can_do(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "1", "--concurrency", "4")
        what = ["report", "child", "transaction", "undone", "unstorable", "exit", "snooze"]
        jobs = dict(zip(what, r.enqueue("in_slot", *[(each,) for each in what]), strict=True))

        report = ended(r, jobs["report"])
        kept, other, pid = json.loads(report.result)
        assert (report.attempt, other) == (2, "first")
        assert kept in {line.actor for line in r.lines(jobs["report"], "start")}  # of the first attempt, kept
        assert pid not in {w.pid for w in r.workers()}
        assert json.loads(report.progress)["note"] == "half"
        assert [line.message for line in r.run(r.opened.store.logs(jobs["report"]))] == ["from the child"] * 2

        child = json.loads(ended(r, jobs["child"]).result)
        assert ended(r, child).state == "completed"
        assert ended(r, jobs["transaction"]).result == '"written"'
        assert (ended(r, jobs["undone"]).state, r.job(jobs["undone"]).reason) == ("dead", "not this one")
        assert r.sql("SELECT note FROM mine") == [("transaction",)]
        assert ended(r, jobs["unstorable"]).reason == "result_unserialisable"
        assert "SystemExit" in (ended(r, jobs["exit"]).error or "")
        assert ended(r, jobs["snooze"]).reason == "enough"
        assert supervisor.stop() == 0
        assert r.run(r.opened.store.audit()) == []


def test_resources_are_made_in_the_child_and_ended_with_it(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "1")
        made, here = json.loads(ended(r, r.enqueue("with_resource", ())[0]).result)
        assert made == here
        assert supervisor.stop() == 0
        assert len({line.actor for line in r.lines(what="hook ended")}) == 2  # the worker's, and the child's


def test_a_cancelled_or_late_job_is_stopped_with_its_child(tmp_path: Path) -> None:
    """A7: killed, confirmed, and only then settled."""
    with rig(tmp_path, WINDLASS_HOLD="300ms") as r:
        supervisor = r.supervise("--processes", "1", "--concurrency", "4")
        cancelled, late = r.enqueue("good_process", (60,)) + r.enqueue("gil_hog_process", ())
        first = r.started(cancelled)
        r.run(r.opened.store.cancel(Selection(ids=(cancelled,))))
        assert ended(r, cancelled).state == "cancelled"
        assert not os.path.exists(f"/proc/{first.actor}")
        assert ended(r, late).state == "dead"
        assert not [line for line in r.lines(late) if os.path.exists(f"/proc/{line.actor}")]
        assert supervisor.stop() == 0


def test_the_child_is_kept_for_the_next_job_and_dies_with_its_worker(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "1", "--concurrency", "1")
        pids = set()
        for _ in range(5):
            [job] = r.enqueue("good_process", (0,))
            pids.add(json.loads(ended(r, job).result))
        assert len(pids) == 1
        [job] = r.enqueue("good_process", (60,))
        child = r.started(job).actor
        [worker] = [w.pid for w in r.workers()]
        os.kill(worker, 9)
        eventually(lambda: not os.path.exists(f"/proc/{child}/exe"), 2.0)
        again = r.started(job, 2)
        assert again.actor != child
        assert r.job(job).crashes == 0  # a child of its own cannot have killed the worker: suspect, not guilty
        below = tree(supervisor.pid)
        supervisor.kill()
        time.sleep(0.1)
        eventually(lambda: not [pid for pid in below if os.path.exists(f"/proc/{pid}/exe")], 2.0)


UNLOADABLE = """
import json, os, sys
from windlass import Windlass
if json.loads(sys.argv[1])["role"] == "slot" and not os.path.exists(os.environ["GATE"]):
    raise ImportError("libheavy.so: cannot open shared object file")
app = Windlass()

@app.task(name="proving_ground.heavy", executor="process")
def heavy():
    return "done"
"""


def test_an_application_that_only_its_slots_cannot_load(tmp_path: Path) -> None:
    """I2: their jobs wait, uncharged, where anybody can see why; and run once it loads."""
    (tmp_path / "heavy.py").write_text(UNLOADABLE)
    gate = tmp_path / "gate"
    with rig(tmp_path, GATE=str(gate)) as r:
        supervisor = r.supervise("--processes", "1", target=str(tmp_path / "heavy.py"))
        jobs = r.enqueue("heavy", (), ())

        def handed_back() -> bool:
            attempts = [each for job in jobs for each in r.run(r.opened.store.attempts(job))]
            return any("libheavy.so" in (each.reason or "") for each in attempts) or all(
                "libheavy.so" in (r.job(job).reason or "") for job in jobs
            )

        eventually(handed_back)
        assert all((r.job(job).attempt, r.job(job).losses) in {(0, 0), (1, 0)} for job in jobs)
        assert r.logs().count("a process slot cannot start") == 1
        gate.touch()
        assert [json.loads(ended(r, job).result) for job in jobs] == ["done", "done"]
        assert [r.job(job).attempt for job in jobs] == [1, 1]
        assert supervisor.stop() == 0
