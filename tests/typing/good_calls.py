"""Calls that mypy --strict must accept, with the types that they must have."""

from __future__ import annotations

import datetime as dt
from collections.abc import Coroutine
from typing import Any, assert_type

from windlass import Backoff, Context, Job, Limit, Retry, Task, Unique, Windlass, provided
from windlass.task import AsyncTask, SyncTask
from windlass.testing import Drained, SeenJob, engine

app = Windlass("memory://")


class Model:
    """A resource."""


@app.task
def add(a: int, b: int = 2) -> int:
    return a + b


@app.task(queue="mail", max_attempts=5, backoff=Backoff(base="1s", max="10m"), timeout="30s", transient=(KeyError,))
async def send(user_id: int, *, greeting: str = "hi") -> str:
    raise Retry("10s")


@app.task(limit=[3, Limit(1, key="user_id")], unique=Unique("user_id", policy="debounce", wait="2s"))
async def limited(user_id: int) -> None:
    with app.lock("x", ttl="10s", timeout=1) as lock:
        assert_type(lock.fence, int)
    async with app.semaphore("y", 3) as slot:
        assert_type(slot.lost, bool)


@app.task(limit=1, limit_key=lambda user_id, **_: f"user {user_id}")
def keyed(user_id: int, region: str) -> None:
    keep_last = limited.using(unique=Unique(policy="keep-last"), limit=None)
    assert_type(keep_last.enqueue(7), Job[None])


@app.task
def first(ctx: Context, path: str) -> list[str]:
    return [path, ctx.id]


@app.task(executor="process")
async def first_async(ctx: Context, path: str) -> None: ...


@app.task
def late(path: str, model: Model = provided(), ctx: Context = provided()) -> bytes:
    ctx.enqueue(add, 1, b=2)
    ctx.enqueue(first.using(delay="1s"), "x")
    assert_type(ctx.once("charge", charge, 3, currency="EUR"), int)
    return b""


def charge(amount: int, currency: str) -> int:
    return amount


@app.task
def anything(data: Any, n: int) -> int:
    return n


@app.task
def variadic(*paths: str, **sizes: int) -> dict[str, int]:
    return sizes


@app.on_worker_start
async def load() -> Model:
    return Model()


@send.upcast(from_version=1)
def old(user: str) -> object:
    return send.call(int(user), greeting="hi")


def synchronous() -> None:
    assert_type(add(1), int)
    assert_type(add(1, b=3), int)
    assert_type(add.enqueue(1, b=2), Job[int])
    assert_type(add.enqueue(a=1).result(timeout="10s"), int)
    assert_type(add.using(delay="10m", priority=80, idempotency_key="k", at=dt.datetime.now(dt.UTC)).enqueue(7), Job[int])
    assert_type(add.enqueue_many([(1,), {"a": 2}, add.call(3, b=4)]), list[Job[int]])
    assert_type(first("x"), list[str])
    assert_type(first.enqueue("x"), Job[list[str]])
    assert_type(first.enqueue(path="x").result(), list[str])
    assert_type(late.enqueue("x"), Job[bytes])
    assert_type(late("x", Model()), bytes)
    anything.enqueue({"a": 1}, 2)
    assert_type(variadic.enqueue("a", "b", x=1), Job[dict[str, int]])
    assert_type(app.enqueue("reports.build", {"day": "2026-11-22"}, queue="reports"), Job[Any])
    assert_type(app.job("x").result(), Any)


async def asynchronous() -> None:
    await assert_type(send(7), Coroutine[Any, Any, str])
    assert_type(await send(7, greeting="x"), str)
    assert_type(send.enqueue(7), Job[str])
    assert_type(await send.aenqueue(7, greeting="x"), Job[str])
    assert_type(await (await send.aenqueue(7)).aresult(timeout=10), str)
    assert_type(await send.using(queue="other").aenqueue(7), Job[str])
    assert_type(await send.aenqueue_many([(7,)]), list[Job[str]])
    await first_async("x")
    assert_type(await first_async.aenqueue("x"), Job[None])
    assert_type(await app.aenqueue("x", [1]), Job[Any])


def takes_tasks(one: Task[[int, int], int], two: SyncTask[[int], int], three: AsyncTask[..., str]) -> None:
    one.enqueue(1, 2)


takes_tasks(add, add, send)


def test_of_ones_own() -> None:
    with engine(app, resources={Model: Model()}) as jobs:
        add.enqueue(1)
        assert_type(jobs.drain(until="1h"), Drained)
        assert_type(jobs.assert_enqueued(add, 1, b=2, queue="default", times=1), SeenJob)
        with jobs.fake(send, returns="sent", times=1):
            jobs.crash("good_calls.add", at="after")
