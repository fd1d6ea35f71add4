"""What is kept back by a limit, or by a unique key, goes on in the turn that makes way for it: no hint comes of that."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.worker.harness import World, task
from windlass.core.job import KeyLimit, Meta, Policy, UniqueKey
from windlass.ports.store import QueueChange


async def turn() -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("handler", [turn, lambda: None])
@pytest.mark.parametrize("most", [1, 3])
def test_jobs_under_one_limit_follow_each_other(tmp_path: Any, handler: Any, most: int) -> None:
    meta = msgspec.json.encode(Meta(limits=(KeyLimit("k", most),))).decode()
    with World(tmp_path, task("t", handler)) as world:
        world.enqueue_many("t", [()] * 30, meta=meta)
        world.work()
        assert world.states()["completed"] == 30
        world.sound()


def test_jobs_of_a_limited_queue_follow_each_other(tmp_path: Any) -> None:
    with World(tmp_path, task("t", turn)) as world:
        world.run(world.store.queues([QueueChange("default", limit=1)]))
        world.enqueue_many("t", [()] * 30)
        world.work()
        assert world.states()["completed"] == 30


def test_a_successor_follows_its_owner(tmp_path: Any) -> None:
    meta = msgspec.json.encode(Meta(unique=UniqueKey("k", "keep-last"))).decode()
    begun: list[int] = []

    async def handler(n: int) -> None:
        begun.append(n)
        if n == 0:
            await asyncio.to_thread(world.enqueue, "t", 1, meta=meta)

    with World(tmp_path, task("t", handler)) as world:
        world.enqueue("t", 0, meta=meta)
        world.work()
        assert begun == [0, 1]
        assert world.states()["completed"] == 2


def test_a_retry_makes_way_meanwhile(tmp_path: Any) -> None:
    """Whoever waits for its next attempt keeps no other waiting."""
    meta = msgspec.json.encode(Meta(policy=Policy(max_attempts=2), limits=(KeyLimit("k", 1),))).decode()
    ran: list[int] = []

    async def handler(n: int) -> None:
        ran.append(n)
        if n == 0 and ran.count(0) == 1:
            raise RuntimeError("once more")

    with World(tmp_path, task("t", handler)) as world:
        world.enqueue_many("t", [(0,), (1,), (2,)], meta=meta)
        world.work()
        assert ran == [0, 1, 2, 0]
