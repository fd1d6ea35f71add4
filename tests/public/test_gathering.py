"""Group commit: single enqueues asked for at once share transactions, and each succeeds or fails as if alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from windlass import IdempotencyConflict, Windlass
from windlass.core.errors import OutcomeUnknown, StoreError, StoreFull, StoreTimeout
from windlass.core.job import NewJob
from windlass.gathering import BYTES_MOST, JOBS_MOST, Gatherer
from windlass.task import new_ids


class Recorder:
    """The async shell of a store: counts what is asked of it, and lets a test answer in its place."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self.plans: list[int] = []
        self.before: Callable[[int], Any] = lambda _: None
        self.after: Callable[[int], Any] = lambda _: None

    async def run(self, plan: Any, timeout: float | None = None) -> Any:
        self.plans.append(plan.name)
        await _maybe(self.before(len(self.plans)))
        answer = await self._shell.run(plan, timeout)
        await _maybe(self.after(len(self.plans)))
        return answer


async def _maybe(value: Any) -> None:
    if asyncio.iscoroutine(value):
        await value


def played(tmp_path: Path, test: Callable[[Windlass, Gatherer, Recorder], Any]) -> None:
    async def main() -> None:
        with Windlass(f"sqlite:///{tmp_path}/jobs.db") as app:
            gatherer = Gatherer(await app.engine.aopened())
            recorder = gatherer._shell = Recorder(gatherer._shell)
            await test(app, gatherer, recorder)

    asyncio.run(main())


async def _later(enqueue: Any) -> Any:
    """Once what was asked for before is under way."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return await enqueue


def job(payload: str = "[[],{}]", **fields: Any) -> NewJob:
    return NewJob(id=new_ids(1)[0], task="t", payload=payload, **fields)


def test_a_thousand_at_once_are_few_transactions(tmp_path: Path) -> None:
    """I1: every id that was answered is in the store."""

    async def test(app: Windlass, gatherer: Gatherer, recorder: Recorder) -> None:
        jobs = [job() for _ in range(1_000)]
        answers = await asyncio.gather(*(gatherer.enqueue(each, 5) for each in jobs))
        assert [answer.id for answer in answers] == [each.id for each in jobs]
        assert len(recorder.plans) <= 1_000 // JOBS_MOST + 1
        assert (await app.aclient.stats(exact=True)).states["queued"] == 1_000

    played(tmp_path, test)


def test_large_payloads_bound_a_transaction(tmp_path: Path) -> None:
    async def test(app: Windlass, gatherer: Gatherer, recorder: Recorder) -> None:
        large = f'[["{"x" * (BYTES_MOST // 4)}"],{{}}]'
        await asyncio.gather(*(gatherer.enqueue(job(large), 5) for _ in range(12)))
        assert len(recorder.plans) == 3

    played(tmp_path, test)


def test_a_conflict_fails_its_own_caller_only(tmp_path: Path) -> None:
    """I10b, within one transaction: the same job for the same payload, an error for another."""

    async def test(app: Windlass, gatherer: Gatherer, recorder: Recorder) -> None:
        first, same, other, plain = (
            job(idempotency_key="k", digest="a"),
            job(idempotency_key="k", digest="a"),
            job(idempotency_key="k", digest="b"),
            job(),
        )
        asked = [gatherer.enqueue(each, 5) for each in (first, same, other, plain)]
        a, b, c, d = await asyncio.gather(*asked, return_exceptions=True)
        assert (a.id, a.inserted) == (first.id, True)
        assert (b.id, b.inserted) == (first.id, False)
        assert isinstance(c, IdempotencyConflict)
        assert c.job_id == first.id
        assert (d.id, d.inserted) == (plain.id, True)
        assert len(recorder.plans) == 1

    played(tmp_path, test)


def test_what_the_store_refuses_fails_alone(tmp_path: Path) -> None:
    """I23: one bad row does not fail its batch."""

    async def test(app: Windlass, gatherer: Gatherer, recorder: Recorder) -> None:
        store, bad = gatherer.opened.store, job()
        enqueue = store.enqueue

        def refusing(jobs: Any) -> Any:
            if bad in jobs:
                raise StoreError("this row cannot be stored")
            return enqueue(jobs)

        store.enqueue = refusing  # type: ignore[method-assign]
        answers = await asyncio.gather(*(gatherer.enqueue(each, 5) for each in (job(), bad, job())), return_exceptions=True)
        assert [isinstance(each, StoreError) for each in answers] == [False, True, False]
        assert (await app.aclient.stats()).states["queued"] == 2

    played(tmp_path, test)


def test_a_lost_answer_is_asked_for_again_and_stores_nothing_twice(tmp_path: Path) -> None:
    async def test(app: Windlass, gatherer: Gatherer, recorder: Recorder) -> None:
        def lose(number: int) -> None:
            if number == 1:
                raise OutcomeUnknown("the answer was lost")

        recorder.after = lose
        answers = await asyncio.gather(*(gatherer.enqueue(job(), 5) for _ in range(3)))
        assert all(answer.inserted for answer in answers)
        assert (await app.aclient.stats()).states["queued"] == 3

    played(tmp_path, test)


def test_a_full_disk_fails_everybody_at_once(tmp_path: Path) -> None:
    async def test(app: Windlass, gatherer: Gatherer, recorder: Recorder) -> None:
        def full(_: int) -> None:
            raise StoreFull("the disk is full")

        recorder.before = full
        answers = await asyncio.gather(*(gatherer.enqueue(job(), 5) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(each, StoreFull) for each in answers)
        assert len({id(each) for each in answers}) == 3
        assert len(recorder.plans) == 1

    played(tmp_path, test)


def test_a_frozen_store_is_waited_for_no_longer_than_the_deadline(tmp_path: Path) -> None:
    """I1b: the call returns or raises within its deadline, even if the store's own thread hangs in a system call."""

    async def test(app: Windlass, gatherer: Gatherer, recorder: Recorder) -> None:
        recorder.before = lambda _: asyncio.sleep(60)
        began = time.monotonic()
        handed_in, in_line = await asyncio.gather(
            gatherer.enqueue(job(), 0.1), _later(gatherer.enqueue(job(), 0.1)), return_exceptions=True
        )
        assert isinstance(handed_in, OutcomeUnknown)
        assert isinstance(in_line, StoreTimeout)  # it was never handed to the store, and never will be
        assert time.monotonic() - began < 1
        gatherer._task.cancel()

    played(tmp_path, test)


