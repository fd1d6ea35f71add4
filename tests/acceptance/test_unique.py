"""I10: of one key, at most one lives, and a crash leaves none behind, by what the handlers themselves wrote down."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.acceptance.rig import eventually, rig, tree
from windlass.core.job import State, UniqueKey
from windlass.testing import ledger

POLICIES = ("reject", "return-existing", "replace", "keep-last")


@pytest.mark.timeout(180)
def test_one_lives_while_workers_are_killed(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        dice = random.Random(3)
        keys = [UniqueKey(f"k{n}", POLICIES[n % len(POLICIES)]) for n in range(12)]
        supervisor = r.supervise("--processes", "3", "--concurrency", "8")
        stored: set[str] = set()
        for round_ in range(60):
            for key in dice.sample(keys, 6):
                # A run that is cancelled writes no end, and one in a thread cannot be.
                task = "good_thread" if key.policy == "replace" else dice.choice(("good", "good_thread"))
                [job] = r.enqueue(task, (dice.uniform(0, 0.08),), unique=key)
                stored.add(job)
            if round_ % 12 == 6:
                seen = len(r.lines(what="start"))
                eventually(lambda seen=seen: len(r.lines(what="start")) > seen or r.all_ended())
                victim = dice.choice(eventually(lambda: tree(supervisor.pid)[1:]))
                r.kill(victim)
        eventually(r.all_ended, 60.0)
        report = ledger.check(r.history())
        print(f"asked for {len(r.acked)}, stored {len(stored)}, {report.counts}")
        assert report.problems == []
        assert {job.state for job in r.jobs()} <= {State.COMPLETED, State.CANCELLED}
        assert len(stored) < len(r.acked)
        # Every key is free again: what is asked for now is stored, and runs.
        for key in keys:
            [last] = r.enqueue("good", (), unique=key)
            assert last not in stored
        eventually(r.all_ended)
        assert supervisor.stop() == 0
        assert r.run(r.opened.store.audit()) == []
