"""I7 on PostgreSQL: a job's completion, what it wrote through `ctx.transaction()` and its children are committed together,
or none, whoever is killed, ended or cut off around the commit."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import count, forks
from tests.faults.shop import MODES
from tests.faults.till import Points, Till, cut, work_and_die
from tests.stores.postgres_server import PLACES
from tests.worker.harness import FakeLink, World
from windlass.core.backoff import Backoff
from windlass.ports.store import Death
from windlass.stores.postgres.session import Session
from windlass.testing.conformance.sizes import size

pytestmark = pytest.mark.once
TRIALS = size(34, 340, 3_400)
"""Of each of the three tests here: at the least once at every point, and a thousand of them in a closing run."""
QUICK = {"max_attempts": 3, "backoff": Backoff(base=0.001, jitter=0.0)}


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    yield PLACES.url(tmp_path)
    PLACES.recycle()


@pytest.fixture
def till(url: str) -> Iterator[Till]:
    with Till(url) as till:
        till.make()
        yield till


def points_of(till: Till) -> list[str]:
    """The failpoints of one run that nothing interrupts, wherever its handler runs."""
    found: list[list[str]] = []
    for n, mode in enumerate(MODES, 1):
        points = Points()
        till.pay(mode, -n)
        with pytest.MonkeyPatch.context() as patch:
            points.watch(patch.setattr)
            till.work(worker=mode, queues=[("default", None), ("notes", None)]).sound()
        assert points.names[-1] == "after release to commit"
        found.append(points.names)
    # Which answers arrive one by one is a matter of time, so not both have all points.
    return list(dict.fromkeys(itertools.chain(*found)))


def trial(n: int, points: list[str]) -> tuple[str, str]:
    """At which point, and where the handler runs: each in its turn, and the next time the other."""
    return points[n % len(points)], MODES[(n + n // len(points)) % 2]


@pytest.mark.timeout(120 + TRIALS)
def test_a_worker_is_killed_around_the_commit(till: Till, url: str, record_property: Any) -> None:
    """At every point; what was not committed is run again, by another worker, once."""
    points = points_of(till)
    assert len(points) >= 20
    jobs: dict[str, int] = {}
    ends: Counter[str] = Counter()
    while ends["kills"] < TRIALS:
        n = len(jobs)
        at, mode = trial(n, points)
        job = till.pay(mode, n)
        jobs[job] = n
        process = forks().Process(target=work_and_die, args=(url, f"w{n}", at))
        process.start()
        process.join()
        killed = process.exitcode == -signal.SIGKILL
        process.close()
        till.app.opened.shell.run(till.app.opened.store.reap([Death(worker=f"w{n}", observed=True, alone=True)]))
        assert till.torn(job, n) == [], f"trial {n}, killed at {at}"
        ends["kills"] += killed
        ends["missed"] += not killed  # an answer was there before anybody waited for it
        ends[till.state(job)] += killed
    assert min(ends["completed"], ends["queued"]) > 0, ends
    assert ends["missed"] <= TRIALS / 20, ends
    finish(till, jobs)
    count(record_property, points=len(points), **ends)


def finish(till: Till, jobs: dict[str, int]) -> None:
    """Those that were killed before their commit are suspects now: quarantine workers run them, each to its end."""
    left = list(jobs)
    while left:
        some, left = left[:50], left[50:]  # as many as one has the time for

        async def until_completed(world: World, _: FakeLink, some: list[str] = some) -> None:
            await world.until(lambda: all(till.state(job) == "completed" for job in some))

        till.work(until_completed, worker=f"quarantine {len(left)}", suspects=True)
    till.work(worker="notes", queues=[("notes", None)]).sound()
    assert [words for job, n in jobs.items() for words in till.torn(job, n)] == []
    assert {len(till.app.client.attempts(job)) for job in jobs} == {1, 2}
    assert till.app.client.stats(exact=True).states["completed"] == 3 * (len(jobs) + len(MODES))


@pytest.mark.timeout(120 + TRIALS)
@pytest.mark.parametrize("what", ["the connection is cut", "the backend is ended"])
def test_a_transaction_is_ended_around_its_commit(what: str, till: Till, record_property: Any) -> None:
    """At every point; its worker goes on, and finds out what became of it where nobody has told it."""
    points = points_of(till)
    jobs: dict[str, int] = {}
    ends: Counter[str] = Counter()
    strike = cut if what == "the connection is cut" else lambda wire: till.end_backend(wire.pg.backend_pid)
    while ends["strikes"] < TRIALS:
        n = len(jobs)
        at, mode = trial(n, points)
        job = till.pay(mode, n, **QUICK)
        jobs[job] = n
        here = struck(till, job, Points(at, strike), f"w{n}")
        assert (till.state(job), till.torn(job, n)) == ("completed", []), f"trial {n}, at {at}"
        ends["strikes"] += here.struck
        ends["missed"] += not here.struck
        ends[f"attempts: {len(till.app.client.attempts(job))}"] += here.struck
        ends["ambiguous"] += at in {"sent release to commit", "arrived release to commit"}
    assert min(ends["attempts: 1"], ends["attempts: 2"]) > 0, ends
    assert ends["attempts: 1"] + ends["attempts: 2"] == TRIALS, ends
    assert ends["missed"] <= TRIALS / 20, ends
    finish(till, jobs)
    count(record_property, **{what: ends.pop("strikes")}, points=len(points), **ends)


def struck(till: Till, job: str, here: Points, worker: str) -> Points:
    """Have a worker run the job to its end, struck on its way."""
    with pytest.MonkeyPatch.context() as patch:
        here.watch(patch.setattr)
        till.work(lambda world, link: ended(world, till, job), worker=worker)
    return here


def test_a_torn_transaction_would_be_seen(till: Till, monkeypatch: Any) -> None:
    """The checker, against jobs whose completion is committed by itself, on another connection."""
    monkeypatch.setattr(Session, "run", lambda _, plan: till.app.opened.shell.run(plan))
    for n, mode in enumerate(MODES):
        job = till.pay(mode, n, **QUICK)
        struck(till, job, Points("before release to commit", cut), f"w{n}")
        assert till.torn(job, n) == [f"job {n} is completed, with {{'rows': 0, 'children': 2}}"]


async def ended(world: World, till: Till, job: str) -> None:
    await world.until(lambda: till.state(job) in ("completed", "dead"))
