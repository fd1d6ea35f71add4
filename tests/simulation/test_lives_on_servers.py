"""Simulated lives on real servers: PostgreSQL, whose transactions meet, and Redis, whose scripts are transactions each by
itself. No seed may break an invariant."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from typing import Any

import pytest

from tests.stores import redis_server
from tests.stores.postgres_server import Server
from windlass.testing.conformance.sizes import seeds, size
from windlass.testing.simulation import SERVERS, simulate
from windlass.testing.simulation.__main__ import main, told
from windlass.testing.simulation.shells import NOTED

pytestmark = pytest.mark.once

SHARES = 2
STORES = ("postgresql", "redis")
KILLED = {
    "postgresql": ("connections ended", "server killed", "death inside a transaction"),
    "redis": ("connections ended", "killed inside a transaction"),
}
"""What befalls the transactions of each."""


@cache
def database(store: str) -> str:
    """Of a server that flushes nothing: nobody pulls a plug here, and to empty all tables takes 0.1 s instead of 0.5."""
    return redis_server.server() if store == "redis" else f"{Server('fsync=off').url}/postgres"


def live(store: str, chosen: range | list[int]) -> tuple[Counter[str], Counter[str]]:
    """Live them all; answers what they went through, and what was asked of the store."""
    sums: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    broken = []
    for seed in chosen:
        life = simulate(seed, store, url=database(store))
        sums.update({"lives": 1, **life.figures()})
        asked.update(life.answered)
        if life.violations:
            broken.append(told(life))
    assert not broken, "\n".join(broken)
    return sums, asked


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("store", STORES)
@pytest.mark.timeout(0)
def test_no_life_breaks_an_invariant(store: str, share: int, record_property: Any) -> None:
    """I1..I14 with transactions side by side: 40 seeds, 2,000 with WINDLASS_PROOF=closing. Faults are delivered, and
    nothing that can be asked is left out, or it would prove nothing."""
    sums, asked = live(store, seeds(40, 2_000, 2_000)[share::SHARES])
    record_property("proof", dict(sums))
    if sums["lives"] > 20:
        assert set(NOTED) - asked.keys() == set()
        wanted = (
            "answer lost", "clock stepped", "machine cut off", "store frozen", "supervisor killed", "tree stopped",
            "worker killed", *KILLED[store],
        )  # fmt: skip
        assert {kind for kind in wanted if not sums[f"fault: {kind}"]} == set()


@pytest.mark.soak
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("store", STORES)
def test_lives_by_the_ten_thousand(store: str, share: int, record_property: Any) -> None:
    """The same, never the same ones."""
    first = time.time_ns() // 1_000
    sums, _ = live(store, range(first + share, first + size(20_000, 20_000, 50_000), SHARES))
    record_property("proof", dict(sums))


@pytest.mark.parametrize("store", STORES)
def test_a_seed_is_the_same_life_in_every_process(store: str) -> None:
    """Whatever was lived there before, and whatever order sets have; a server has much that could decide."""
    script = (
        "from windlass.testing.simulation import SERVERS, simulate\n"
        f"lived = {{seed: simulate(seed, {store!r}, url={database(store)!r}).hash for seed in ORDER}}\n"
        "print(sorted(lived.items()))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script.replace("ORDER", str(order))],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed, order in (("1", [1, 27, 14, 8]), ("4242", [8, 14, 27, 1]))
    }
    assert len(said) == 1, said


@pytest.mark.parametrize("store", STORES)
def test_a_seed_is_replayed_by_one_line(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--store", store, "--url", database(store)]) == 0
    said = capsys.readouterr().out
    assert "client enqueues" in said
    assert f"ledger {simulate(3, store, url=database(store)).hash}" in said


@pytest.mark.parametrize(("store", "url"), SERVERS.items())
def test_without_a_server_it_says_what_it_needs(store: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--seed", "3", "--store", store])
    assert f"--url {url}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="url: '' must name a database of a server"):
        simulate(3, store)
    with pytest.raises(ValueError, match="and for no other store"):
        simulate(3, "memory", url=url)
