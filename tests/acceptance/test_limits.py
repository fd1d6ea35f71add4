"""I9: limits hold while workers and supervisors are killed, by what the handlers themselves wrote down."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.acceptance.rig import PATIENCE, Rig, eventually, rig, tree
from windlass.core.job import KeyLimit, State
from windlass.ports.store import QueueChange
from windlass.testing import ledger

KEYS = (KeyLimit("one", 1), KeyLimit("two", 2), KeyLimit("seven", 7))


def starts(r: Rig) -> list[ledger.Line]:
    return r.lines(what="start")


@pytest.mark.timeout(180)
def test_limits_hold_under_kills(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        dice = random.Random(7)
        for n in range(90):
            task = "good" if n % 2 else "good_thread"
            keys = dice.sample(KEYS, dice.choice((1, 1, 2)))
            # A job that dies with its worker is lost, not guilty; ten losses would end it.
            r.enqueue(task, (dice.uniform(0.02, 0.1),), limits=keys)
        first = r.supervise("--processes", "3", "--concurrency", "8")
        second = r.supervise("--processes", "2", "--concurrency", "8")
        for n in range(6):
            seen = len(starts(r))
            eventually(lambda seen=seen: len(starts(r)) > seen + 3 or r.all_ended())
            victims = [pid for each in (first, second) for pid in tree(each.pid)[1:]]
            if not victims:
                continue
            r.kill(dice.choice(victims))
        r.kill(second.pid)  # its workers, whose parent it is, die of it
        second.process.wait(PATIENCE)
        eventually(r.all_ended, 90.0)
        assert first.stop() == 0
        report = ledger.check(r.history())
        print(f"starts {len(starts(r))}, killed {report.counts['faults']}, at once {report.crowds}")
        assert report.problems == []
        assert {job.state for job in r.jobs()} == {State.COMPLETED}
        assert r.violations() == []


def test_a_limit_is_used_to_the_full(tmp_path: Path) -> None:
    """As many as may run do run, at once: a limit that is too narrow is wrong as well."""
    with rig(tmp_path) as r:
        gate = tmp_path / "gate"
        r.run(r.opened.store.queues([QueueChange("narrow", limit=3)]))
        keyed = r.enqueue("wait_for", *[(str(gate),)] * 8, limits=[KeyLimit("two", 2)])
        queued = r.enqueue("wait_for", *[(str(gate),)] * 8, queue="narrow", crowd={"narrow": 3})
        supervisor = r.supervise("--processes", "2", "--concurrency", "8", "--queues", "default,narrow")
        eventually(lambda: len(starts(r)) == 5)
        assert sum(r.job(job).state is State.RUNNING for job in keyed) == 2
        assert sum(r.job(job).state is State.RUNNING for job in queued) == 3
        assert sum(r.job(job).state is State.BLOCKED for job in keyed) == 6
        (tmp_path / "gate-1").touch()
        eventually(r.all_ended)
        assert supervisor.stop() == 0
        assert r.violations(exactly_once=True) == []
        assert ledger.check(r.history()).crowds == {"two": 2, "narrow": 3}
