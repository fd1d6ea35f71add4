"""Bounded queues, as a caller meets them."""

from __future__ import annotations

import asyncio
import time

import pytest

from windlass import QueueFull, State, Windlass
from windlass.core.errors import InvalidJob
from windlass.core.flow import Bounds, fullness
from windlass.ports.store import QueueRules

SECOND = 1_000_000


@pytest.fixture
def app():
    with Windlass("memory://") as app:

        @app.task(name="t")
        async def task(n: int = 0) -> None: ...

        yield app


def test_a_full_queue_raises_and_says_when_to_come_back(app) -> None:
    assert app.client.bound("default", depth=2, age="10m") == QueueRules(bounds=Bounds(2, 600 * SECOND))
    task = app.tasks["t"]
    task.enqueue()
    with pytest.raises(QueueFull) as full:
        task.enqueue_many([(1,), (2,)])
    assert (full.value.queue, full.value.depth, full.value.retry_after) == ("default", 2, 1.0)
    assert app.client.stats().states["queued"] == 1
    task.enqueue()
    with pytest.raises(QueueFull, match="queue 'default' is full: 2 or more jobs wait"):
        app.enqueue("t")
    assert task.using(delay="1h").enqueue().state() is State.SCHEDULED
    assert app.client.bound("default") == QueueRules()
    assert task.enqueue().created


def test_a_queue_that_is_too_old_names_that_bound(app) -> None:
    app.client.bound("default", age="10ms")
    app.enqueue("t")
    time.sleep(0.03)
    with pytest.raises(QueueFull, match=r"its first job has waited for 0\.\d s, past its bound of 0\.01 s; try again"):
        app.enqueue("t")


def test_on_an_event_loop_each_is_told_for_itself(app) -> None:
    async def many() -> list:
        await app.aclient.bound("default", depth=3)
        return await asyncio.gather(*(app.tasks["t"].aenqueue(n) for n in range(5)), return_exceptions=True)

    answers = asyncio.run(many())
    assert [type(answer).__name__ for answer in answers] == ["Job"] * 3 + ["QueueFull"] * 2


def test_a_queue_that_sheds(app) -> None:
    app.client.bound("default", depth=1, when_full="shed")
    app.enqueue("t")
    job = app.enqueue("t")
    record = job.refresh()
    assert (job.created, record.state, record.reason) == (True, State.CANCELLED, "shed")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"depth": 0}, "depth"),
        ({"depth": 100_001}, "depth"),
        ({"depth": True}, "depth"),
        ({"age": "soon"}, "age"),
        ({"age": 0}, "age"),
        ({"depth": 1, "when_full": "wait"}, "when_full"),
    ],
)
def test_what_is_no_bound_is_refused(app, given, field) -> None:
    with pytest.raises(InvalidJob, match=f"^{field}: "):
        app.client.bound("default", **given)
    assert app.client.queues() == {}


@pytest.mark.parametrize(
    ("bounds", "depth", "age", "wait"),
    [
        (Bounds(), 10**6, 10**12, None),
        (Bounds(10), 9, 10**12, None),
        (Bounds(10), 10, 0, 1),
        (Bounds(10), 10, 50 * SECOND, 5),
        (Bounds(10), 10, 3_600 * SECOND, 60),
        (Bounds(age=SECOND), 0, SECOND, None),
        (Bounds(age=SECOND), 0, 4 * SECOND, 3),
        (Bounds(10, SECOND), 10, 40 * SECOND, 39),
    ],
)
def test_fullness(bounds: Bounds, depth: int, age: int, wait: int | None) -> None:
    full = fullness("q", bounds, depth, age)
    assert (full and full.retry_after) == (None if wait is None else wait * SECOND)
