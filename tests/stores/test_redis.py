"""The Redis store, as far as it goes: it is no store by URL yet. What it does not do yet is named here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from tests.stores.redis_server import server
from windlass.stores.redis import OpenedRedis, open_redis
from windlass.stores.redis.keys import NAMES
from windlass.testing import ManualClock
from windlass.testing.conformance import Suite

NOT_YET = {
    "test_a_busy_store_times_out",
}


class TestRedis(Suite):
    @pytest.fixture(autouse=True)
    def _yet(self, request: pytest.FixtureRequest) -> None:
        if request.node.originalname in NOT_YET:
            pytest.skip("not yet")

    @staticmethod
    def make_newer(opened: Any) -> None:
        with redis.Redis.from_url(server()) as client:
            client.hset(opened.shell._keys[NAMES.index("marks")], "schema", 99)

    @staticmethod
    def open(path: Path, clock: ManualClock) -> OpenedRedis:
        return open_redis(f"{server()}?prefix={path}", clock=clock)
