"""The exhaustive small-scope model: its state space is closed, and its broken twins are caught, each by the shortest way."""

from __future__ import annotations

from typing import Any

import pytest

from tests.broken_stores import (
    ForgetsReceipts,
    ForgetsTheFence,
    RetryBeatsCancel,
    RevivesTheTaken,
    TakeoverKeepsTheFence,
    TakesTheLiving,
    TrustsAnyReaper,
)
from windlass.core.job import Held, Settled, Transition
from windlass.ports.store import Claimed
from windlass.stores.memory import MemoryStore
from windlass.stores.memory.tables import Row, replace
from windlass.testing.conformance.sizes import size
from windlass.testing.simulation.model import Model, Scope

SMALL = (
    Scope(workers=1, jobs=2),
    Scope(workers=2, jobs=1),
    Scope(workers=2, jobs=2, lost_answers=False),
)
LARGE = (*SMALL, Scope(workers=2, jobs=2))


@pytest.mark.parametrize("number", range(size(len(SMALL), len(LARGE), len(LARGE))))
@pytest.mark.timeout(0)
def test_every_state_is_sound(number: int, record_property: Any) -> None:
    """I1..I6, I8, I12..I14 on every step, the audit (I3) in every state, and from each a way to the end of every job."""
    found = Model(scope=LARGE[number]).search()
    record_property("proof", {"states": found.states, "steps": found.steps})
    assert not found.violations, told(found)
    assert found.states > 1_000


def told(found: Any) -> str:
    return "\n  ".join(["the shortest way:", *found.path, *found.violations])


class PromotesEarly(MemoryStore):
    """By a tick."""

    def _come_due(self, now: int, limit: int) -> None:
        super()._come_due(now + 1_000_000, limit)


class ChargesNothing(MemoryStore):
    """Attempts are not counted: a job that fails does so for ever."""

    def _grant(self, row: Row, worker: str, seq: int, now: int) -> Held:
        return super()._grant(replace(row, attempt=0), worker, seq, now)


class OpensClosedSeqs(MemoryStore):
    """Who was taken over may still claim."""

    def _refuse(self, worker: str, seq: int) -> Claimed | None:
        return None


class TakesOverByHalf(MemoryStore):
    """A takeover whose job was asked to cancel leaves it running."""

    def _apply(self, row: Row, t: Transition, now: int) -> None:
        if not (row.cancelling and t.outcome in {"lost", "crashed"}):
            super()._apply(row, t, now)


class EndsTwice(MemoryStore):
    """A settle that is sent again is applied again."""

    def _settle(self, t: Transition, now: int) -> Settled:
        answer = super()._settle(t, now)
        if answer is Settled.ALREADY:
            self._apply(self.data.jobs[t.id], t, now)
        return answer


class NeverPromotes(MemoryStore):
    """What waits, waits."""

    def _come_due(self, now: int, limit: int) -> None:
        pass


TWINS = {
    ForgetsTheFence: "I4",
    TakeoverKeepsTheFence: "I",
    TakesTheLiving: "I8",
    TrustsAnyReaper: "I8",
    RevivesTheTaken: "I",
    RetryBeatsCancel: "I",
    PromotesEarly: "I12/I14",
    ChargesNothing: "I6",
    ForgetsReceipts: "I4",
    OpensClosedSeqs: "I4",
    TakesOverByHalf: "I",
    EndsTwice: "I",
    NeverPromotes: "I2: from here no job can ever end",
}


@pytest.mark.parametrize("twin", list(TWINS), ids=lambda twin: twin.__name__)
def test_a_broken_twin_is_caught(twin: type[MemoryStore]) -> None:
    scope = Scope(workers=1, jobs=2) if twin is NeverPromotes else Scope(workers=2, jobs=1)
    if twin is PromotesEarly:
        scope = Scope(workers=1, jobs=1)
    found = Model(twin, scope).search()
    print(told(found))  # the counterexample, for whoever asks with -s
    assert found.violations, f"nobody minds: {twin.__doc__}"
    assert found.violations[0].startswith(TWINS[twin]), found.violations
    assert found.path or twin is NeverPromotes  # there the very first state is one without a way out
