"""The Redis store, as far as it goes: it is no store by URL yet. What it does not do yet is named here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores.redis_server import server
from windlass.stores.redis import OpenedRedis, open_redis
from windlass.testing import ManualClock
from windlass.testing.conformance import Suite
from windlass.testing.conformance.departure import Departures

NOT_YET = {
    *(name for name in vars(Departures) if name.startswith("test_")),
    "test_a_busy_store_times_out",
    "test_a_plan_that_raises_changes_nothing",
    "test_a_redrive_is_of_one_instant",
    "test_a_store_without_a_schema_says_so",
    "test_a_tick_that_cancels_is_of_one_instant",
    "test_every_plan_is_all_or_nothing",
    "test_fences_are_exact_beyond_doubles",
    "test_numbers_at_their_limits",
    "test_the_same_as_the_model",
}


class TestRedis(Suite):
    @pytest.fixture(autouse=True)
    def _yet(self, request: pytest.FixtureRequest) -> None:
        if request.node.originalname in NOT_YET:
            pytest.skip("not yet")

    @staticmethod
    def open(path: Path, clock: ManualClock) -> OpenedRedis:
        return open_redis(server(), str(path), clock)
