"""I9: limits hold while workers and supervisors are killed, by what the handlers themselves wrote down."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance import ledger
from tests.acceptance.rig import Rig, eventually, rig, tree
from windlass.core.job import KeyLimit, State
from windlass.ports.store import QueueChange

KEYS = (KeyLimit("one", 1), KeyLimit("two", 2), KeyLimit("seven", 7))


def starts(r: Rig) -> list[ledger.Line]:
    return r.lines(what="start")


@pytest.mark.timeout(180)
def test_limits_hold_under_kills(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        dice = random.Random(7)
        limits: dict[str, dict[str, int]] = {}
        for n in range(90):
            task = "good" if n % 2 else "good_thread"
            keys = dice.sample(KEYS, dice.choice((1, 1, 2)))
            # A job that dies with its worker is lost, not guilty; ten losses would end it.
            [job] = r.enqueue(task, (dice.uniform(0.02, 0.1),), limits=keys)
            limits[job] = {key.key: key.most for key in keys}
        deaths: dict[int, float] = {}
        first = r.supervise("--processes", "3", "--concurrency", "8")
        second = r.supervise("--processes", "2", "--concurrency", "8")
        for n in range(6):
            seen = len(starts(r))
            eventually(lambda seen=seen: len(starts(r)) > seen + 3 or r.all_ended())
            victims = [pid for each in (first, second) for pid in tree(each.pid)[1:]]
            if not victims:
                continue
            victim = dice.choice(victims)
            deaths.setdefault(victim, time.monotonic())
            os.kill(victim, signal.SIGKILL)
        doomed = tree(second.pid)
        deaths = {pid: time.monotonic() for pid in doomed} | deaths
        second.kill()
        eventually(r.all_ended, 90.0)
        assert first.stop() == 0
        found, most = ledger.crowds(r.lines(), limits, deaths)
        print(f"starts {len(starts(r))}, killed {len(deaths)}, at once {most}")
        assert found == []
        assert {job.state for job in r.jobs()} == {State.COMPLETED}
        assert r.violations() == []


def test_a_limit_is_used_to_the_full(tmp_path: Path) -> None:
    """As many as may run do run, at once: a limit that is too narrow is wrong as well."""
    with rig(tmp_path) as r:
        gate = tmp_path / "gate"
        r.run(r.opened.store.queues([QueueChange("narrow", limit=3)]))
        keyed = r.enqueue("wait_for", *[(str(gate),)] * 8, limits=[KeyLimit("two", 2)])
        queued = r.enqueue("wait_for", *[(str(gate),)] * 8, queue="narrow")
        supervisor = r.supervise("--processes", "2", "--concurrency", "8", "--queues", "default,narrow")
        eventually(lambda: len(starts(r)) == 5)
        assert sum(r.job(job).state is State.RUNNING for job in keyed) == 2
        assert sum(r.job(job).state is State.RUNNING for job in queued) == 3
        assert sum(r.job(job).state is State.BLOCKED for job in keyed) == 6
        (tmp_path / "gate-1").touch()
        eventually(r.all_ended)
        assert supervisor.stop() == 0
        assert r.violations(exactly_once=True) == []
        limits = {job: {"two": 2} for job in keyed} | {job: {"narrow": 3} for job in queued}
        assert ledger.crowds(r.lines(), limits, {}) == ([], {"two": 2, "narrow": 3})
