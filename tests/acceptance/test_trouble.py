"""A store that goes away, an application that does not load, a file that changes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.acceptance.rig import eventually, rig
from windlass.core.job import State

HOLD = 1.0


def test_an_outage_of_the_store_costs_nobody_anything(tmp_path: Path) -> None:
    """A8, I8: two hosts (leases judge) cut off from the store for three holds; nobody is killed, nothing is taken."""
    with rig(tmp_path, WINDLASS_LIVENESS="lease", WINDLASS_HOLD=f"{HOLD}s") as r:
        supervisors = [r.supervise("--processes", "1") for _ in range(2)]
        eventually(lambda: len(r.workers()) == 2)
        before = {(worker.id, worker.pid) for worker in r.workers()}
        gate = tmp_path / "gate"
        jobs = r.enqueue("wait_for", *[(str(gate),)] * 6)
        for job in jobs:
            r.started(job)
        time.sleep(HOLD)
        with r.away():
            (tmp_path / "gate-1").touch()
            time.sleep(3 * HOLD)
        back = time.monotonic()
        eventually(lambda: all(r.job(job).state is State.COMPLETED for job in jobs))
        assert time.monotonic() - back < 10.0
        assert {(worker.id, worker.pid) for worker in r.workers()} == before
        assert [s.stop() for s in supervisors] == [0, 0]
        assert r.violations(exactly_once=True) == []


def test_a_stop_while_the_store_is_away_ends_in_time(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", "2", "--stop-timeout", "1s")
        eventually(lambda: len(r.workers()) == 2)
        with r.away():
            began = time.monotonic()
            supervisor.stop()
            assert time.monotonic() - began < 20.0
        again = r.supervise("--processes", "1")  # by their locks, those workers are known to be gone
        eventually(lambda: len(r.workers()) == 1)
        assert again.stop() == 0


@pytest.mark.parametrize("processes", ["1", "0"])
def test_a_handler_that_closes_the_application_stops_no_worker(tmp_path: Path, processes: str) -> None:
    """`with app:` is what the documentation shows for scripts, so it comes to stand in handlers."""
    with rig(tmp_path) as r:
        supervisor = r.supervise("--processes", processes)
        jobs = r.enqueue("close_app", *[()] * 12)
        eventually(lambda: r.run(r.opened.store.stats()).states.get("completed") == 24)
        assert {r.job(job).result for job in jobs} == {'"closed"'}
        assert supervisor.stop() == 0
        assert r.run(r.opened.store.audit()) == []


APP = """
from windlass import Windlass
app = Windlass()

@app.task(name="proving_ground.say")
def say() -> str:
    return {word!r}
"""


def test_a_saved_file_restarts_the_workers(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        source = tmp_path / "my_jobs.py"

        def result() -> str | None:
            [job] = r.enqueue("say", ())
            eventually(lambda: r.job(job).state.terminal)
            return r.job(job).result

        source.write_text("from windlass import Windlass\napp = = Windlass()\n")
        supervisor = r.supervise("--processes", "1", target=str(source), reload=True)
        eventually(lambda: "SyntaxError" in r.logs())
        assert supervisor.process.poll() is None
        source.write_text(APP.format(word="one"))
        assert result() == '"one"'
        source.write_text(APP.format(word="another"))
        eventually(lambda: "reloading" in r.logs().split("one", 1)[-1] and result() == '"another"')
        assert supervisor.stop() == 0


def test_an_application_that_does_not_load_is_an_error_at_once(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        source = tmp_path / "broken_jobs.py"
        source.write_text("raise RuntimeError('no such luck')\n")
        supervisor = r.supervise(target=str(source))
        assert supervisor.process.wait(20) == 2
        assert "no such luck" in r.logs()


def test_a_start_hook_that_fails_is_shown_and_tried_again(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        source = tmp_path / "hooked_jobs.py"
        marker = tmp_path / "healed"
        source.write_text(
            "import os\nfrom windlass import Windlass\napp = Windlass()\n"
            f"@app.on_worker_start\ndef model():\n    assert os.path.exists({str(marker)!r}), 'no model yet'\n"
            "@app.task(name='proving_ground.say')\ndef say() -> int:\n    return 1\n"
        )
        supervisor = r.supervise("--processes", "1", target=str(source))
        eventually(lambda: r.logs().count("no model yet") > 2)
        marker.touch()
        [job] = r.enqueue("say", ())
        eventually(lambda: r.job(job).state is State.COMPLETED)
        assert supervisor.stop() == 0
