"""Chaos, with real processes: eight workers under three supervisors, every kind of job, and trouble without end.

What happened is in the ledgers of those to whom it happened; `windlass ledger check` says whether it may have.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.bad_server import BadServer, PostgresHost, RedisHost
from tests.acceptance.ground import BadDisks, Ground
from tests.acceptance.reckoning import checked, keep, settle, write_down
from tests.acceptance.rig import rig
from tests.acceptance.tail import Tail
from tests.acceptance.trouble import HOLD, PROCESSES, Trouble
from windlass.testing.conformance.sizes import seeds, size


class Aim(NamedTuple):
    """What must have happened before it is enough."""

    jobs: int
    kills: int
    stops: int
    seconds: float
    rate: float
    """Jobs enqueued a second."""


WHICH = size(0, 1, 2)
ON_A_SERVER = (
    Aim(jobs=1_000, kills=4, stops=1, seconds=0, rate=200),
    Aim(jobs=50_000, kills=300, stops=50, seconds=20 * 60, rate=200),
    Aim(jobs=1_000_000, kills=2_000, stops=500, seconds=0, rate=350),
)
AIMS = {
    "sqlite": (
        Aim(jobs=3_000, kills=10, stops=2, seconds=0, rate=400),
        Aim(jobs=50_000, kills=500, stops=100, seconds=20 * 60, rate=200),
        Aim(jobs=1_000_000, kills=2_000, stops=500, seconds=0, rate=350),
    ),
    "postgresql": ON_A_SERVER,
    "redis": ON_A_SERVER,
}
PATIENCE = (60, 300, 900)[WHICH]
"""Seconds until everything has ended, once the trouble has."""


class Acked:
    """Counts what the producers have written down."""

    def __init__(self, directory: Path) -> None:
        self._tail = Tail(directory)
        self.count = 0

    def look(self) -> int:
        self.count += sum(line.what == "acked" for line in self._tail.lines())
        return self.count


GROUNDS: dict[str, Callable[[int], Ground]] = {
    "sqlite": lambda _: BadDisks(),
    "postgresql": lambda seed: BadServer(PostgresHost(), seed, HOLD, places=len(PROCESSES) + 1),
    "redis": lambda seed: BadServer(RedisHost(), seed, HOLD, places=len(PROCESSES) + 1),
}


@pytest.mark.parametrize("store", GROUNDS)
@pytest.mark.timeout((240, 3_600, 0)[WHICH])
def test_chaos(store: str, record_property: Any) -> None:
    aim = AIMS[store][WHICH]
    seed = seeds(1, 2, 2)[0]
    place = Path(tempfile.mkdtemp(prefix="windlass-chaos-"))  # pytest forgets its own after three more runs
    print(f"WINDLASS_SEED={seed}, all that is left of a failure is in {place}", flush=True)
    told = {"WINDLASS_HOLD": f"{HOLD}s", "WINDLASS_LIVENESS": "lease"}
    with closing(GROUNDS[store](seed)) as ground, rig(place, ground.url, **told) as r:
        r.sql("CREATE TABLE books (job TEXT, fence BIGINT)")
        trouble = Trouble(r, ground, seed, aim.rate)
        try:
            cause(trouble, ground, aim, Acked(r.ledger))
        finally:
            trouble.end()
        settle(r, PATIENCE)
        write_down(r)
        assert r.run(r.opened.store.audit()) == []
    report = checked(place / "ledger")
    assert report["counts"]["acknowledged"] >= aim.jobs
    assert "SIGTERM supervisor" not in report["explained"]  # I26: a stop hands back what has not begun
    record_property("proof", {**report["counts"], **report["faults"], "lost": 0, "stale": 0, "unexplained": 0})
    keep(place)


def cause(trouble: Trouble, ground: Ground, aim: Aim, acked: Acked) -> None:
    """Rounds of trouble, until there was enough of it for as many jobs."""
    began = time.monotonic()
    while not (
        time.monotonic() - began >= aim.seconds
        and ground.enough
        and trouble.count("SIGKILL") >= aim.kills
        and trouble.count("SIGSTOP") >= aim.stops
        and acked.look() >= aim.jobs * 1.05  # some are acknowledged for several requests
    ):
        trouble.round()
        print(f"{time.monotonic() - began:6.0f} s: {acked.look():,} acknowledged; {trouble}", flush=True)
