"""Stores that are broken on purpose, each in one way: the suite, the simulation and the model must all mind."""

from __future__ import annotations

import random

import msgspec

from windlass.core.job import NewJob, State, Transition
from windlass.ports.store import (
    BeatAnswer,
    Death,
    Fired,
    Reaped,
    Schedule,
    Tick,
    WorkerReport,
)
from windlass.stores.memory import MemoryStore
from windlass.stores.memory.tables import Key, Row, replace


class ForgetsTheFence(MemoryStore):
    """Whoever once held a job may write about it, as long as it runs."""

    def _runs(self, row: Row | None, fence: int) -> bool:
        return row is not None and row.state is State.RUNNING


class TakeoverKeepsTheFence(MemoryStore):
    """The jobs of a dead worker are settled under the very token that it still has."""

    taking = False

    def _reap(self, death: Death, now: int, dice: random.Random) -> Reaped:
        self.taking = True
        answer = super()._reap(death, now, dice)
        self.taking = False
        return answer

    def _fence(self, row: Row, now: int) -> int:
        return row.fence if self.taking else super()._fence(row, now)


class ForgetsReceipts(MemoryStore):
    """A re-sent settle looks like a ghost's."""

    def _receipt(self, job: str, fence: int) -> bool:
        return False


class FreesKeysAtTheEnd(MemoryStore):
    """The same request runs again as soon as the first has ended."""

    def _live(self, key: Key, now: int) -> bool:
        return self._ended_at(key) is None


class RetryBeatsCancel(MemoryStore):
    """A cancelled job that fails tries again."""

    def _apply(self, row: Row, t: Transition, now: int) -> None:
        super()._apply(row, msgspec.structs.replace(t, cancel_wins=False), now)


class TakesTheLiving(MemoryStore):
    """A lease is over as soon as somebody says so."""

    def _lapsed(self, reaper: str, now: int) -> list[str]:
        return [id for id, worker in self.data.workers.items() if not worker.taken]


class TrustsAnyReaper(MemoryStore):
    """One that was cut off itself takes over everybody."""

    def _lapsed(self, reaper: str, now: int) -> list[str]:
        return [id for id, each in self.data.workers.items() if not each.taken and now > each.lease_until]


class RevivesTheTaken(MemoryStore):
    """A worker that was taken over is welcome again."""

    def _beat(self, report: WorkerReport, now: int) -> BeatAnswer:
        if report.id in self.data.workers:
            self.data.workers[report.id] = replace(self.data.workers[report.id], taken=False)
        return super()._beat(report, now)


class FiresEarly(MemoryStore):
    """The clock of whoever fires is as good as ours."""

    def _refused(self, said: Schedule, tick: Tick, now: int) -> Fired | None:
        return super()._refused(said, tick, max(now, tick.to))


class FiresThePaused(MemoryStore):
    """What was decided before a pause is fired after it."""

    def _refused(self, said: Schedule, tick: Tick, now: int) -> Fired | None:
        return super()._refused(replace(said, paused=False), tick, now)


class LateChildrenLive(MemoryStore):
    """Who is cancelled with its children may enqueue others until it has stopped."""

    def _is_stopped(self, job: NewJob) -> bool:
        return False


class CompletionsKeepTheirChildren(MemoryStore):
    """Who is cancelled with its children and completes all the same brings new ones."""

    def _apply(self, row: Row, t: Transition, now: int) -> None:
        super()._apply(replace(row, stops_children=False), t, now)


class FiresTwice(MemoryStore):
    """Who comes second with a tick is not told, as its cursor is not looked at."""

    def _refused(self, said: Schedule, tick: Tick, now: int) -> Fired | None:
        return Fired.STALE if said.paused or said.revision != tick.revision else None


class RunsByHandTwice(MemoryStore):
    """A run by hand that is sent again is another one."""

    def _sent_before(self, job: NewJob | None) -> Fired | None:
        return None
