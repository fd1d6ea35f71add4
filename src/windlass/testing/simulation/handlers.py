"""What the jobs of a simulated life do: each carries a script, one act for each of its runs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from windlass.core.errors import Discard, Retry, Snooze, StoreError
from windlass.core.job import Meta, NewJob, Progress
from windlass.runtime.context import current_run
from windlass.runtime.registry import Mode, Registry, TaskDef
from windlass.testing.simulation.holder import Holder

if TYPE_CHECKING:
    from windlass.runtime.run import Run
    from windlass.testing.simulation.worker import WorkerProcess
    from windlass.testing.simulation.world import World

TASK = "act"

CHILDREN = 3
"""Of a fan-out."""
Act = list[Any]
"""A word, and perhaps a number: see the methods of Handler."""


class Fatal(Exception):
    """An exception that trying again cannot cure."""


class Handler:
    """The code of the application, in one worker process."""

    def __init__(self, world: World, process: WorkerProcess) -> None:
        self._world = world
        self._process = process

    async def __call__(self, script: list[Act]) -> Any:
        """Run the act whose turn it is, and write down that it began and how it ended."""
        run: Run = current_run.get()  # type: ignore[assignment]
        world, held = self._world, run.held
        number = world.ledger.runs[held.id]
        world.ledger.runs[held.id] += 1
        self._note("handler begins", held, held.attempt)
        act: Act = script[number] if number < len(script) else ["work", 0.01]
        word, *arguments = act
        if number >= world.settings.runs_most:
            world.ledger.did(world.scheduler.now, self._process.name, "handler runs without end", held.id, number)
            return None
        try:
            result = await getattr(self, word)(run, *arguments)
        except BaseException as error:
            if self._process.alive and not isinstance(error, GeneratorExit):
                self._note("handler raised", held, type(error).__name__)
            raise
        self._note("handler returned", held, result)
        return result

    def _note(self, what: str, held: Any, fact: Any) -> None:
        world = self._world
        world.ledger.did(world.scheduler.now, self._process.name, what, held.id, held.fence, self._process.id, fact)

    async def work(self, run: Run, seconds: float) -> str:
        """Take a while."""
        await asyncio.sleep(seconds)
        return run.held.id[-6:]

    async def fail(self, run: Run, seconds: float) -> None:
        """Raise."""
        await asyncio.sleep(seconds)
        raise RuntimeError("as scripted")

    async def ruin(self, run: Run, seconds: float) -> None:
        """Raise what no repetition cures."""
        await asyncio.sleep(seconds)
        raise Fatal("as scripted")

    async def retry(self, run: Run, seconds: float) -> None:
        """Ask for another try after a time."""
        raise Retry(seconds, "as scripted")

    async def snooze(self, run: Run, seconds: float) -> None:
        """Ask to be run later."""
        raise Snooze(seconds, "as scripted")

    async def discard(self, run: Run, seconds: float) -> None:
        """Give up."""
        raise Discard("as scripted")

    async def crash(self, run: Run, seconds: float) -> None:
        """End the process that runs it."""
        await asyncio.sleep(seconds)
        self._world.ledger.fault(self._world.scheduler.now, self._process.name, "handler kills its worker", run.held.id)
        self._process.kill()
        await asyncio.Future()

    async def deaf(self, run: Run, seconds: float) -> None:
        """Never end, whatever it is told."""
        while True:
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                continue

    async def parent(self, run: Run, count: float) -> str:
        """Enqueue children with its completion."""
        for number in range(int(count)):
            run.add_child(child_of(run.held.id, run.held.fence, number))
        await asyncio.sleep(count * self._world.settings.length / 4)
        return "parent"

    async def spawn(self, run: Run, count: float) -> str:
        """Enqueue children at once, one after the other, whatever becomes of it meanwhile."""
        opened = self._world.open(self._process)
        for number in range(int(count)):
            child = child_of(run.held.id, run.held.fence, number)
            self._world.ledger.sent[child.id] = child
            with contextlib.suppress(StoreError):
                await opened.async_shell().run(opened.store.enqueue([child]))
            await asyncio.sleep(self._world.settings.length / 4)
        return "spawned"

    async def fan(self, run: Run, seconds: float) -> str:
        """Enqueue children in more than one transaction, from where the attempt before stopped."""
        done = await run.afan_out("fan", 0, ())
        while done < CHILDREN:
            done = await run.afan_out("fan", done, [child_of(run.held.id, 0, done)])
            await asyncio.sleep(seconds / CHILDREN)
        return "fanned out"

    async def once(self, run: Run, seconds: float) -> Any:
        """Keep the first result of something."""
        await run.aonce("first", f'"{run.held.fence}"')
        await asyncio.sleep(seconds)
        return await run.aonce("first", f'"{run.held.fence} again"')

    async def lock(self, run: Run, seconds: float) -> str:
        """Hold one slot of a lock for a while, renewing it as `windlass.lock` does."""
        slots = 1 + hash_of(run.held.id) % 2
        holder = Holder(self._world, self._process, f"lock-{slots}", f"{run.held.id}/{run.held.fence}", slots)
        return await holder.hold(seconds)

    async def report(self, run: Run, seconds: float) -> str:
        """Say how far it is."""
        for done in range(3):
            run.report_progress(Progress(done, 3))
            await asyncio.sleep(seconds / 3)
        return "reported"


def child_of(parent: str, fence: int, number: int) -> NewJob:
    """A child whose id tells which run of which job enqueued it."""
    noise = (hash_of(parent) ^ fence * 64) + number
    identity = f"{parent[:13]}-7{noise & 0xFFF:03x}-8{noise >> 12 & 0xFFF:03x}-{noise >> 24 & 0xFFFFFFFFFFFF:012x}"
    # Some have children of their own, and some wait for a while.
    act = {1: ["spawn", 1], 2: ["snooze", 3.0]}.get(number, ["work", 0.01])
    meta = msgspec.json.encode(Meta(parent_id=parent)).decode()
    return NewJob(id=identity, task=TASK, payload=msgspec.json.encode([[[act]], {}]).decode(), meta=meta)


def hash_of(text: str) -> int:
    """Forty-eight bits of an id, the same in every process."""
    return int(text[-12:], 16)


def _bind(payload: str, _: int) -> tuple[list[Any], dict[str, Any]]:
    args, kwargs = msgspec.json.decode(payload)
    return args, kwargs


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def registry(world: World, process: WorkerProcess) -> Registry:
    """The application as this process has loaded it."""
    task = TaskDef(
        name=TASK,
        version=1,
        handler=Handler(world, process),
        mode=Mode.ASYNC,
        bind=_bind,
        encode=_encode,
        permanent=(Fatal,),
    )
    return Registry(tasks={TASK: task})
