"""What operators do: to schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windlass.core.placement import job_id
from windlass.ports.store import ScheduleChange
from windlass.testing.simulation.timetable import draw_definition, run_now, shown

if TYPE_CHECKING:
    from windlass.testing.simulation.client import ClientProcess
    from windlass.testing.simulation.world import World


class Operator:
    """The hands of a client that does such things."""

    def __init__(self, client: ClientProcess, store: Any, world: World) -> None:
        self._client = client
        self._store = store
        self._world = world
        self._dice = world.dice

    async def act(self) -> None:
        """Do one thing or another."""
        names = [change.name for change in self._world.settings.versions[0]]
        if names:
            await self._change_schedule(self._dice.choice(names))

    async def let_go(self) -> None:
        """Nothing that an operator holds up stays held up: every life must come to rest."""
        names = [change.name for change in self._world.settings.versions[0]]
        if names:
            await self._change(*(ScheduleChange(name=name, action="resume") for name in names))

    async def _change_schedule(self, name: str) -> None:
        word = self._dice.choice(("pause", "pause", "resume", "delete", "put", "run", "run"))
        if word == "run":
            await self._run(name)
        elif word == "put":
            await self._change(shown(name, draw_definition(self._dice, self._world.settings.trouble), "operator"))
        else:
            await self._change(ScheduleChange(name=name, action=word))

    async def _change(self, *changes: ScheduleChange) -> None:
        answers = await self._client.insist(lambda: self._store.change_schedules(changes))
        self._client.did("operator changed schedules", *(change.name for change in changes), answers)

    async def _run(self, name: str) -> None:
        id = job_id(int(self._world.clock() // 1_000) & 0xFFFFFFFFFFFF, self._dice.randbytes(10))
        answer = await self._client.insist(lambda: run_now(self._store, name, id))
        self._client.did("operator ran", name, id, answer)
