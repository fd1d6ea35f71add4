"""The checker is seen to fail before it is trusted: parts of the product that are broken on purpose, each of which some
life must find within a bounded number of seeds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation import planted
from tests.stores.postgres_server import database
from windlass.runtime import liaison
from windlass.testing.simulation import Cast, Life, simulate

MOST = 1_000
"""Seeds in which a violation must be found."""

FOUND = {
    planted.ForgetsTheFence: "I4",
    planted.FenceIsTheTime: "I5",
    planted.LosesAnEnqueue: "I",  # whichever is met first: the job, or its key
    planted.TakesTheLiving: "I8",
    planted.TrustsAnyReaper: "I8",
    planted.RevivesTheTaken: "I4",
    planted.TakeoverForgetsTheJobs: "I",
    planted.RetryBeatsCancel: "I",
    planted.PromotesEarly: "I12/I14",
    planted.ChargesNothing: "I6",
    planted.FreesKeysAtTheEnd: "I10b",
    planted.ForgetsReceipts: "I4",
    planted.ChildrenOfGhosts: "I",
    planted.LateChildrenLive: "I13",
    planted.CompletionsKeepTheirChildren: "I13",
    planted.OverlooksChildren: "I13",
    planted.RunsTheExpired: "I",
    planted.GrantsWhileItSleeps: "I",
    planted.FiresTwice: "I11",
    planted.ForgetsTheCursor: "I11",
    planted.FiresBeside: "I11",
    planted.RunsByHandTwice: "I11",
    planted.ForgetsThePermits: "I9",
    planted.LeaksPermits: "I2",
    planted.ForgetsQueueLimits: "I9",
    planted.ServesThePaused: "I9",
    planted.NeverFull: "bounds",
    planted.FullTooEarly: "bounds",
    planted.NeverSheds: "bounds",
    planted.KeysOfTheRunning: "I10",
    planted.KeepsKeysForGood: "I",
    planted.ForgetsThePlace: "I10",
    planted.TermsStandStill: "leads",
    planted.TermsCount: "leads",
    planted.OneSlotMore: "leads",
    planted.RedrivesAtOnce: "I12/I14",
    planted.RunsTheOldPayload: "I3",
    planted.DeletesTheRunning: "I",
    planted.CancelsByHalves: "I",
    planted.FansOutAgain: "I7",
    planted.KeepsTheLast: "I7",
    planted.RunsAgain: "I6",
    planted.NeverRecovers: "I2",
    planted.RetriesAtOnce: "I12/I14",
    planted.ForgetsOutcomes: "I2",
    planted.BuriesTheLiving: "I8",
    planted.AccusesNobody: "I6",
}
"""What is broken -> the invariant that the first violation must be of."""


PLAIN: dict[str, Any] = {"versions": ((),), "operates": 0.0, "limited": 0.0, "unique": 0.0}
LONG = PLAIN | {"jobs": 12, "length": 5.0, "trouble": 15.0, "hold": 2.0}
"""Lives in which nothing but that happens, for long: more of what is rare happens in them."""
OPERATED = {"operates": 0.7, "limited": 0.0, "unique": 0.0, "length": 5.0, "trouble": 15.0}
"""Lives in which people are at it all the time."""
MANY = {"supervisors": 2, "workers": 2, "concurrency": 4}
CROWDED = PLAIN | MANY | {"limited": 0.9, "jobs": 9, "clients": 2, "pace": 0.2, "trouble": 3.0}
"""Lives in which all want the same."""
SETTINGS: dict[Any, dict[str, Any]] = {
    planted.ChildrenOfGhosts: LONG,
    planted.ForgetsTheFence: LONG,
    planted.FreesKeysAtTheEnd: LONG,
    planted.FansOutAgain: LONG,
    planted.RunsByHandTwice: OPERATED,
    planted.AdmitsBeside: CROWDED,
}


def first_found(cast: Cast, store: str = "memory", url: str = "") -> Life:
    for seed in range(MOST):
        life = simulate(seed, store, cast=cast, url=url)
        if life.violations:
            return life
    pytest.fail(f"{MOST} lives, and nobody minds: {cast}")


def named(value: Any) -> str:
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize("broken", [*planted.STORES], ids=named)
def test_a_broken_store_is_found(broken: Any) -> None:
    assert first_found(Cast(store=broken, settings=SETTINGS.get(broken, {}))).violations[0].startswith(FOUND[broken])


@pytest.mark.parametrize("broken", [*planted.WORKERS], ids=named)
def test_a_broken_worker_is_found(broken: Any) -> None:
    assert first_found(Cast(worker=broken)).violations[0].startswith(FOUND[broken])


@pytest.mark.parametrize("broken", [*planted.SUPERVISORS], ids=named)
def test_a_broken_supervisor_is_found(broken: Any) -> None:
    assert first_found(Cast(supervisor=broken)).violations[0].startswith(FOUND[broken])


def test_a_hasty_judge_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liaison, "Judge", planted.HastyJudge)
    assert first_found(Cast()).violations[0].startswith("I8")


def test_a_scheduler_that_forgets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liaison, "Scheduler", planted.ForgetsTheMissed)
    assert first_found(Cast()).violations[0].startswith("I11")


def test_a_broken_sqlite_store_is_found() -> None:
    assert first_found(Cast(sqlite_store=planted.TakesAnybody), "sqlite").violations[0].startswith("I8")


THERE = {
    planted.TakesAnybodyThere: "I8",
    planted.BeatsBeside: "I4",
    planted.AdmitsBeside: "I9",
}
"""As above. But for the first, each leaves out a lock, which only those can miss who are there at once."""


@pytest.mark.once
@pytest.mark.parametrize("broken", [*THERE], ids=named)
def test_a_broken_postgresql_store_is_found(broken: Any) -> None:
    cast = Cast(postgres_store=broken, settings=SETTINGS.get(broken, {}))
    found = first_found(cast, "postgresql", database())
    assert found.violations[0].startswith(THERE[broken])


def test_commits_that_were_not_flushed_are_missed() -> None:
    """`durability=normal` may lose the last commits with the power, as its page says; so `full` is what keeps I1."""
    assert first_found(Cast(durability="normal"), "sqlite").violations[0].startswith("I1")


def test_what_is_whole_is_not_found() -> None:
    for seed in range(60):
        assert simulate(seed).violations == ()
