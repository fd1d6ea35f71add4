"""The conformance suite: what makes a set of plans a Windlass store.

A store's author writes:

    from windlass.testing.conformance import Suite

    class TestMyStore(Suite):
        @staticmethod
        def open(path, clock):
            return open_my_store(f"mine:///{path}/jobs", clock=clock)

`path` is an empty directory of the test's own and `clock` a `windlass.testing.ManualClock`, which must be the only
clock that the store reads. Opening the same path again must give the same store, unless it has no capability
`durable`. Every test runs under the blocking and under the async shell. What a store cannot do it does not name in
its `capabilities`, and the tests that need it are skipped, naming it. An optional `make_newer(opened)`, static too,
gives the schema a version that does not exist yet; `hold_up(opened)`, a context manager, keeps enqueues waiting for as
long as it lasts, where a transaction that writes nothing does not.

Sizes: WINDLASS_PROOF=closing or soak enlarges the chapters `model` and `race`; WINDLASS_SEED=n repeats a seed that
failed. What they went through stands in each report's `user_properties`, under "proof".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

CHAPTERS = (
    "enqueue",
    "claim",
    "settle",
    "leases",
    "limits",
    "operator",
    "time",
    "reading",
    "survey",
    "queues",
    "unique",
    "family",
    "bounds",
    "schedules",
    "departure",
    "cluster",
    "schema",
    "shells",
    "anomalies",
    "race",
    "model",
)
pytest.register_assert_rewrite(*(f"{__name__}.{chapter}" for chapter in (*CHAPTERS, "world")))

from windlass.ports.store import Opened  # noqa: E402 - assertions are rewritten in what is imported from here on
from windlass.testing.clock import ManualClock  # noqa: E402
from windlass.testing.conformance.anomalies import Anomalies  # noqa: E402
from windlass.testing.conformance.bounds import Bounded  # noqa: E402
from windlass.testing.conformance.claim import Claiming  # noqa: E402
from windlass.testing.conformance.cluster import Cluster  # noqa: E402
from windlass.testing.conformance.departure import Departures  # noqa: E402
from windlass.testing.conformance.enqueue import Enqueueing  # noqa: E402
from windlass.testing.conformance.family import Families  # noqa: E402
from windlass.testing.conformance.leases import Leases  # noqa: E402
from windlass.testing.conformance.limits import Limits  # noqa: E402
from windlass.testing.conformance.model import Model  # noqa: E402
from windlass.testing.conformance.operator import Operating  # noqa: E402
from windlass.testing.conformance.queues import Queues  # noqa: E402
from windlass.testing.conformance.race import Races  # noqa: E402
from windlass.testing.conformance.reading import Reading  # noqa: E402
from windlass.testing.conformance.schedules import Scheduling  # noqa: E402
from windlass.testing.conformance.schema import Schema  # noqa: E402
from windlass.testing.conformance.settle import Settling  # noqa: E402
from windlass.testing.conformance.shells import Shells  # noqa: E402
from windlass.testing.conformance.survey import Survey  # noqa: E402
from windlass.testing.conformance.time import Time  # noqa: E402
from windlass.testing.conformance.unique import Unique  # noqa: E402
from windlass.testing.conformance.world import World, open_world  # noqa: E402

__all__ = ["Suite", "World", "open_world"]


class Suite(
    Enqueueing,
    Claiming,
    Settling,
    Leases,
    Limits,
    Operating,
    Time,
    Unique,
    Families,
    Bounded,
    Reading,
    Survey,
    Queues,
    Scheduling,
    Departures,
    Cluster,
    Schema,
    Shells,
    Anomalies,
    Races,
    Model,
):
    """Every chapter. Derive a class whose name begins with Test, and give it `open`."""

    @staticmethod
    def open(path: Path, clock: ManualClock) -> Opened:
        """Open the store that is to be tested, in the directory `path`, under `clock`."""
        raise NotImplementedError

    @pytest.fixture(params=["sync", "async"])
    def world(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
        """A migrated, empty store."""
        with open_world(self.open, tmp_path, request.param) as world:
            request.node.user_properties.append(("proof", world.figures))
            yield world
