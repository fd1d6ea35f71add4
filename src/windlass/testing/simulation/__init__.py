"""Simulation: the product's own supervisors, workers, plans and transition functions in virtual time, under faults
drawn from a seed, with a ledger and a checker beside them.

    python -m windlass.testing.simulation --seed 7          # replay one life, with its trace
    python -m windlass.testing.simulation --seeds 0..1999   # live many, and say which broke what
    python -m windlass.testing.simulation --store postgresql --url postgresql://user@host/database --seed 7
    python -m windlass.testing.simulation --store redis --url redis://host/0 --seed 7

One thread, one heap of events, one source of chance: the same seed is the same life, in any process. What is real:
every line of `core`, the stores' plans, `runtime.worker` with its executor and settler, `runtime.supervisor` with its
crew, beat, keeper, judge, maintainer, poller and limits. What is not: processes (`worker.py`, `supervisor.py` stand for
fork, exec, exits and signals), sockets (`channel.py`), lock files (`locks.py`), threads (`supervisor.SimulatedTicker`),
the shells (`wire.py` drives the plans, one statement at a time) and, under SQLite, the disk (`disk.py`, which loses
what was not flushed when the power goes). Under PostgreSQL and Redis the server is real, but its clock is not
(`postgres.py`, `redis.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from windlass.testing.simulation.checker import Checker
from windlass.testing.simulation.database import Database
from windlass.testing.simulation.world import Cast, Life, World

__all__ = ["Cast", "Life", "simulate"]

STORES = ("memory", "sqlite", "postgresql", "redis")
SERVERS = {"postgresql": "postgresql://user@host/name", "redis": "redis://host/0"}


def simulate(
    seed: int, store: str = "memory", *, cast: Cast | None = None, trace: bool = False, url: str = ""
) -> Life:
    """Live one life and check it.

    `seed` decides everything, `store` is "memory", "sqlite", "postgresql" or "redis", `cast` replaces parts of the
    product (a test plants a violation with it), `trace` keeps the ledger as text. `url` names a database of a server,
    in which a store is made and dropped at the end of this process. Raises ValueError for another store, or where that
    one is not named. Not to be called from a running event loop, nor by two threads at once: it replaces the clock of
    the runtime's modules meanwhile.
    """
    cast = cast or Cast()
    if store not in STORES:
        raise ValueError(f"store: {store!r} must be one of {', '.join(STORES)}")
    if (store in SERVERS) != bool(url):
        named = " and ".join(SERVERS)
        raise ValueError(f"url: {url!r} must name a database of a server for {named}, and for no other store")
    world = World(seed, cast=cast, keep_trace=trace, make=_maker(store, url))
    try:
        return _checked(world, seed, store, url)
    finally:
        world.wire.database.close()


def _maker(store: str, url: str) -> Callable[[World], Database] | None:
    """What opens the database of a world; the stores' libraries are loaded by who wants them."""
    if store == "postgresql":
        from windlass.testing.simulation.postgres import PostgresDatabase

        return lambda world: PostgresDatabase(world, url)
    if store == "redis":
        from windlass.testing.simulation.redis import RedisDatabase

        return lambda world: RedisDatabase(world, url)
    if store == "sqlite":
        from windlass.testing.simulation.sqlite import SqliteDatabase

        return SqliteDatabase
    return None


def _checked(world: World, seed: int, store: str, url: str) -> Life:
    dump = world.live()
    ledger = world.ledger
    violations = Checker(ledger, dump).check() + [f"uncaught: {failure}" for failure in world.failures()]
    return Life(
        seed=seed,
        store=store,
        url=url,
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
