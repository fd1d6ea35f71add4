"""A plan that reads in several statements sees one moment, whoever commits between two of them: else a job that moves
from one table to the next would be counted in both, or, worse for whoever waits for the end of all, in none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import KINDS, migrated, new_job, open_store
from windlass.core.job import ErrorInfo, State
from windlass.core.machine import retry
from windlass.ports.plan import Plan, Steps, drive
from windlass.ports.store import ClaimRequest, Filter, Opened, Quota, WorkerReport

READS: dict[str, Callable[[Any, str], Plan[Any]]] = {
    "stats": lambda store, _: store.stats(),
    "exact stats": lambda store, _: store.stats(exact=True),
    "why": lambda store, job: store.why(job),
    "search": lambda store, _: store.search(Filter(states=(State.QUEUED, State.RUNNING, State.RETRYING)), 10),
}
BY_WAL = [kind for kind in KINDS if kind != "stdlib"]
"""Without one, nobody commits while somebody reads."""


class Job:
    """One that never ends: each move takes it from the table in which it lies to the next."""

    def __init__(self, opened: Opened) -> None:
        self.run, self.store = opened.shell.run, opened.store
        self.run(self.store.beat([WorkerReport(id="w", supervisor="s", host="h", pid=1, hold=60_000_000)]))
        self.id = self.run(self.store.enqueue([new_job()]))[0].id
        self._moves = self._round()

    def move(self) -> None:
        next(self._moves)

    def _round(self) -> Iterator[None]:
        seq = 0
        while True:
            seq += 1
            claimed = self.run(self.store.claim("w", seq, ClaimRequest(1, (Quota("default", 1),))))
            yield
            self.run(self.store.settle("w", [retry(held.token, 0, ErrorInfo("E"), "failed") for held in claimed.jobs]))
            yield
            self.run(self.store.promote(10))
            yield


def disturbed(plan: Plan[Any], at: int, move: Callable[[], None], seen: list[int]) -> Plan[Any]:
    """`plan`, with a move of somebody else's before its `at`-th statement that is not about the clock."""

    def steps() -> Steps[Any]:
        inner, count, rows = iter(plan), 0, None
        try:
            while True:
                wanted = inner.send(rows)  # type: ignore[arg-type]
                count += wanted.name != "now"
                seen[0] = count
                if count == at:
                    move()
                rows = yield wanted
        except StopIteration as end:
            return end.value

    return Plan(steps, plan.name, write=plan.write)


@pytest.mark.parametrize("kind", BY_WAL)
@pytest.mark.parametrize("name", READS)
def test_a_reading_plan_sees_one_moment(place: Path, kind: str, name: str) -> None:
    """I3."""
    with migrated(kind, place / "jobs.db") as opened:
        other = open_store(kind, place / "jobs.db")
        try:
            job = Job(other)
            plan = READS[name](opened.store, job.id)
            at, seen = 2, [2]  # a transaction begins with its first read
            while seen[0] >= at:
                for _ in range(3):
                    before = opened.shell.run(plan)
                    assert told(opened.shell.run(disturbed(plan, at, job.move, seen))) == told(before)
                at += 1
        finally:
            other.close()


def test_many_moments_would_be_noticed(place: Path) -> None:
    """The same statements, each in a transaction of its own."""
    with migrated("apsw", place / "jobs.db") as opened:
        other = open_store("apsw", place / "jobs.db")
        try:
            job, plan = Job(other), opened.store.stats()
            lives: set[int] = set()
            for at in [*range(1, 12)] * 3:
                # A queue that is empty when its first job is looked for is no less absurd.
                with suppress(TypeError), opened.shell._borrowed(0.0) as driver:
                    steps = iter(disturbed(plan, at, job.move, [0]))
                    answer = drive(steps, lambda wanted, driver=driver: opened.shell.execute(driver, wanted))
                    lives.add(sum(answer.states.values()))
            assert lives != {1}
        finally:
            other.close()


def told(answer: Any) -> Any:
    """What it says of states; clocks go on."""
    if hasattr(answer, "states"):
        return answer.states
    jobs = [answer.job] if hasattr(answer, "job") else answer.jobs
    return [(job.id, job.state, job.fence, job.attempt) for job in jobs]
