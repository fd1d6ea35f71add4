"""The memory store's own ways: what no other store shares with it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from windlass import stores
from windlass.core.errors import CapabilityMissing, ConfigError, StoreError
from windlass.core.job import NewJob
from windlass.core.placement import job_id
from windlass.ports.plan import Plan, Statement, Steps
from windlass.stores.memory import open_memory
from windlass.testing import ManualClock

JOB = NewJob(id=job_id(1, bytes(10)), task="t", payload="[[],{}]")


def test_each_opening_is_a_store_of_its_own() -> None:
    one, other = stores.open("memory://"), stores.open("memory://")
    one.shell.run(one.store.enqueue([JOB]))
    assert other.shell.run(other.store.fetch([JOB.id])) == [None]
    for opened in (one, other):
        assert opened.url == "memory://"
        opened.close()


@pytest.mark.parametrize("url", ["memory://host", "memory://?a=1", "memory:///name", "memory", ""])
def test_its_url_says_nothing_more(url: str) -> None:
    with pytest.raises(ConfigError, match="memory://"):
        open_memory(url)


def test_leases_judge_and_nobody_joins_its_transactions() -> None:
    opened = open_memory()
    assert opened.run_directory() is None
    with pytest.raises(CapabilityMissing, match="caller_transaction"):
        opened.own(object())
    opened.close()


def test_it_reads_the_system_clock_unless_told() -> None:
    opened = open_memory()
    opened.shell.run(opened.store.enqueue([JOB]))
    job = opened.shell.run(opened.store.fetch([JOB.id]))[0]
    assert job is not None
    assert job.created_at > 1_700_000_000_000_000, "microseconds, not seconds"
    opened.close()


def test_it_has_no_statements_but_the_clock() -> None:
    def steps() -> Steps[None]:
        yield Statement("jobs_by_id")

    opened = open_memory()
    with pytest.raises(StoreError, match="jobs_by_id"):
        opened.shell.run(Plan(steps, "foreign", write=False))
    assert opened.shell.run(opened.store.version()) == 1, "the shell goes on"
    opened.close()


def test_reading_is_no_change() -> None:
    opened = open_memory()
    before = opened.shell.changed()
    opened.shell.run(opened.store.stats())
    opened.shell.run(opened.store.enqueue([]))
    assert opened.shell.changed() == before
    opened.shell.run(opened.store.enqueue([JOB]))
    assert opened.shell.changed() != before
    opened.close()


def test_it_closes_its_listeners() -> None:
    opened = open_memory()
    listener = opened.shell.listen()
    opened.close()
    listener.close()
    opened.shell.hint()


def test_loops_and_threads_share_it() -> None:
    """An application's web handlers and its embedded worker, say."""
    opened = open_memory()
    jobs = [NewJob(id=job_id(n, bytes(10)), task="t", payload="[[],{}]") for n in range(200)]

    async def some(part: list[NewJob]) -> None:
        await asyncio.gather(*(opened.async_shell().run(opened.store.enqueue([job])) for job in part))

    threads = [threading.Thread(target=lambda part: asyncio.run(some(part)), args=(jobs[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened.shell.run(opened.store.stats()).states["queued"] == 200
    assert opened.shell.run(opened.store.audit()) == []
    opened.close()


# --- the clock of tests -----------------------------------------------------------------------------------------------


def test_a_manual_clock_stands_still_until_told() -> None:
    clock = ManualClock(5)
    assert clock() == clock() == 5
    assert clock.advance("1s") == clock() == 1_000_005
    assert clock.advance(0.5) == 1_500_005
    clock.set(3)
    assert clock() == 3
    for wrong in ("soon", -1, "200000d", None):
        with pytest.raises(ValueError, match="^by: "):
            clock.advance(wrong)  # type: ignore[arg-type]  # None is the point
    assert clock() == 3


def test_a_manual_clock_is_moved_from_many_threads() -> None:
    clock = ManualClock(0)
    threads = [threading.Thread(target=lambda: [clock.advance("1us") for _ in range(1_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock() == 4_000
