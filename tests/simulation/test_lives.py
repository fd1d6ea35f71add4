"""Simulated lives: no seed may break an invariant, and a seed must be the same life wherever it is lived."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from windlass.testing.conformance.sizes import seeds, size
from windlass.testing.simulation import simulate
from windlass.testing.simulation.__main__ import main, told
from windlass.testing.simulation.shells import NOTED

SHARES = 8
"""Tests into which the seeds of a run are cut, so that two processes can share them."""
SQLITE_SHARE = 20
"""One life in so many is lived on SQLite, which takes three times as long."""

EMBEDDED = ("memory", "sqlite")
"""For the one that is a server see test_lives_on_servers.py."""


def live(chosen: Iterable[int], record: Callable[[str, object], None]) -> None:
    """Every life of one share, some of them on SQLite."""
    sums: Counter[str] = Counter()
    broken = []
    for seed in chosen:
        life = simulate(seed, "sqlite" if seed // SHARES % SQLITE_SHARE == 0 else "memory")
        sums.update({"lives": 1, f"on {life.store}": 1, **life.figures()})
        if life.violations:
            broken.append(told(life))
    record("proof", dict(sums))
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.timeout(0)
def test_no_life_breaks_an_invariant(share: int, record_property: Any) -> None:
    """I1..I14, fan-outs, locks and bounded queues: 2,000 seeds, 20,000 with WINDLASS_PROOF=closing."""
    live(seeds(2_000, 20_000, 20_000)[share::SHARES], record_property)


@pytest.mark.soak
@pytest.mark.parametrize("share", range(SHARES))
def test_lives_by_the_hundred_thousand(share: int, record_property: Any) -> None:
    """The same, never the same ones."""
    first = time.time_ns() // 1_000
    live(range(first + share, first + size(200_000, 200_000, 1_000_000), SHARES), record_property)


@pytest.mark.parametrize("store", EMBEDDED)
def test_a_seed_is_the_same_life_twice(store: str) -> None:
    for seed in range(20):
        assert simulate(seed, store).hash == simulate(seed, store, trace=True).hash, f"seed {seed}"


@pytest.mark.parametrize("store", EMBEDDED)
def test_a_seed_is_the_same_life_in_every_process(store: str) -> None:
    """Whatever order sets have there."""
    script = (
        "from windlass.testing.simulation import simulate\n"
        f"print([simulate(seed, {store!r}).hash for seed in range(40, 60)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    }
    assert len(said) == 1, said


def test_two_seeds_are_two_lives() -> None:
    assert len({simulate(seed).hash for seed in range(20)}) == 20


def test_a_seed_is_replayed_by_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--store", "sqlite"]) == 0
    said = capsys.readouterr().out
    assert "client enqueues" in said
    assert "handler begins" in said
    assert f"ledger {simulate(3, 'sqlite').hash}" in said
    assert main(["--seeds", "5..9"]) == 0
    assert "5 lives on memory" in capsys.readouterr().out


def test_faults_are_delivered(record_property: Any) -> None:
    """A run whose faults miss proves nothing, nor does one that leaves an operation out."""
    sums: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for seed in range(140):
        life = simulate(seed, "memory" if seed < 100 else "sqlite")
        sums.update(life.delivered)
        asked.update(life.answered)
    record_property("proof", dict(sums))
    assert {operation for operation in NOTED if asked[operation] < 5} == set()
    wanted = (
        "answer late", "answer lost", "calls of a process that was cut off", "clock stepped", "death between commit and answer",
        "death inside a transaction", "handler kills its worker", "killed inside a transaction", "machine cut off",
        "power cut", "request lost", "store frozen", "store slow", "supervisor killed", "supervisor told to stop",
        "tree stopped", "worker killed",
    )  # fmt: skip
    assert {kind for kind in wanted if sums[kind] < 5} == set()


def test_another_store_is_refused() -> None:
    with pytest.raises(ValueError, match="store: 'kafka' must be one of memory, sqlite, postgresql, redis"):
        simulate(1, "kafka")
