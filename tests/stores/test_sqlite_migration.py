"""A store that an earlier version of Windlass made, with jobs that wait and jobs that run, goes on under this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from windlass import stores
from windlass.core.errors import StoreError
from windlass.core.job import NewJob, Settled, State
from windlass.core.machine import complete
from windlass.core.placement import job_id
from windlass.ports.plan import Plan, Statement, Steps
from windlass.ports.store import ClaimRequest, Enqueued, Opened, Quota, Selection, WorkerReport
from windlass.stores.named_sql import load_migrations, split
from windlass.stores.sqlite.store import RAW
from windlass.testing import ManualClock

IDS = [job_id(1_000, bytes([n]) * 10) for n in range(4)]
QUEUED, RUNNING, DELAYED, DONE = IDS


def run(opened: Opened, *texts: str) -> None:
    def steps() -> Steps[None]:
        for text in texts:
            yield Statement(RAW, (text,))

    opened.shell.run(Plan(steps, "by hand", write=True))


def as_version_1_left_it(opened: Opened, now: int) -> None:
    """By hand, in the words of then, as the code of then is gone."""
    run(
        opened,
        "CREATE TABLE windlass_schema_version (version INTEGER PRIMARY KEY, applied INTEGER NOT NULL) STRICT",
        f"INSERT INTO windlass_schema_version VALUES (1, {now})",
        *split(load_migrations("windlass.stores.sqlite")[0]),
        *(
            "INSERT INTO windlass_jobs (seq, id, tenant, task, version, queue, priority, head_start, created, due, "
            f"rank, payload, meta) VALUES ({n}, '{id}', '', 't', 1, 'q', 50, 0, {now}, {now}, {now}, '[[],{{}}]', '{{}}')"
            for n, id in enumerate(IDS, 1)
        ),
        f"INSERT INTO windlass_ready VALUES (0, 'q', {now}, 1)",
        f"INSERT INTO windlass_held VALUES ('{RUNNING}', 2, 'w1', 1, {now}, 1, {now}, 0)",
        f"INSERT INTO windlass_waiting VALUES (3, {now + 1_000_000}, 'scheduled', NULL)",
        f"INSERT INTO windlass_ended (seq, state, finished, fence) VALUES (4, 'completed', {now}, {now})",
        "INSERT INTO windlass_queues VALUES ('paused', 1)",
        f"INSERT INTO windlass_workers VALUES ('w1', 's', 'h', 1, 'running', 1, 1, '[]', '[]', {now}, {now}, {now}, "
        f"{now + 15_000_000}, 15000000, 0, 1)",
        "INSERT INTO windlass_marks VALUES ('prune', 3)",
    )


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+stdlib"])
def test_a_store_of_version_1_goes_on(scheme: str, tmp_path: Path) -> None:
    """I25."""
    clock = ManualClock()
    opened = stores.open(f"{scheme}:///{tmp_path}/jobs.db", clock=clock)
    try:
        store, ask = opened.store, opened.shell.run
        as_version_1_left_it(opened, clock())
        assert ask(store.version()) == 1
        assert ask(store.migrate()) == len(load_migrations("windlass.stores.sqlite"))
        states = [State.QUEUED, State.RUNNING, State.SCHEDULED, State.COMPLETED]
        assert [job and job.state for job in ask(store.fetch(IDS))] == states
        assert ask(store.audit()) == []
        assert {name: rules.paused for name, rules in ask(store.queues()).items()} == {"paused": True}
        [token] = ask(store.held("w1"))
        assert ask(store.settle("w1", [complete(token, "1", 1)])) == [Settled.APPLIED]
        clock.advance("1s")
        ask(store.beat([WorkerReport(id="w1", supervisor="s", host="h", pid=1, hold=15_000_000)]))
        claimed: Any = ask(store.claim("w1", 2, ClaimRequest(5, (Quota("q", 5),))))
        assert [held.id for held in claimed.jobs] == [QUEUED, DELAYED]
        assert ask(store.revive(Selection((DONE,)))).changed == (DONE,)
        assert ask(store.audit()) == []
    finally:
        opened.close()


def test_a_key_is_free_also_where_an_older_worker_ended_its_job(tmp_path: Path) -> None:
    """I10, I25: it knew nothing of unique keys, so who lives is read from the rows of the jobs."""
    opened = stores.open(f"sqlite:///{tmp_path}/jobs.db", clock=ManualClock())
    try:
        store, ask = opened.store, opened.shell.run
        ask(store.migrate())
        ask(store.beat([WorkerReport(id="w1", supervisor="s", host="h", pid=1, hold=15_000_000)]))
        jobs = [NewJob(id=id, task="t", payload="[[],{}]", meta='{"unique":["k","keep-last"]}') for id in IDS]
        ask(store.enqueue(jobs[:1]))
        [held] = ask(store.claim("w1", 1, ClaimRequest(5, (Quota("default", 5),)))).jobs
        assert ask(store.enqueue(jobs[1:2]))[0].inserted
        run(opened, "UPDATE windlass_held SET flow = NULL")  # as it was granted by one
        ask(store.settle("w1", [complete(held.token, "1", 1)]))
        assert ask(store.enqueue(jobs[2:3])) == [Enqueued(IDS[1], inserted=False)]
        assert [held.id for held in ask(store.claim("w1", 2, ClaimRequest(5, (Quota("default", 5),)))).jobs] == [IDS[1]]
        assert ask(store.audit()) == []
    finally:
        opened.close()


def test_a_migration_that_fails_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    """All of it is one transaction, and whoever comes next may try again."""
    clock = ManualClock()
    opened = stores.open(f"sqlite:///{tmp_path}/jobs.db", clock=clock)
    try:
        as_version_1_left_it(opened, clock())
        run(opened, "CREATE TABLE windlass_permits (mine TEXT)")
        with pytest.raises(StoreError):
            opened.shell.run(opened.store.migrate())
        assert opened.shell.run(opened.store.version()) == 1
        run(opened, "DROP TABLE windlass_permits")
        opened.shell.run(opened.store.migrate())
        assert opened.shell.run(opened.store.audit()) == []
    finally:
        opened.close()