def test_one_who_is_out_of_time_does_not_take_the_others_along(tmp_path: Path) -> None:
    async def test(app: Windlass, gatherer: Gatherer, recorder: Recorder) -> None:
        async def late(number: int) -> None:
            if number == 1:
                await asyncio.sleep(0.15)
                raise StoreTimeout("locked")

        recorder.before = late
        short, long = await asyncio.gather(
            gatherer.enqueue(job(), 0.12), gatherer.enqueue(job(), 5), return_exceptions=True
        )
        assert isinstance(short, StoreTimeout)
        assert long.inserted
        assert (await app.aclient.stats()).states["queued"] == 1

    played(tmp_path, test)


def test_who_gives_up_in_time_has_nothing_stored(tmp_path: Path) -> None:
    async def test(app: Windlass, gatherer: Gatherer, recorder: Recorder) -> None:
        gate = asyncio.Event()
        recorder.before = lambda number: gate.wait() if number == 1 else None
        first = asyncio.create_task(gatherer.enqueue(job(), 5))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the first is on its way; these two gather behind it
        gone = asyncio.create_task(gatherer.enqueue(job(), 5))
        stays = asyncio.create_task(gatherer.enqueue(job(), 5))
        await asyncio.sleep(0)
        gone.cancel()
        gate.set()
        assert (await first).inserted
        assert (await stays).inserted
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert (await app.aclient.stats()).states["queued"] == 2

    played(tmp_path, test)


def test_aenqueue_gathers(tmp_path: Path) -> None:
    app = Windlass(f"sqlite:///{tmp_path}/jobs.db")

    @app.task
    def add(a: int, b: int) -> int:
        return a + b

    async def main() -> set[str]:
        jobs = await asyncio.gather(*(add.aenqueue(1, 2) for _ in range(100)))
        return {each.id for each in jobs}

    with app:
        ids = asyncio.run(main()) | asyncio.run(main())  # each loop has its own
        assert len(ids) == app.client.stats(exact=True).states["queued"] == 200
        assert len(app.engine._gatherers) == 1
