"""The application of the chaos run: a job of every kind, each of which writes down what it does."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from windlass import Backoff, Context, Limit, Snooze, Unique, Windlass
from windlass.core.errors import LeaseLost
from windlass.testing import ledger

LEDGER = os.environ["LEDGER"]
BOOK = f"INSERT INTO books VALUES ({'%s, %s' if os.environ['WINDLASS_URL'].startswith('postgresql:') else '?, ?'})"
SOON = Backoff(base="100ms", factor=1.5, jitter=0.2)

Fence = dict[str, int]
"""What every handler returns: which run it was, so that a result can be held against the run that it is kept for."""

app = Windlass()


@contextmanager
def run(ctx: Context) -> Iterator[None]:
    """Writes down the start of a run, and how it ended."""
    token = (ctx.id, ctx.token.fence, ctx.attempt)
    ledger.write(LEDGER, "start", *token)
    how = "returned"
    try:
        yield
    except Snooze:
        how = "snoozed"
        raise
    except LeaseLost:
        how = "refused"
        ledger.write(LEDGER, "refused", *token)
        raise
    except Exception:
        how = "raised"
        raise
    except BaseException:
        how = "cancelled"
        raise
    finally:
        ledger.write(LEDGER, "end", *token, how)


def fence(ctx: Context) -> Fence:
    return {"fence": ctx.token.fence}


@app.task
async def quick(ctx: Context) -> Fence:
    with run(ctx):
        return fence(ctx)


@app.task
async def sleeper(ctx: Context, seconds: float) -> Fence:
    with run(ctx):
        await asyncio.sleep(seconds)
    return fence(ctx)


@app.task
def threaded(ctx: Context, seconds: float) -> Fence:
    with run(ctx):
        time.sleep(seconds)
    return fence(ctx)


@app.task(executor="process")
def in_process(ctx: Context, seconds: float) -> Fence:
    with run(ctx):
        time.sleep(seconds)
    return fence(ctx)


@app.task(max_attempts=6, backoff=SOON)
async def flaky(ctx: Context, failures: int) -> Fence:
    """Fails so often, and asks for a little time before it does not."""
    with run(ctx):
        if ctx.attempt <= failures:
            raise RuntimeError("not yet")
    return fence(ctx)


@app.task(max_attempts=2, backoff=SOON)
async def failing(ctx: Context) -> None:
    with run(ctx):
        raise RuntimeError("never")


@app.task(max_attempts=6, backoff=SOON)
def steps(ctx: Context, seconds: float) -> Fence:
    """Two effects under the fence, some time apart: a ghost's are refused."""
    with run(ctx):
        for name in ("first", "second"):
            since = time.monotonic()
            ctx.once(name, os.getpid)
            ledger.write(LEDGER, "effect", ctx.id, ctx.token.fence, ctx.attempt, name, since=since)
            time.sleep(seconds)
    return fence(ctx)


@app.task(max_attempts=6, backoff=SOON)
def booked(ctx: Context) -> Fence:
    """A row that commits with the job's completion, or not at all."""
    with run(ctx):
        ctx.transaction().execute(BOOK, (ctx.id, ctx.token.fence))
    return fence(ctx)


@app.task(limit=[Limit(2, key=lambda key, **_: f"key:{key}"), Limit(7, name="seven")])
async def limited(ctx: Context, key: int, seconds: float) -> Fence:
    with run(ctx):
        await asyncio.sleep(seconds)
    return fence(ctx)


@app.task(limit=1, limit_key="key")
def limited_thread(ctx: Context, key: int, seconds: float) -> Fence:
    with run(ctx):
        time.sleep(seconds)
    return fence(ctx)


@app.task(unique=Unique(key="key"))
async def only(ctx: Context, key: int, seconds: float) -> Fence:
    with run(ctx):
        await asyncio.sleep(seconds)
    return fence(ctx)


@app.task(unique=Unique(key="key", policy="keep-last"))
def last(ctx: Context, key: int, seconds: float) -> Fence:
    with run(ctx):
        time.sleep(seconds)
    return fence(ctx)


@app.task(max_attempts=6, backoff=SOON)
def parent(ctx: Context, children: int) -> Fence:
    """Some children at once, in a batch each, and one with its own completion."""
    with run(ctx):
        ctx.fan_out(sleeper, ((0.01,) for _ in range(children)), batch=2)
        ctx.enqueue(quick)
    return fence(ctx)


@app.task
async def tick(ctx: Context) -> Fence:
    with run(ctx):
        return fence(ctx)


app.schedule(tick, cron="* * * * * *", name="each second", catch_up="all", overlap="queue")

if os.environ.get("BAD_DISK"):
    from tests.acceptance.bad_disk import install

    install(LEDGER, int(os.environ["BAD_DISK"]))
