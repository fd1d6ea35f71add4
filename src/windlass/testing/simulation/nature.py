"""Time, chance and the kernel, as the product asks for them by name: replaced while a simulation runs.

What can be handed in is handed in (`runtime.host.Host`, a shell, a link). What is left are functions of modules, for a
seam there would cost every job something or carry an argument through ten files: this is the list of them, and the only
place where the simulation reaches into the product.
"""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from windlass.runtime import (
    context,
    executor,
    limits,
    lockfile,
    member,
    poller,
    process,
    service,
    settler,
    slots,
    supervisor,
    worker,
)
from windlass.stores.memory import workers as memory_workers
from windlass.stores.sql import workers as sql_workers
from windlass.testing.simulation.locks import Locks

POLL = 0.5
"""Seconds between two looks of a supervisor at an unchanged store: 0.05 would be most of what a simulation does."""


class World(Protocol):
    """What the machine needs to know."""

    locks: Locks

    def monotonic(self) -> float:
        """Virtual seconds."""
        ...

    @property
    def dice(self) -> random.Random:
        """The one source of chance."""
        ...

    def kill(self, pid: int, number: int) -> None:
        """Send a signal."""
        ...

    def exits(self) -> list[tuple[int, int]]:
        """The children of the acting process that have ended."""
        ...

    def heard(self, record: logging.LogRecord) -> None:
        """A log record of the product."""
        ...


class _Clock:
    """The module `time`, as far as the runtime uses it."""

    CLOCK_BOOTTIME = CLOCK_MONOTONIC = 0

    def __init__(self, world: World) -> None:
        self.monotonic = world.monotonic
        self.time_ns = self.monotonic_ns = lambda: round(world.monotonic() * 1e9) + 1
        self.clock_gettime = lambda _: world.monotonic()


class _Chance:
    """The modules `random` and `secrets`, as far as the runtime and the stores use them."""

    def __init__(self, dice: random.Random) -> None:
        self.random = dice.random
        self.Random = lambda: dice
        self.token_hex = lambda count: dice.randbytes(count).hex()


class _Ear(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.emit = world.heard  # type: ignore[method-assign]


@contextmanager
def replaced(world: World, *, listening: bool) -> Iterator[None]:
    """Meanwhile the product lives in `world`. Its log goes there if somebody is `listening`, else nowhere."""
    clock, chance = _Clock(world), _Chance(world.dice)
    locks = world.locks
    changes: list[tuple[Any, str, Any]] = [
        *((module, "now_ns", clock.monotonic_ns) for module in (slots, settler, worker, executor, limits)),
        *((module, "time", clock) for module in (service, context, member)),
        *((module, "random", chance) for module in (worker, memory_workers, sql_workers)),
        (member, "secrets", chance),
        (supervisor, "hostname", lambda: "simulated"),
        (process, "kill", lambda pid, number=9: world.kill(pid, number)),
        (process, "exits", world.exits),
        (process, "orphans", lambda _: []),
        (process, "become_subreaper", lambda: None),
        *((lockfile, name, getattr(locks, name)) for name in ("create", "obtain", "exists", "sweep")),
        (poller, "EVERY", POLL),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    logger = logging.getLogger("windlass")
    level, propagate, ear = logger.level, logger.propagate, _Ear(world)
    logger.setLevel(logging.DEBUG if listening else logging.CRITICAL + 1)
    logger.propagate = False
    logger.addHandler(ear)
    # A collection runs what the dead left behind (a coroutine's `finally`), at a moment that no seed decides.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for module, name, value in changes:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        if collecting:
            gc.enable()
        logger.removeHandler(ear)
        logger.propagate = propagate
        logger.setLevel(level)
