"""Retry curves: exact where they are plain, never earlier than their curve, never over their maximum but for jitter."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.sizes import examples
from windlass.core.backoff import Backoff
from windlass.core.errors import InvalidValue

CURVES = ("exponential", "linear", "constant", "polynomial")

backoffs = st.builds(
    Backoff,
    base=st.floats(0, 86_400),
    factor=st.floats(1, 1_000),
    max=st.floats(0, 30 * 86_400),
    jitter=st.floats(0, 1),
    curve=st.sampled_from(CURVES),
)
chances = st.floats(0, 1, exclude_max=True)
failures = st.integers(1, 10**6)


def waits(backoff: Backoff, count: int) -> list[float]:
    return [backoff.wait(n, 0.0) for n in range(1, count + 1)]


def test_the_default_waits_one_two_four_eight() -> None:
    """Between five attempts, as the documentation says; with the jitter at most doubled."""
    assert waits(Backoff(), 4) == [1, 2, 4, 8]
    assert Backoff().wait(4, 0.5) == 12
    assert Backoff().wait(10**6, 0.0) == 3_600


def test_each_curve() -> None:
    assert waits(Backoff(base="2s", factor=3, max="1m"), 5) == [2, 6, 18, 54, 60]
    assert waits(Backoff(base="2s", curve="linear", max="5s"), 4) == [2, 4, 5, 5]
    assert waits(Backoff(base="2s", curve="constant"), 3) == [2, 2, 2]
    assert waits(Backoff(base="2s", curve="polynomial", factor=2), 3) == [2, 8, 18]


@examples
@given(backoffs, failures, chances)
def test_a_wait_is_never_shorter_than_its_curve(backoff: Backoff, failed: int, chance: float) -> None:
    """I12: jitter is only added, and is bounded too."""
    plain, wait = backoff.wait(failed, 0.0), backoff.wait(failed, chance)
    assert math.isfinite(wait)
    assert 0 <= plain <= wait <= plain * (1 + backoff.jitter)
    assert plain <= float(backoff.max)


@examples
@given(backoffs, failures)
def test_waits_do_not_shrink(backoff: Backoff, failed: int) -> None:
    assert backoff.wait(failed, 0.0) <= backoff.wait(failed + 1, 0.0)


def test_a_crowd_is_spread() -> None:
    """I12: what failed at one instant comes back over a whole period, as evenly as the chances are drawn."""
    times = [Backoff().wait(1, n / 10_000) for n in range(10_000)]
    assert all(later > sooner for sooner, later in pairwise(times))
    assert (times[0], times[-1]) == (1, pytest.approx(2, abs=0.001))
    # The second wait overlaps nothing of the first, and no tenth of a second holds more than its share.
    for failed in (1, 2, 3):
        crowd = [Backoff().wait(failed, n / 10_000) for n in range(10_000)]
        fullest = max(
            sum(start <= time < start + 0.1 for time in crowd) for start in (crowd[0] + n / 20 for n in range(20))
        )
        assert fullest <= 10_000 * 0.1 / 2 ** (failed - 1) + 1


def test_a_gentle_factor_reaches_its_maximum_too() -> None:
    """It takes a while, but the curve does not stop growing on its way."""
    assert Backoff(factor=1.01).wait(500, 0.0) == pytest.approx(1.01**499)
    assert Backoff(factor=1.01).wait(5_000, 0.0) == 3_600


@examples
@given(backoffs)
def test_a_policy_travels(backoff: Backoff) -> None:
    """It is data on the job: any process, in any language, decides the same."""
    assert msgspec.json.decode(msgspec.json.encode(backoff), type=Backoff) == backoff


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base", "ten"),
        ("base", -1),
        ("max", "400d"),
        ("max", float("nan")),
        ("factor", 0.5),
        ("factor", 1_001),
        ("factor", float("nan")),
        ("factor", "2"),
        ("factor", True),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("jitter", None),
        ("curve", "steep"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidValue, match=rf"^backoff\.{field}: "):
        Backoff(**{field: value})
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({field: value}, Backoff)
