"""The workbench of a test: an application on a store of its own, whose clock and whose worker the test runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from windlass.core.errors import ConfigError, WindlassError
from windlass.core.job import Held, Job, NewJob, State
from windlass.engine import Engine, in_transaction
from windlass.names import shown
from windlass.ports.plan import Plan
from windlass.ports.store import Death, Enqueued, Filter, Opened, WorkerReport
from windlass.runtime.member import new_id
from windlass.runtime.registry import Registry
from windlass.runtime.scheduler import Scheduler
from windlass.stores import open as open_store
from windlass.testing.clock import ManualClock
from windlass.testing.faults import Faults
from windlass.testing.life import Bounds, Life
from windlass.testing.rigged import Rigged

if TYPE_CHECKING:
    from windlass.app import Windlass

TICKS = 10_000
"""Ticks on the way of one turn of the clock, at most: what a schedule's catch-up dropped then would be missing in
silence."""
PAGE = 1_000
PARKED = ("unknown_task", "unknown_version")
"""Jobs that wait for code that is not here come due again and again; a drain does not wait for them."""


class Setting(msgspec.Struct, frozen=True):
    """How an engine works; see `engine`."""

    concurrency: int
    threads: bool
    inline: bool
    resources: dict[Any, Any]


class BenchEngine(Engine):
    """Stands in for an application's engine: the same, on the test's store."""

    def __init__(self, app: Windlass, bench: Bench) -> None:
        super().__init__(app.settings)
        self._bench = bench

    def bare(self) -> Opened:
        """See Engine."""
        return self._bench.rigged

    def close(self) -> None:
        """See Engine. The store lasts as long as the test's block; an application may close and go on."""

    def submit(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """See Engine; then the jobs are run, where a test asked for that."""
        inline = self._bench.runs_inline
        if inline:
            self._bench.refuse_loop("an inline enqueue runs its job, which would stop the event loop; await `aenqueue`")
        answers = super().submit(jobs)
        if inline:
            self._bench.drain_now()
        return answers

    async def asubmit(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """See Engine; then the jobs are run, where a test asked for that."""
        inline = self._bench.runs_inline
        answers = await super().asubmit(jobs)
        if inline:
            await self._bench.work_off(Bounds(60.0, 10_000))
        return answers


class Still:
    """The scheduler's own clock: it leads for good, since there is no other, and shows the code's schedules once."""

    def monotonic(self) -> float:
        """See Clock."""
        return 1.0


class Bench:
    """The store, the clock, the faults, and the workers that live one after another."""

    def __init__(self, app: Windlass, url: str, clock: ManualClock, setting: Setting) -> None:
        self.app = app
        self.clock = clock
        self.faults = Faults()
        self.setting = setting
        self.real = open_store(url, clock=clock)
        self.rigged = Rigged(self.real, self.faults)
        self.run(self.real.store.migrate())
        self.life: Life | None = None
        self._lost: list[str] = []
        """Workers that died unseen, and hold jobs until their lease has lapsed."""
        self._reaper = new_id("r")
        self._beats = False
        """Whether the reaper has begun to beat."""
        self._listener = self.real.shell.listen()
        self._scheduler = Scheduler(self.real, "test", (), Still())

    def run(self, plan: Plan[Any]) -> Any:
        """Ask the store past all faults."""
        return self.real.shell.run(plan)

    def close(self) -> None:
        """Forget the store."""
        self._listener.close()
        self.real.close()

    @property
    def runs_inline(self) -> bool:
        """Whether an enqueue made now is to be run at once: not one of a handler's, or in an open transaction."""
        return self.setting.inline and self.life is None and not in_transaction()

    def refuse_loop(self, message: str) -> None:
        """Raises WindlassError on a running event loop."""
        import asyncio

        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise WindlassError(message)

    def drain_now(self) -> None:
        """Run what is due, from a blocking program."""
        import asyncio

        with asyncio.Runner() as runner:
            runner.run(self.work_off(Bounds(60.0, 10_000)))

    # --- work --------------------------------------------------------------------------------------------------------

    async def work_off(self, bounds: Bounds, queues: Sequence[str] = ()) -> list[str]:
        """Run all that is due; answers the ids of the jobs that were taken up, in that order."""
        if self.life is not None:
            raise WindlassError("drain: a drain is under way already; what a job enqueues is run by that one")
        taken: dict[str, None] = {}
        while True:
            self._reap_lapsed()
            self._fire()
            suspects, ready = self._ready()
            wanted = [queue for queue in (suspects or ready) if not queues or queue in queues]
            if not wanted:
                return list(taken)
            line = wanted if suspects else self._line(wanted, queues)
            granted = await self._live(bounds, tuple(line), bool(suspects))
            taken.update(dict.fromkeys(held.id for held in granted))
            if not granted:
                return list(taken)

    def _ready(self) -> tuple[tuple[str, ...], list[str]]:
        """Queues with suspects, and with jobs that could be claimed."""
        while (promoted := self.run(self.real.store.promote(PAGE))).more:
            pass
        stats = self.run(self.real.store.stats())
        return promoted.suspects, [each.queue for each in stats.queues if each.queued and not each.paused]

    def _line(self, ready: Sequence[str], only: Sequence[str]) -> list[str]:
        """What a worker serves: also the queues in which its jobs may put others."""
        return list(dict.fromkeys([*ready, *(only or self.app.registry.queues)]))

    async def _live(self, bounds: Bounds, queues: tuple[str, ...], suspects: bool) -> list[Held]:
        concurrency = 1 if suspects else self.setting.concurrency
        life = self.life = Life(self.real, self.faults, bounds, self.app.settings.hold)
        try:
            with self._hinting(life):
                return await life.live(
                    self._registry(), queues, concurrency, threads=self.setting.threads, suspects=suspects
                )
        finally:
            self.life = None
            if life.killed and not life.seen:
                self._lost.append(life.worker_id)

    @contextlib.contextmanager
    def _hinting(self, life: Life) -> Iterator[None]:
        """Pass the store's hints on, as a supervisor does."""
        import asyncio

        loop, listener = asyncio.get_running_loop(), self._listener

        def hinted() -> None:
            listener.drain()
            life.hint()

        listener.drain()
        loop.add_reader(listener.fileno(), hinted)
        try:
            yield
        finally:
            loop.remove_reader(listener.fileno())

    def _registry(self) -> Registry:
        """The application's, with the test's resources instead of those of its start hooks."""
        registry, given = self.app.registry, self.setting.resources
        replaced = {registry.provides[kind] for kind in given if kind in registry.provides}
        hooks = [hook for hook in registry.start_hooks if hook not in replaced]
        provides = {kind: by for kind, by in registry.provides.items() if by not in replaced}
        for kind, value in given.items():
            hook = provides[kind] = _giving(value)
            hooks.append(hook)
        return msgspec.structs.replace(registry, start_hooks=hooks, provides=provides)

    # --- time --------------------------------------------------------------------------------------------------------

    def next_event(self, *, ticks: bool) -> int | None:
        """When something happens by itself, in microseconds of the clock: a job comes due, a dead worker's lease
        lapses, or with `ticks` a schedule ticks. None if nothing will."""
        due = [] if (next_due := self._next_due()) is None else [next_due]
        if ticks and (tick := self._next_tick()) is not None:
            due.append(tick)
        if self._lost:
            due.append(self.clock() + self._step())
        return min(due, default=None)

    def _next_due(self) -> int | None:
        promoted = self.run(self.real.store.promote(PAGE))
        if promoted.next_due is None:
            return None
        waiting = Filter(states=(State.SCHEDULED, State.RETRYING))
        if not any(self.jobs(msgspec.structs.replace(waiting, reason=reason), 1) for reason in PARKED):
            return int(self.clock() + promoted.next_due)
        return min((job.due_at for job in self.jobs(waiting) if job.reason not in PARKED), default=None)

    def _fire(self) -> None:
        """Do what a scheduler would do now."""
        self._scheduler.define(self.app.defined)
        if self.app.schedules or self.run(self.real.store.schedules()):
            self._scheduler.tick()

    def _next_tick(self) -> int | None:
        self._fire()
        found: int | None = self.run(self.real.store.due(1)).next_at
        return found

    def move(self, instant: int) -> None:
        """Turn the clock forward to `instant`; on the way schedules tick, each at its time."""
        for _ in range(TICKS):
            tick = self._next_tick()
            if tick is None or tick > instant:
                break
            self._turn(tick)
        else:
            raise WindlassError(f"more than {TICKS:,} ticks lie on the way; turn the clock less far at once")
        self._turn(instant)
        self._fire()

    def _turn(self, instant: int) -> None:
        """Turn the clock forward; on the way, dead workers whose lease lapses are taken over."""
        while self._lost and (now := self.clock()) < instant:
            self._beat_reaper()
            self.clock.set(min(instant, now + self._step()))
            self._beat_reaper()
            self._reap_lapsed()
        self.clock.set(max(instant, self.clock()))

    def _step(self) -> int:
        return round(self.app.settings.hold * 1e6 / 3)

    def _beat_reaper(self) -> None:
        report = WorkerReport(
            id=self._reaper, supervisor="test", host="test", pid=0, hold=round(self.app.settings.hold * 1e6)
        )
        self.run(self.real.store.beat([report]))

    def _reap_lapsed(self) -> None:
        if self._lost:
            self._beat_reaper()
            lapsed = self.run(self.real.store.lapsed(self._reaper))
            gone = [worker for worker in self._lost if worker in lapsed]
            deaths = [Death(worker=w, observed=False, reaper=self._reaper, detail="its lease has lapsed") for w in gone]
            self.run(self.real.store.reap(deaths))
            self._lost = [worker for worker in self._lost if worker not in gone]

    # --- looking -----------------------------------------------------------------------------------------------------

    def jobs(self, wanted: Filter, most: int | None = None) -> list[Job]:
        """Matching jobs, first enqueued first; with `most`, the last so many."""
        found: list[Job] = []
        after = None
        while most is None or len(found) < most:
            page = self.run(self.real.store.search(wanted, PAGE if most is None else most - len(found), after))
            found += page.jobs
            after = page.next
            if after is None:
                break
        return found[::-1]


def _giving(value: Any) -> Any:
    def hook() -> Any:
        return value

    return hook


def check_url(app: Windlass, url: str) -> str:
    """Raises ConfigError for the store that the application itself uses, and for what is no text."""
    if not isinstance(url, str):
        raise ConfigError(f'url: {shown(url)} must be text such as "memory://"')
    if not url.startswith("memory:") and url == app.settings.url:
        raise ConfigError(f"url: {url!r} is the application's own store; give the test one in a temporary directory")
    return url


def real_now() -> int:
    """Microseconds since 1970 on this machine's clock."""
    return time.time_ns() // 1_000
