"""The exhaustive model of schedules: closed, sound, and its broken twins are caught, each by the shortest way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from windlass.core.job import NewJob
from windlass.core.schedule import CatchUp, Overlap
from windlass.ports.store import Fired, Schedule, ScheduleChange, ScheduleChanged, Tick
from windlass.stores.memory import MemoryStore
from windlass.stores.memory.tables import Scheduled, replace
from windlass.testing.conformance.sizes import size
from windlass.testing.simulation.tick_model import TickModel, TickScope

SMALL = (
    TickScope(),
    TickScope(overlap=Overlap.QUEUE, catch_up=CatchUp.NONE),
    TickScope(catch_up=CatchUp.ALL, lost_answers=False, set_back=False),
    TickScope(overlap=Overlap.CANCEL_PREVIOUS, operator=("run",), schedulers=1),
    TickScope(operator=("pause", "delete"), set_back=False),
)
LARGE = (
    *SMALL,
    TickScope(catch_up=CatchUp.ALL, set_back=False),
    TickScope(operator=("run",)),
    TickScope(operator=("pause",)),
    TickScope(operator=("pause", "put", "delete", "run"), set_back=False),
    TickScope(overlap=Overlap.CANCEL_PREVIOUS, operator=("pause", "put", "delete"), set_back=False),
    TickScope(overlap=Overlap.QUEUE, catch_up=CatchUp.ALL, operator=("pause",), set_back=False),
)


@pytest.mark.parametrize("number", range(size(len(SMALL), len(LARGE), len(LARGE))))
@pytest.mark.timeout(0)
def test_every_state_is_sound(number: int, record_property: Any) -> None:
    """I11 on every step, the audit (I3) in every state, and from each a way to one in which all that is due was fired."""
    found = TickModel(scope=LARGE[number]).search()
    record_property("proof", {"states": found.states, "steps": found.steps})
    assert not found.violations, told(found)
    assert found.states > 200


def told(found: Any) -> str:
    return "\n  ".join(["the shortest way:", *found.path, *found.violations])


class FiresTwice(MemoryStore):
    """A tick is anybody's who has it: its id is trusted to keep it single."""

    def _refused(self, said: Schedule, tick: Tick, now: int) -> Fired | None:
        return Fired.STALE if said.paused or said.revision != tick.revision else None


class HasNoId(FiresTwice):
    """The same, and the job of a tick has another id each time."""

    def _become(self, known: Scheduled, tick: Tick, job: NewJob, now: int) -> Fired:
        fresh = msgspec.structs.replace(job, id=f"00000000-0000-7000-9111-{self.data.enqueued:012d}")
        return super()._become(known, tick, fresh, now)


class MovesTheCursorLater(MemoryStore):
    """The job is there in one transaction, the cursor moves in another, if it comes to that."""

    def _become(self, known: Scheduled, tick: Tick, job: NewJob, now: int) -> Fired:
        outcome = super()._become(known, tick, job, now)
        if not tick.manual:
            self._say(self.data.schedules[tick.schedule], cursor=tick.cursor)
        return outcome


class FiresThePaused(MemoryStore):
    """What was read before the pause is fired after it."""

    def _refused(self, said: Schedule, tick: Tick, now: int) -> Fired | None:
        return super()._refused(replace(said, paused=False), tick, now)


class FiresOldRevisions(MemoryStore):
    """What was read before another definition came is fired after it."""

    def _refused(self, said: Schedule, tick: Tick, now: int) -> Fired | None:
        return super()._refused(said, replace(tick, revision=said.revision), now)


class FiresEarly(MemoryStore):
    """A scheduler's time is as good as the store's."""

    def _refused(self, said: Schedule, tick: Tick, now: int) -> Fired | None:
        return super()._refused(said, tick, max(now, tick.to))


class ForgetsTheRevision(MemoryStore):
    """A schedule that is made anew begins to count anew."""

    def _change(self, change: ScheduleChange, now: int) -> ScheduleChanged:
        answer = super()._change(change, now)
        if change.action == "delete":
            self.data.revisions[""] = 0
        return answer


class CatchesUpThePause(MemoryStore):
    """What was paused is made up for."""

    def _change(self, change: ScheduleChange, now: int) -> ScheduleChanged:
        return super()._change(change, 0 if change.action == "resume" else now)


class RunsByHandTwice(MemoryStore):
    """A run by hand that is sent again is another one."""

    def _sent_before(self, job: NewJob | None) -> Fired | None:
        return None


class NeverLooksAgain(MemoryStore):
    """A tick that is skipped is the last one."""

    def _fire(self, tick: Tick, now: int) -> Fired:
        answer = super()._fire(tick, now)
        if answer is Fired.SKIPPED:
            self._say(self.data.schedules[tick.schedule], next_at=None)
        return answer


TWINS: dict[type[MemoryStore], TickScope] = {
    FiresTwice: TickScope(),
    HasNoId: TickScope(overlap=Overlap.QUEUE),
    MovesTheCursorLater: TickScope(),
    FiresThePaused: TickScope(operator=("pause",)),
    FiresOldRevisions: TickScope(operator=("put",), set_back=False),
    FiresEarly: TickScope(),
    ForgetsTheRevision: TickScope(operator=("put", "delete")),
    CatchesUpThePause: TickScope(operator=("pause",)),
    RunsByHandTwice: TickScope(overlap=Overlap.CANCEL_PREVIOUS, operator=("run",)),
    NeverLooksAgain: TickScope(set_back=False),
}


@pytest.mark.parametrize("twin", list(TWINS), ids=lambda twin: twin.__name__)
def test_a_broken_twin_is_caught(twin: type[MemoryStore]) -> None:
    found = TickModel(twin, TWINS[twin]).search()
    print(told(found))  # the counterexample, for whoever asks with -s
    assert found.violations, f"nobody minds: {twin.__doc__}"
    assert found.violations[0].startswith("I11"), found.violations
    assert found.path
