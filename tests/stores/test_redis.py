"""The Redis store passes the suite."""

from __future__ import annotations

from pathlib import Path

from windlass.stores.redis import OpenedRedis, open_redis
from windlass.testing import ManualClock
from windlass.testing.conformance import Suite

URL = "redis://127.0.0.1:7398/0"


class TestRedis(Suite):
    @staticmethod
    def open(path: Path, clock: ManualClock) -> OpenedRedis:
        return open_redis(URL, str(path), clock)
