"""A handler that holds a lock: what `windlass.lock` does in a thread, on the loop of a simulated worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from windlass.core.errors import StoreError
from windlass.testing.simulation.scheduler import SECOND

if TYPE_CHECKING:
    from windlass.ports.store import Leadership
    from windlass.testing.simulation.worker import WorkerProcess
    from windlass.testing.simulation.world import World

TTL = 1.5
PATIENCE = 3.0
PAUSE = 0.2


class Holder:
    """One holding of a lock, from the first request to the last word."""

    def __init__(self, world: World, process: WorkerProcess, name: str, holder: str, slots: int) -> None:
        self._world = world
        self._process = process
        self._opened = world.open(process)
        self._name = name
        self._holder = holder
        self._slots = slots
        self._until = 0.0
        """Until when it may believe that it has the lock, counted from before it asked."""

    async def hold(self, seconds: float) -> str:
        """Wait for it, hold it for so long or until it is lost, and give it up."""
        begin = self._now
        while not (answer := await self._ask()) or not answer.leading:
            if self._now > begin + PATIENCE:
                return "kept out"
            await asyncio.sleep(PAUSE)
        try:
            return await self._keep(answer.term, self._now + seconds)
        finally:
            self._say("lock let go")

    async def _keep(self, term: int, end: float) -> str:
        while True:
            if self._now >= self._until:
                return "lost"
            self._say("lock held")
            await asyncio.sleep(min(TTL / 3, max(0.0, end - self._now)))
            if self._now >= end:
                break
            answer = await self._ask()
            if answer and (not answer.leading or answer.term != term):
                return "lost"
        self._say("lock let go")
        try:
            await self._opened.async_shell().run(self._opened.store.resign(self._name, self._holder))
        except StoreError:
            return "lapses"
        return "given up"

    async def _ask(self) -> Leadership | None:
        asked_at = self._now
        plan = self._opened.store.lead(self._name, self._holder, round(TTL * SECOND), self._slots)
        try:
            answer: Leadership = await self._opened.async_shell().run(plan, TTL / 3)
        except StoreError:
            return None
        if answer.leading:
            self._until = asked_at + TTL
        return answer

    @property
    def _now(self) -> float:
        return self._world.scheduler.now

    def _say(self, what: str) -> None:
        if self._process.alive:
            name, until = self._name, self._until
            self._world.ledger.did(self._now, self._process.name, what, name, self._holder, self._slots, until)
