"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.sizes import examples
from windlass.core.duration import YEAR, micros, seconds


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("250ms", 0.25),
        ("10us", 1e-5),
        ("30s", 30),
        ("10m", 600),
        ("2h", 7_200),
        ("1d", 86_400),
        ("1w", 604_800),
        ("1h30m", 5_400),
        ("1.5h", 5_400),
        (" 2H ", 7_200),
        ("90", 90),
        ("0", 0),
        (0, 0),
        (1.5, 1.5),
        (timedelta(minutes=2, milliseconds=5), 120.005),
    ],
)
def test_what_is_written_is_meant(written: object, meant: float) -> None:
    assert seconds(written) == pytest.approx(meant)
    assert micros(written) == round(meant * 1e6)


WRONG = [
    "",
    "ten",
    "10 minutes",
    "1h 30m",
    "10x",
    "s",
    "-5s",
    "5s-",
    "nan",
    "inf",
    "9" * 5_000 + "s",
    "367d",
    -1,
    -0.001,
    float("nan"),
    float("inf"),
    float("-inf"),
    YEAR + 1,
    10**400,
    10**5_000,
    -(10**400),
    timedelta(seconds=-1),
    timedelta.max,
    None,
    True,
    b"5s",
    [5],
]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_a_wrong_one_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"^timeout: "):
        seconds(wrong, "timeout")


@examples
@given(st.one_of(st.text(max_size=12), st.integers(), st.floats(), st.timedeltas(), st.none(), st.binary()))
def test_nothing_gets_by(value: object) -> None:
    """Whatever is given: a number of seconds within bounds, or a ValueError that names the field."""
    try:
        found = seconds(value, "field")
    except ValueError as error:
        assert str(error).startswith("field: ")
    else:
        assert 0 <= found <= YEAR
        assert micros(value) == round(found * 1e6)


PARTS = st.lists(
    st.sampled_from([("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)]), min_size=1, max_size=4
)


@examples
@given(PARTS, st.data())
def test_parts_add_up(parts: list[tuple[str, int]], data: st.DataObject) -> None:
    counts = [data.draw(st.integers(0, 9)) for _ in parts]
    text = "".join(f"{count}{unit}" for count, (unit, _) in zip(counts, parts, strict=True))
    assert seconds(text) == sum(count * size for count, (_, size) in zip(counts, parts, strict=True))
