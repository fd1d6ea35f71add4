"""Schedules under real supervisors: each tick becomes one job, whatever becomes of whoever fires it (I11)."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.acceptance.rig import HERE, Rig, Supervised, eventually, rig
from tests.acceptance.test_leases import stop_between_writes
from windlass.core.job import Meta, State
from windlass.core.schedule import digest
from windlass.ports.store import Filter, ScheduleChange

APP = str(HERE / "timetable.py")
PROOF = os.environ.get("WINDLASS_PROOF", "")
ROUNDS = {"closing": 30, "soak": 300}.get(PROOF, 2)
SECOND = 1_000_000


def supervise(r: Rig, **environment: str) -> Supervised:
    return r.supervise("--processes", "1", target=APP, **environment)


def stored(r: Rig) -> list[int]:
    """The ticks that became jobs, as the store has them, in seconds."""
    found: list[int] = []
    after = None
    while True:
        page = r.run(r.opened.store.search(Filter(task="timetable.tick"), 1_000, after))
        found += [(msgspec.json.decode(job.meta, type=Meta).tick or 0) // SECOND for job in page.jobs]
        if page.next is None:
            return sorted(found)
        after = page.next


def schedule(r: Rig) -> Any:
    found = r.run(r.opened.store.schedules(("each second",)))
    return found[0] if found else None


def every_second_once(r: Rig, since: int) -> dict[str, int]:
    """Each second from the first tick up to the cursor has one job: none twice, none missing, none that is none."""
    at = schedule(r)
    ticks = stored(r)
    first, last = at.created_at // SECOND + 1, at.cursor // SECOND
    assert Counter(ticks) == Counter(range(first, last + 1)), f"cursor {last}, ticks {ticks}"
    assert last >= since
    return {"ticks due": last - first + 1, "jobs": len(ticks), "twice": 0, "missing": 0}


def finish(r: Rig) -> None:
    """Let the last scheduler fire what is due, and everything end."""
    for each in r.supervised:
        if each.process.poll() is None:
            each.stop()
    last = supervise(r)
    now = time.time_ns() // 1_000
    eventually(lambda: schedule(r).cursor > now)
    assert last.stop() == 0


def test_ticks_start_at_their_instants(tmp_path: Path, record_property: Any) -> None:
    with rig(tmp_path) as r:
        supervise(r)
        eventually(lambda: len(r.lines(what="tick")) >= 10)
        late = sorted(float(line.note.split()[1]) for line in r.lines(what="tick")[1:])
        assert late[0] >= 0, "a tick ran before its instant"
        assert late[len(late) // 2] < 0.5
        record_property("proof", {"ticks timed": len(late)})
        print(f"lateness in ms: median {late[len(late) // 2] * 1e3:.1f}, worst {late[-1] * 1e3:.1f}")


def test_five_supervisors_and_a_leader_that_is_stopped(tmp_path: Path, record_property: Any) -> None:
    """SIGSTOP of whole trees across ticks, the leader's among them, SIGCONT, SIGKILL, and starts, at random."""
    dice = random.Random(int(os.environ.get("WINDLASS_SEED", "11")))
    faults: Counter[str] = Counter()
    with rig(tmp_path, WINDLASS_HOLD="2s") as r:
        alive = [supervise(r) for _ in range(5)]
        eventually(lambda: schedule(r) and schedule(r).fired >= 2)
        for _ in range(ROUNDS):
            leader = lead(r)
            victim = next((each for each in alive if leader in each.log.read_text()), alive[0])
            stop_between_writes(r, victim)
            faults["leaders stopped"] += 1
            before = schedule(r).fired
            eventually(lambda before=before: schedule(r).fired >= before + 4)  # others stood in
            victim.signal_tree(signal.SIGCONT)
            other = dice.choice([each for each in alive if each is not victim])
            other.kill()
            faults["killed"] += 1
            alive[alive.index(other)] = supervise(r)
            before = schedule(r).fired
            eventually(lambda before=before: schedule(r).fired >= before + 2)
        since = int(time.time())
        finish(r)
        record_property("proof", {**every_second_once(r, since), **faults, "supervisors": 5})
        assert r.run(r.opened.store.audit()) == []


