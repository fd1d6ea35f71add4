"""Waiting for results: no hammering, every ending, both colours."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.public.by_hand import Hand
from windlass import (
    Job,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    PayloadInvalid,
    ResultTimeout,
    State,
    Windlass,
    WindlassError,
)
from windlass.core.errors import ResultExpired
from windlass.core.job import Failed
from windlass.ports.store import PruneRules
from windlass.runtime.verdict import describe

GONE = "01890000-0000-7000-8000-000000000000"


def both(job: Job[Any], **options: Any) -> list[Callable[[], Any]]:
    return [lambda: job.result(**options), lambda: asyncio.run(job.aresult(**options))]


def test_a_result_comes_back_as_what_the_function_says(app: Windlass) -> None:
    @app.task
    def when(day: int) -> dt.date:
        return dt.date(2026, 1, day)

    @app.task
    def untyped(day):  # type: ignore[no-untyped-def]
        return {"day": day, "at": dt.date(2026, 1, 1)}

    first, second = when.enqueue(5), untyped.enqueue(1)
    hand = Hand(app)
    assert hand.work() and hand.work()
    for result in both(first):
        assert result() == dt.date(2026, 1, 5)
    assert app.job(first.id).result(timeout=1) == dt.date(2026, 1, 5)
    assert second.result() == {"day": 1, "at": "2026-01-01"}


def test_a_wrong_timeout_is_an_error_of_ours_and_a_value_error(app: Windlass) -> None:
    @app.task
    def nothing() -> None: ...

    job = nothing.enqueue()
    for timeout in ("soon", -1, ""):
        for result in both(job, timeout=timeout):
            with pytest.raises(WindlassError, match=r"^timeout: ") as caught:
                result()
            assert isinstance(caught.value, ValueError)
            assert getattr(caught.value, "field", None) == "timeout"


def test_a_result_of_another_type_is_not_passed_off_as_the_declared_one(app: Windlass) -> None:
    @app.task
    def count() -> int:
        return "many"  # type: ignore[return-value]

    job = count.enqueue()
    Hand(app).work()
    with pytest.raises(PayloadInvalid, match="^result: expected int, got str"):
        job.result(timeout=1)


def test_waiting_ends_with_the_job(app: Windlass) -> None:
    @app.task
    def slow() -> str:
        return "done"

    job = slow.enqueue()
    hand = Hand(app)
    answers: list[Any] = []
    waiter = threading.Thread(target=lambda: answers.append(job.result(timeout=10)))
    waiter.start()
    assert hand.work()
    waiter.join()
    assert answers == ["done"]

    async def while_waiting(job: Job[str]) -> str:
        waiting = asyncio.ensure_future(job.aresult(timeout=10))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await asyncio.to_thread(hand.work)
        return await waiting

    assert asyncio.run(while_waiting(slow.enqueue())) == "done"


def test_a_wait_that_is_over_leaves_the_job_alone(app: Windlass) -> None:
    @app.task
    def never() -> None: ...

    job = never.enqueue()
    for timeout in (0, 0.02, "20ms", dt.timedelta(milliseconds=20)):
        for result in both(job, timeout=timeout):
            began = time.monotonic()
            with pytest.raises(ResultTimeout, match=f"{job.id} had not ended after"):
                result()
            assert time.monotonic() - began < 2
    assert job.state() is State.QUEUED
    with pytest.raises(TimeoutError):
        job.result(timeout=0)
    with pytest.raises(ValueError, match="timeout: 'soon' is no duration"):
        job.result(timeout="soon")


def test_a_timeout_of_zero_still_reads_once(app: Windlass) -> None:
    @app.task
    def one() -> int:
        return 1

    job = one.enqueue()
    Hand(app).work()
    assert job.result(timeout=0) == 1


def test_a_waiting_caller_asks_for_a_number_and_reads_only_when_it_moved(
    app: Windlass, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.task
    def never() -> None: ...

    job = never.enqueue()
    shell, reads, looks = app.opened.shell, [], []
    run, changed = shell.run, shell.changed
    monkeypatch.setattr(shell, "run", lambda plan, timeout=None: (reads.append(plan.name), run(plan, timeout))[1])
    monkeypatch.setattr(shell, "changed", lambda: (looks.append(time.monotonic()), changed())[1])
    with pytest.raises(ResultTimeout):
        job.result(timeout=0.5)
    assert reads == ["fetch"]
    assert 5 < len(looks) < 40  # 1 ms growing to 50 ms; a fixed 1 ms would make 500
    never.enqueue()
    with pytest.raises(ResultTimeout):
        job.result(timeout=0.1)


def test_every_other_ending_is_an_error_of_its_own(app: Windlass) -> None:
    @app.task(max_attempts=1)
    def fail() -> None:
        raise RuntimeError("no paper")

    dead, cancelled, expired, kept = (
        fail.enqueue(), fail.enqueue(), fail.using(expires="1us").enqueue(), fail.using(result_ttl=0).enqueue(),
    )  # fmt: skip
    assert cancelled.cancel().changed == (cancelled.id,)
    hand = Hand(app)
    assert hand.work()
    held = hand.claim()
    assert held is not None and held.id == kept.id
    from windlass.core.job import Succeeded

    hand.settle(held, Succeeded("1"))
    app.client.prune(PruneRules())
    for result in both(dead, timeout=1):
        with pytest.raises(JobFailed, match=r"is dead \(attempts_exhausted\): RuntimeError: no paper") as failed:
            result()
        assert (failed.value.reason, failed.value.kind, failed.value.detail) == (
            "attempts_exhausted", "RuntimeError", "no paper",
        )  # fmt: skip
        assert 'raise RuntimeError("no paper")' in failed.value.trace
    for job, error in [(cancelled, JobCancelled), (expired, JobExpired), (kept, ResultExpired)]:
        for result in both(job, timeout=1):
            with pytest.raises(error):
                result()


def test_an_error_without_details_is_still_told(app: Windlass) -> None:
    @app.task(max_attempts=1)
    def fail() -> None: ...

    job = fail.enqueue()
    hand = Hand(app)
    held = hand.claim()
    assert held is not None
    hand.settle(held, Failed(describe(RuntimeError()), permanent=True, reason="hard_timeout"))
    with pytest.raises(JobFailed, match=r"is dead \(hard_timeout\): RuntimeError: $"):
        job.result(timeout=1)


def test_a_job_that_is_not_there(app: Windlass) -> None:
    job = app.job(GONE)
    for use in [job.refresh, job.state, job.progress, *both(job, timeout=1)]:
        with pytest.raises(JobNotFound, match=GONE):
            use()
    assert job.cancel().missing == (GONE,)
    for use in (job.arefresh, job.astate, job.aprogress):
        with pytest.raises(LookupError):
            asyncio.run(use())  # type: ignore[arg-type]


def test_a_job_deleted_while_waited_for_is_not_waited_for_for_ever(app: Windlass) -> None:
    @app.task
    def never() -> None: ...

    job = never.enqueue()
    threading.Timer(0.02, lambda: app.client.delete(job.id)).start()
    with pytest.raises(JobNotFound):
        job.result(timeout=10)


def test_progress_is_read_from_anywhere(app: Windlass) -> None:
    from windlass.core.job import Progress

    @app.task
    def work() -> None: ...

    job = work.enqueue()
    assert job.progress() is None
    held = Hand(app).claim()
    assert held is not None
    app.opened.shell.run(app.opened.store.report([(held.token, Progress(3, 10, "three", 7))], []))
    assert job.progress() == asyncio.run(job.aprogress()) == Progress(3, 10, "three", 7)
    assert asyncio.run(job.astate()) is State.RUNNING
    assert asyncio.run(job.acancel()).asked == (job.id,)


def test_handles_are_equal_by_id(memory: Windlass) -> None:
    assert memory.job(GONE) == memory.job(GONE) != memory.job(GONE[:-1] + "1")
    assert len({memory.job(GONE), memory.job(GONE)}) == 1
    assert memory.job(GONE) != GONE and repr(memory.job(GONE)) == f"<job {GONE}>"
