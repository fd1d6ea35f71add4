"""Text from jobs cannot drive a terminal, and times read as people write them."""

from __future__ import annotations

import pytest

from windlass.core.words import brief, count, instant, printable, span


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b[31mred", "\\x1b[2J\\x1b[31mred"),
        ("a\nb\rc\td", "a\\x0ab\\x0dc\\x09d"),
        ("\x9b31m\x7f\x00", "\\x9b31m\\x7f\\x00"),
        ("evil\u202etxt.exe\u2066", "evil\\u202etxt.exe\\u2066"),
        ("half \ud800 of a pair", "half \\ud800 of a pair"),
        ("naïve 日本 🎉", "naïve 日本 🎉"),
    ],
)
def test_hostile_text_is_escaped(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown
    printable(hostile).encode()  # and can be written


@pytest.mark.parametrize(
    ("micros", "said"),
    [
        (0, "0ms"), (-5, "0ms"), (1_499, "1ms"), (250_000, "250ms"), (1_500_000, "1.5s"), (2_000_000, "2s"),
        (42_400_000, "42s"), (60_000_000, "1m"), (185_000_000, "3m 5s"), (7_200_000_000, "2h"),
        (7_260_000_000, "2h 1m"), (86_400_000_000 * 4 + 3_600_000_000 * 3, "4d 3h"),
    ],
)  # fmt: skip
def test_spans(micros: int, said: str) -> None:
    assert span(micros) == said


def test_instants() -> None:
    assert instant(None) is None
    assert instant(0) == "1970-01-01T00:00:00.000Z"
    assert instant(1_795_000_000_250_000) == "2026-11-18T11:06:40.250Z"
    assert instant(2**62) == f"{2**62} microseconds since 1970"


def test_counts_and_first_lines() -> None:
    assert (count(1, "job"), count(10_000, "job")) == ("1 job", "10,000 jobs")
    assert brief("  first\nsecond") == "first"
    assert brief("x" * 300, 10) == "x" * 9 + "…"
