"""What operators do: to schedules, to queues, to many jobs at once, to one that is wrong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from windlass.core.flow import Bounds
from windlass.core.job import State
from windlass.core.placement import job_id
from windlass.ports.store import Filter, QueueChange, ScheduleChange, Selection
from windlass.testing.simulation.scheduler import SECOND
from windlass.testing.simulation.timetable import draw_definition, run_now, shown

if TYPE_CHECKING:
    from windlass.testing.simulation.client import ClientProcess
    from windlass.testing.simulation.world import World

MANY = 1_000
PAUSE = 0.3
LATE = 13.0
"""Seconds after which no request is on its way any more whose sender has given up."""


class Operator:
    """The hands of a client that does such things."""

    def __init__(self, client: ClientProcess, store: Any, world: World) -> None:
        self._client = client
        self._store = store
        self._world = world
        self._dice = world.dice

    async def act(self) -> None:
        """Do one thing or another."""
        names = self._schedules()
        if names and self._dice.random() < 0.5:
            await self._change_schedule(self._dice.choice(names))
        else:
            words = ("queue", "queue", "bound", "cancel", "redrive", "redrive", "edit", "edit", "purge")
            await getattr(self, f"_{self._dice.choice(words)}")()

    async def let_go(self) -> None:
        """Nothing that an operator holds up stays held up: every life must come to rest."""
        if self._world.settings.operates:
            await asyncio.sleep(LATE)
        while not self._world.all_asked():  # noqa: ASYNC110 - virtual time costs nothing
            await asyncio.sleep(PAUSE)
        free = [QueueChange(queue, paused=False, limit=0, bounds=Bounds()) for queue in self._queues()]
        while await self._change_queues(*free) is None:
            pass
        resumed = [ScheduleChange(name=name, action="resume") for name in self._schedules()]
        while resumed and await self._change(*resumed) is None:
            pass

    def _schedules(self) -> list[str]:
        return [change.name for change in self._world.settings.versions[0]]

    def _queues(self) -> list[str]:
        return [queue for queue, _ in self._world.settings.queues]

    # --- schedules ---------------------------------------------------------------------------------------------------

    async def _change_schedule(self, name: str) -> None:
        word = self._dice.choice(("pause", "pause", "resume", "delete", "put", "run", "run"))
        if word == "run":
            await self._run(name)
        elif word == "put":
            await self._change(shown(name, draw_definition(self._dice, self._world.settings.trouble), "operator"))
        else:
            await self._change(ScheduleChange(name=name, action=word))

    async def _change(self, *changes: ScheduleChange) -> Any:
        answers = await self._client.insist(lambda: self._store.change_schedules(changes))
        self._client.did("operator changed schedules", *(change.name for change in changes), answers)
        return answers

    async def _run(self, name: str) -> None:
        id = job_id(int(self._world.clock() // 1_000) & 0xFFFFFFFFFFFF, self._dice.randbytes(10))
        answer = await self._client.insist(lambda: run_now(self._store, name, id))
        self._client.did("operator ran", name, id, answer)

    # --- queues ------------------------------------------------------------------------------------------------------

    async def _queue(self) -> None:
        queue = self._dice.choice(self._queues())
        if self._dice.random() < 0.5:
            await self._change_queues(QueueChange(queue, limit=self._dice.choice((0, 1, 2))))
        else:
            await self._change_queues(QueueChange(queue, paused=self._dice.random() < 0.5))

    async def _bound(self) -> None:
        queue = self._dice.choice(self._queues())
        bounds = Bounds(depth=self._dice.choice((None, 1, 2, 3)), shed=self._dice.random() < 0.5)
        await self._change_queues(QueueChange(queue, bounds=bounds))

    async def _change_queues(self, *changes: QueueChange) -> Any:
        answer = await self._client.insist(lambda: self._store.queues(changes))
        self._client.did("operator changed queues", changes, answer)
        return answer

    # --- jobs --------------------------------------------------------------------------------------------------------

    async def _cancel(self) -> None:
        filter = Filter(queue=self._dice.choice(self._queues()))
        await self._select("cancel", Selection(filter=filter, limit=self._dice.choice((1, 2, MANY))))

    async def _redrive(self) -> None:
        filter = Filter(states=(State.DEAD,))
        delay, every = (round(self._dice.random() * most * SECOND) for most in (2, 1))
        if self._dice.random() < 0.5:
            delay = every = 0
        limit = self._dice.choice((1, MANY))
        await self._select("revive", Selection(filter=filter, limit=limit, delay=delay, every=every))

    async def _purge(self) -> None:
        ids = self._client.ids
        if ids and self._dice.random() < 0.5:
            await self._select("delete", Selection((self._dice.choice(ids),)))
        else:
            await self._select("delete", Selection(filter=Filter(states=(State.DEAD,)), limit=MANY))

    async def _select(self, word: str, selection: Selection) -> None:
        answer = await self._client.insist(lambda: getattr(self._store, word)(selection))
        self._client.did(f"operator selected for {word}", selection, answer)

    async def _edit(self) -> None:
        if not self._client.ids:
            return
        id, payload = self._dice.choice(self._client.ids), msgspec.json.encode([[self._client.script()], {}]).decode()
        answer = await self._client.insist(lambda: self._store.edit(id, payload))
        self._client.did("operator edited", id, answer)
