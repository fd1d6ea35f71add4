"""I10: of one key, at most one lives, and a crash leaves none behind, by what the handlers themselves wrote down."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance import ledger
from tests.acceptance.rig import eventually, rig, tree
from windlass.core.job import State, UniqueKey

POLICIES = ("reject", "return-existing", "replace", "keep-last")


@pytest.mark.timeout(180)
def test_one_lives_while_workers_are_killed(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        dice = random.Random(3)
        keys = [UniqueKey(f"k{n}", POLICIES[n % len(POLICIES)]) for n in range(12)]
        supervisor = r.supervise("--processes", "3", "--concurrency", "8")
        carried: dict[str, dict[str, int]] = {}
        deaths: dict[int, float] = {}
        for round_ in range(60):
            for key in dice.sample(keys, 6):
                # A run that is cancelled writes no end, and one in a thread cannot be.
                task = "good_thread" if key.policy == "replace" else dice.choice(("good", "good_thread"))
                [job] = r.enqueue(task, (dice.uniform(0, 0.08),), unique=key)
                carried[job] = {f"{task} {key.key}": 1}  # a key belongs to its task
            if round_ % 12 == 6:
                seen = len(r.lines(what="start"))
                eventually(lambda seen=seen: len(r.lines(what="start")) > seen or r.all_ended())
                victim = dice.choice(eventually(lambda: tree(supervisor.pid)[1:]))
                deaths.setdefault(victim, time.monotonic())
                os.kill(victim, signal.SIGKILL)
        eventually(r.all_ended, 60.0)
        found, most = ledger.crowds(r.lines(), carried, deaths)
        jobs = r.jobs()
        print(f"asked for {len(r.acked)}, stored {len(carried)}, killed {len(deaths)}, at once {max(most.values())}")
        assert found == []
        assert {job.state for job in jobs} <= {State.COMPLETED, State.CANCELLED}
        assert len(carried) < len(r.acked)
        # Every key is free again: what is asked for now is stored, and runs.
        for key in keys:
            [last] = r.enqueue("good", (), unique=key)
            assert last not in carried
        eventually(r.all_ended)
        assert supervisor.stop() == 0
        assert r.run(r.opened.store.audit()) == []
