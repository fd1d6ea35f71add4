"""The files that `windlass init` writes and `windlass demo` runs."""

from __future__ import annotations

TASKS = '''"""Tasks: functions that can also be enqueued. In this directory, where all of these find the same store:

    windlass dev tasks.py                                        a worker that restarts when you save this file
    windlass enqueue tasks.greet '["Ada"]' --app tasks.py --wait 10s
    windlass jobs list
"""

from __future__ import annotations

import asyncio

from windlass import Context, Windlass

app = Windlass()  # the store: WINDLASS_URL, else sqlite:///windlass.db


@app.task
def greet(name: str) -> str:
    """A plain function runs in a thread. What it returns is the job's result."""
    return f"Hello, {name}!"


@app.task(queue="slow", timeout="5m")
async def count(steps: int, ctx: Context) -> int:
    """An async function runs on the worker's event loop; `ctx` comes from the worker, not from the caller."""
    for done in range(steps):
        await asyncio.sleep(0.1)
        ctx.progress(done + 1, steps)
    return steps


@app.task(max_attempts=4)
def fetch(url: str, ctx: Context) -> str:
    """Fails twice, as networks do: it is tried again after 1 s, then 2 s (and some jitter), then 4 s."""
    if ctx.attempt < 3:
        raise ConnectionError(f"{url} did not answer (attempt {ctx.attempt})")
    return f"fetched {url}"


@app.task(permanent=(ValueError,))
def divide(a: int, b: int) -> float:
    """Dividing by zero fails at once and for good: it goes to the dead letters, `windlass dead list`."""
    if b == 0:
        raise ValueError("b must not be 0")
    return a / b


if __name__ == "__main__":
    job = greet.enqueue("world")
    print(f"enqueued {job.id}; it runs as soon as a worker does")
'''

TEST = '''"""Run with pytest. A task is still a function, so most of it is tested by calling it."""

from __future__ import annotations

import asyncio

import pytest
from tasks import app, count, divide, fetch, greet

from windlass import Context, PayloadInvalid
from windlass.testing import engine


def test_greet() -> None:
    assert greet("Ada") == "Hello, Ada!"


def test_count() -> None:
    assert asyncio.run(count(2, Context())) == 2


def test_divide() -> None:
    with pytest.raises(ValueError, match="b must not be 0"):
        divide(1, 0)


def test_wrong_arguments_are_refused_before_anything_is_stored() -> None:
    with pytest.raises(PayloadInvalid, match="a: expected int"):
        divide.enqueue("one", 2)  # type: ignore[arg-type]


def test_fetch_is_tried_again() -> None:
    """The real worker, on a store in memory, with a clock that does not wait."""
    with engine(app) as jobs:
        job = fetch.enqueue("https://example.org")
        drained = jobs.drain(until="1m")
        assert (drained.ran, drained.completed) == (3, 1)
        assert job.result() == "fetched https://example.org"
'''
