"""Simulation: the product's own supervisors, workers, plans and transition functions in virtual time, under faults
drawn from a seed, with a ledger and a checker beside them.

    python -m windlass.testing.simulation --seed 7          # replay one life, with its trace
    python -m windlass.testing.simulation --seeds 0..1999   # live many, and say which broke what

One thread, one heap of events, one source of chance: the same seed is the same life, in any process. What is real:
every line of `core`, the stores' plans, `runtime.worker` with its executor and settler, `runtime.supervisor` with its
crew, beat, keeper, judge, maintainer, poller and limits. What is not: processes (`worker.py`, `supervisor.py` stand for
fork, exec, exits and signals), sockets (`channel.py`), lock files (`locks.py`), threads (`supervisor.SimulatedTicker`),
the shells (`wire.py` drives the plans, one statement at a time) and, under SQLite, the disk (`disk.py`, which loses
what was not flushed when the power goes).
"""

from __future__ import annotations

from windlass.testing.simulation.checker import Checker
from windlass.testing.simulation.world import Cast, Life, World

__all__ = ["Cast", "Life", "simulate"]

STORES = ("memory", "sqlite")


def simulate(seed: int, store: str = "memory", *, cast: Cast | None = None, trace: bool = False) -> Life:
    """Live one life and check it.

    `seed` decides everything, `store` is "memory" or "sqlite", `cast` replaces parts of the product (a test plants a
    violation with it), `trace` keeps the ledger as text. Raises ValueError for another store. Not to be called from a
    running event loop, nor by two threads at once: it replaces the clock of the runtime's modules meanwhile.
    """
    cast = cast or Cast()
    if store not in STORES:
        raise ValueError(f"store: {store!r} must be one of {', '.join(STORES)}")
    if store == "memory":
        return _checked(World(seed, cast=cast, keep_trace=trace), seed, store)
    from windlass.testing.simulation.sqlite import SqliteDatabase

    world = World(seed, cast=cast, keep_trace=trace, make=SqliteDatabase)
    try:
        return _checked(world, seed, store)
    finally:
        world.wire.database.close()


def _checked(world: World, seed: int, store: str) -> Life:
    dump = world.live()
    ledger = world.ledger
    violations = Checker(ledger, dump).check() + [f"uncaught: {failure}" for failure in world.failures()]
    return Life(
        seed=seed,
        store=store,
        violations=tuple(violations),
        hash=ledger.hash,
        jobs=len(dump.jobs),
        acked=len(ledger.acked),
        events=world.scheduler.count,
        commits=world.wire.commits,
        seconds=world.scheduler.now,
        delivered=dict(ledger.delivered),
        answered=dict(ledger.answered),
        trace=None if ledger.text is None else tuple(ledger.text),
    )
