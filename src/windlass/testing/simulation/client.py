"""Simulated clients: they enqueue, cancel, revive, and send again what was not answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from windlass.acting import cancelling
from windlass.core.backoff import Backoff
from windlass.core.errors import StoreError
from windlass.core.job import KeyLimit, Meta, NewJob, Policy, UniqueKey
from windlass.core.placement import head_start, job_id
from windlass.core.unique import POLICIES
from windlass.ports.plan import Plan
from windlass.ports.store import Selection
from windlass.testing.simulation.handlers import TASK, Act
from windlass.testing.simulation.loop import SimulatedLoop
from windlass.testing.simulation.operator import Operator
from windlass.testing.simulation.scheduler import SECOND, Process

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from windlass.testing.simulation.world import World

ACTS: tuple[tuple[str, float, float, int], ...] = (
    # word, least and most of its number, weight
    ("work", 0.0, 0.5, 30),
    ("work", 0.5, 8.0, 6),
    ("fail", 0.0, 0.3, 14),
    ("ruin", 0.0, 0.2, 2),
    ("retry", 0.1, 4.0, 3),
    ("snooze", 0.1, 4.0, 4),
    ("discard", 0.0, 0.0, 2),
    ("crash", 0.0, 0.3, 4),
    ("deaf", 0.0, 0.0, 1),
    ("parent", 1.0, 3.0, 14),
    ("spawn", 2.0, 8.0, 12),
    ("once", 0.0, 0.4, 3),
    ("report", 0.0, 0.6, 3),
    ("lock", 0.1, 3.0, 5),
    ("fan", 0.0, 2.0, 5),
)
_WORDS = [(word, least, most) for word, least, most, _ in ACTS]
_WEIGHTS = [weight for *_, weight in ACTS]


class ClientProcess(Process):
    """One client with a script of its own making."""

    __slots__ = ("_dice", "_loop", "_opened", "_operator", "_task", "closing", "finished", "ids", "world")

    def __init__(self, world: World, name: str, jobs: int) -> None:
        """With no jobs it is there to end what holds others up."""
        super().__init__(world.scheduler, name, machine=-1)
        self.world = world
        self.finished = False
        self.closing = not jobs
        self._dice: random.Random = world.dice
        self._loop = SimulatedLoop.of(self)
        self._opened = world.open(self)
        self.ids: list[str] = []
        """Of jobs that it knows of."""
        self._operator = Operator(self, self._opened.store, world)
        world.loops.append(self._loop)
        self._task = self._loop.create_task(self._live(jobs) if jobs else self._operator.let_go())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.finished = True
        if not task.cancelled() and task.exception() is not None:
            self._loop.failures.append({"message": "a client failed", "exception": task.exception()})

    async def _live(self, jobs: int) -> None:
        dice = self._dice
        while jobs > 0:
            await asyncio.sleep(dice.random() ** 2 * self.world.settings.pace)
            chance = dice.random()
            if dice.random() < self.world.settings.operates:
                await self._operator.act()
            elif self.ids and chance < self.world.settings.cancels:
                await self._cancel()
            elif self.ids and chance < self.world.settings.cancels + self.world.settings.revives:
                await self._revive()
            else:
                batch = min(jobs, 1 if dice.random() < 0.7 else dice.randint(2, 5))
                jobs -= batch
                await self._enqueue([self._new_job() for _ in range(batch)])

    # --- what it asks for --------------------------------------------------------------------------------------------

    async def _enqueue(self, jobs: list[NewJob]) -> None:
        ledger = self.world.ledger
        for job in jobs:
            ledger.sent[job.id] = job
        self.did("client enqueues", *(job.id for job in jobs))
        answers = await self.insist(lambda: self._opened.store.enqueue(jobs))
        if answers is None:
            return
        for answer in answers:
            if answer.inserted or not (answer.conflict or answer.full):
                ledger.acked.setdefault(answer.id, self.scheduler.now)
                self.ids.append(answer.id)
        self.did("client was answered", answers)
        if self._dice.random() < 0.9:
            self._opened.shell.hint()

    async def _cancel(self) -> None:
        job = self._dice.choice(self.ids if self._dice.random() < 0.5 else self.ids[-3:])
        if self._dice.random() < 0.6:
            await self._cancel_family(job)
            return
        answer = await self.insist(lambda: self._opened.store.cancel(Selection((job,))))
        self.did("client cancelled", job, answer)

    async def _cancel_family(self, job: str) -> None:
        steps = cancelling(self._opened.store, Selection((job,), children=True))
        answer = None
        try:
            while True:
                answer = await self._insist_on(steps.send(answer))
                if answer is None:
                    return
        except StopIteration as end:
            self.did("client cancelled a family", job, end.value)

    async def _revive(self) -> None:
        job = self._dice.choice(self.ids)
        answer = await self.insist(lambda: self._opened.store.revive(Selection((job,))))
        self.did("client revived", job, answer)

    async def _insist_on(self, plan: Plan[Any]) -> Any:
        return await self.insist(lambda: plan)

    async def insist(self, make: Callable[[], Any]) -> Any:
        """Send again, as a caller does whose answer was lost; None if that was given up."""
        while True:
            try:
                return await self._opened.async_shell().run(make())
            except StoreError as error:
                self.did("client got an error", type(error).__name__)
                if self._dice.random() < 0.2:
                    return None
                await asyncio.sleep(self._dice.random() * 2)

    def did(self, what: str, *facts: Any) -> None:
        """Write down what it did, or was told."""
        self.world.ledger.did(self.scheduler.now, self.name, what, *facts)

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _new_job(self) -> NewJob:
        dice, world = self._dice, self.world
        identity = job_id(int(world.clock() // 1_000) & 0xFFFFFFFFFFFF, dice.randbytes(10))
        script = self.script()
        priority = dice.choice((50, 50, 50, 0, 90))
        key = f"key-{dice.randint(1, 4)}" if dice.random() < 0.15 else None
        return NewJob(
            id=identity,
            task=TASK,
            payload=_text([[script], {}]),
            meta=_text(Meta(policy=self._policy(), limits=self._limits(), unique=self._unique())),
            queue=dice.choice(world.settings.queues)[0],
            priority=priority,
            head_start=head_start(priority, 0.05),
            after=round(dice.random() * 8 * SECOND) if dice.random() < 0.2 else 0,
            expires_after=round(dice.random() * 20 * SECOND) if dice.random() < 0.1 else None,
            idempotency_key=key,
            digest=f"digest of {key} {dice.randint(1, 2)}" if key else "",
        )

    def _limits(self) -> tuple[KeyLimit, ...]:
        dice = self._dice
        if dice.random() >= self.world.settings.limited:
            return ()
        return tuple(KeyLimit(f"limit-{n}", dice.choice((n, n, n, 3))) for n in (1, 2) if dice.random() < 0.6)

    def _unique(self) -> UniqueKey | None:
        dice = self._dice
        if dice.random() >= self.world.settings.unique:
            return None
        policy = dice.choice(POLICIES)
        return UniqueKey(
            key=f"unique-{dice.randint(1, 2)}",
            policy=policy,
            max_wait=round(dice.random() * 4 * SECOND) if policy == "debounce" else None,
            window=round(dice.random() * 6 * SECOND) if policy == "throttle" else 0,
        )

    def script(self) -> list[Act]:
        """What one job does, drawn anew."""
        chosen = self._dice.choices(_WORDS, _WEIGHTS, k=self._dice.choice((1, 1, 1, 2, 3, 4)))
        numbers = [least + (most - least) * self._dice.random() for _, least, most in chosen]
        length = self.world.settings.length
        return [
            [word, round(number * (1.0 if word in ("parent", "spawn") else length), 3)]
            for (word, *_), number in zip(chosen, numbers, strict=True)
        ]

    def _policy(self) -> Policy:
        dice = self._dice
        return Policy(
            max_attempts=dice.randint(1, 4),
            backoff=Backoff(base=round(dice.random() * 2, 3), factor=dice.choice((1.0, 2.0)), max=6.0,
                            jitter=dice.choice((0.0, 0.5, 1.0))),
            timeout=dice.choice((1.0, 5.0, 20.0)),
            grace=dice.choice((0.5, 1.0)),
            crash_budget=dice.randint(1, 3),
            loss_budget=dice.choice((2, 4, 10)),
        )  # fmt: skip


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