def lead(r: Rig) -> str:
    """The supervisor that leads, by its id."""
    [holder] = r.sql("SELECT holder FROM windlass_leads WHERE name = 'scheduler'")[0]
    return str(holder)


@pytest.mark.parametrize("catch_up", ["latest", "none", "all"])
def test_everything_down_for_a_moment(tmp_path: Path, catch_up: str, record_property: Any) -> None:
    with rig(tmp_path, CATCH_UP=catch_up) as r:
        first = supervise(r)
        eventually(lambda: schedule(r) and schedule(r).fired >= 2)
        assert first.stop() == 0
        down = schedule(r).cursor // SECOND
        time.sleep(5)  # less than a minute: late, and not missed
        second = supervise(r)
        eventually(lambda: schedule(r).cursor // SECOND > down + 7)
        assert second.stop() == 0
        ticks = stored(r)
        assert max(Counter(ticks).values()) == 1
        missed = sorted(set(range(ticks[0], ticks[-1] + 1)) - set(ticks))
        assert missed == []
        record_property("proof", {"seconds": ticks[-1] - ticks[0] + 1, "jobs": len(ticks)})


def test_two_versions_of_the_code_side_by_side(tmp_path: Path) -> None:
    """I25: the newer definition wins once, and stays."""
    with rig(tmp_path) as r:
        old = supervise(r, CATCH_UP="latest")
        eventually(lambda: schedule(r))
        new = supervise(r, CATCH_UP="all")
        eventually(lambda: schedule(r).revision == 2)
        assert old.stop() == 0
        supervise(r, CATCH_UP="latest")  # the old code starts again
        fired = schedule(r).fired
        eventually(lambda: schedule(r).fired >= fired + 4)
        assert schedule(r).revision == 2
        assert '"catch_up":"all"' in schedule(r).definition
        assert new.stop() == 0


def test_a_parent_that_is_killed_half_way_through_its_children(tmp_path: Path, record_property: Any) -> None:
    """A tick at 2 AM that enqueues 10,000 children: its worker is killed again and again meanwhile."""
    count, batch = 10_000, 100
    with rig(tmp_path, SCHEDULE_NOTHING="1") as r:
        supervise(r)
        text = msgspec.json.encode(
            {
                "rule": {"every": SECOND, "end": time.time_ns() // 1_000 + 2 * SECOND, "catch_up": "all"},
                "task": "timetable.children",
                "payload": f"[[{count},{batch}],{{}}]",
                "meta": '{"policy":{"loss_budget":1000,"crash_budget":1000,"max_attempts":1000,"backoff":{"base":0.05}}}',
                "queue": "default",
            }
        ).decode()
        change = ScheduleChange(name="night", action="put", definition=text, digest=digest(text), timing="t")
        r.run(r.opened.store.change_schedules([change]))
        eventually(lambda: r.run(r.opened.store.schedules(("night",)))[0].fired >= 1)
        kills, seen = 0, 0
        [parent, *_] = reversed(r.run(r.opened.store.search(Filter(task="timetable.children"), 10)).jobs)
        while kills < (5 if not PROOF else 40):
            done = len(r.sql(f"SELECT 1 FROM windlass_jobs WHERE meta ->> '$.parent_id' = '{parent.id}'"))
            job = r.job(parent.id)
            if done >= count or job.state.terminal:
                break
            if done > seen and job.state is State.RUNNING:
                for worker in [w for w in r.workers() if w.id == job.worker]:
                    os.kill(worker.pid, signal.SIGKILL)
                    kills, seen = kills + 1, done
            time.sleep(0.005)
        eventually(lambda: r.job(parent.id).state.terminal, 90)
        assert (r.job(parent.id).state, r.job(parent.id).result) == (State.COMPLETED, str(count))
        [[children, places]] = r.sql(
            "SELECT count(*), count(DISTINCT payload) FROM windlass_jobs "
            f"WHERE task = 'timetable.leaf' AND meta ->> '$.parent_id' = '{parent.id}'"
        )
        assert (children, places) == (count, count)
        record_property("proof", {"children": children, "kills": kills})
        assert kills >= 1
