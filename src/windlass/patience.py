"""Waiting for something in the store without hammering it: the store is asked for a change number only, at most every
millisecond and soon every 50 ms, and looked at when that has moved."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from windlass.ports.plan import Plan
from windlass.ports.store import Opened

if TYPE_CHECKING:
    from windlass.engine import Engine

T = TypeVar("T")

Wait: TypeAlias = Generator[Plan[Any] | float, Any, T]
"""Says what it needs next, a plan to run or seconds to sleep, and returns what was waited for."""

FIRST, MOST = 0.001, 0.05
LOOK_AT_LEAST_EVERY = 1.0
"""A store that fails to notice a change costs who waits this much, never what is waited for."""


def until(
    opened: Opened, look: Callable[[], Wait[T | None]], deadline: float | None, late: Callable[[], Exception]
) -> Wait[T]:
    """Look until there is something. Raises what `late` makes after `deadline` (monotonic clock; None: never)."""
    seen, looked_at, pause = None, 0.0, FIRST
    while True:
        # The number is taken before the look, so that a change in between is not missed.
        change, now = opened.shell.changed(), time.monotonic()
        if change != seen or now - looked_at >= LOOK_AT_LEAST_EVERY:
            found = yield from look()
            if found is not None:
                return found
            seen, looked_at = change, now
        left = pause if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise late()
        yield min(pause, left)
        pause = min(pause * 1.5, MOST)


def wait(engine: Engine, steps: Wait[T]) -> T:
    """Block the calling thread until `steps` are done."""
    shell = engine.opened().shell
    answer: Any = None
    while True:
        try:
            wanted = steps.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found
        if isinstance(wanted, Plan):
            answer = shell.run(wanted)
        else:
            answer = None
            time.sleep(wanted)


async def await_(engine: Engine, steps: Wait[T]) -> T:
    """`wait` for an event loop."""
    import asyncio

    shell = (await engine.aopened()).async_shell()
    answer: Any = None
    while True:
        try:
            wanted = steps.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found
        answer = await (shell.run(wanted) if isinstance(wanted, Plan) else asyncio.sleep(wanted))
