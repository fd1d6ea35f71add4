"""The conformance suite on Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.stores.redis_server import server
from windlass.stores.redis import OpenedRedis, open_redis
from windlass.stores.redis.keys import NAMES
from windlass.testing import ManualClock
from windlass.testing.conformance import Suite


class TestRedis(Suite):
    @staticmethod
    def make_newer(opened: Any) -> None:
        with redis.Redis.from_url(server()) as client:
            client.hset(opened.shell._keys[NAMES.index("marks")], "schema", 99)

    @staticmethod
    @contextmanager
    def hold_up(opened: Any) -> Iterator[None]:
        with redis.Redis.from_url(server()) as client:
            client.client_pause(30_000, all=False)
            yield
            client.client_unpause()

    @staticmethod
    def open(path: Path, clock: ManualClock) -> OpenedRedis:
        return open_redis(f"{server()}?prefix={path}", clock=clock)
