"""Cron expressions: what each piece of syntax means, what is refused and how, and what happens when clocks change.

The whole of the last is in test_cron_oracle.py; here are the cases that a person would think of, in words.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.cron_oracle import read
from tests.core.cron_texts import EXPRESSION
from tests.core.sizes import examples
from windlass.core.cron import TEXT_MAX, Cron
from windlass.core.errors import InvalidSchedule, WindlassError

MICROS = 1_000_000
HOUR = 3_600 * MICROS


def instant(moment: str, zone: tzinfo = UTC) -> int:
    found = datetime.fromisoformat(moment)
    return int((found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()) * MICROS


def ticks(text: str, after: str, count: int, zone: str = "UTC") -> list[str]:
    """The first ticks after a local time, as clocks show them; with the offset, where the zone is not UTC."""
    place = ZoneInfo(zone)
    cron, at, found = Cron.parse(text), instant(after, place), []
    for _ in range(count):
        tick = cron.next(at, place)
        assert tick is not None
        at = tick
        shown = datetime.fromtimestamp(at / MICROS, place)
        found.append(f"{shown:%Y-%m-%d %H:%M:%S}" + ("" if zone == "UTC" else f"{shown:%z}"[:5]))
    return found


def days(text: str, after: str, count: int) -> list[str]:
    return [tick[:10] for tick in ticks(text, after, count)]


# ----------------------------------------------------------------------------------------------------- syntax


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", ["10:31:00", "10:32:00", "10:33:00"]),
        ("*/20 * * * *", ["10:40:00", "11:00:00", "11:20:00"]),
        ("10/20 * * * *", ["10:50:00", "11:10:00", "11:30:00"]),
        ("10-50/20 * * * *", ["10:50:00", "11:10:00", "11:30:00"]),
        ("5,1,33 * * * *", ["10:33:00", "11:01:00", "11:05:00"]),
        ("58-59,0 * * * *", ["10:58:00", "10:59:00", "11:00:00"]),
        ("15 9-11 * * *", ["11:15:00", "09:15:00", "10:15:00"]),
        ("00 */8 * * *", ["16:00:00", "00:00:00", "08:00:00"]),
        ("0 5/9 * * *", ["14:00:00", "23:00:00", "05:00:00"]),
        ("*/25 * * * * *", ["10:30:25", "10:30:50", "10:31:00"]),
        ("59 59 * * * *", ["10:59:59", "11:59:59", "12:59:59"]),
        ("7,3 30 10,12 * * *", ["10:30:03", "10:30:07", "12:30:03"]),
        ("  0\t3  *  * *\n", ["03:00:00", "03:00:00", "03:00:00"]),
    ],
)
def test_times(text: str, expected: list[str]) -> None:
    assert [tick[11:] for tick in ticks(text, "2024-05-10 10:30:00", 3)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # from Friday, 9 February 2024 on
        ("0 0 15 * *", ["2024-02-15", "2024-03-15", "2024-04-15"]),
        ("0 0 31 * *", ["2024-03-31", "2024-05-31", "2024-07-31"]),
        ("0 0 L * *", ["2024-02-29", "2024-03-31", "2024-04-30"]),
        ("0 0 L-3 * *", ["2024-02-26", "2024-03-28", "2024-04-27"]),
        ("0 0 l-30 * *", ["2024-03-01", "2024-05-01", "2024-07-01"]),
        ("0 0 14,L-1,l * *", ["2024-02-14", "2024-02-28", "2024-02-29"]),
        ("0 0 29 2 *", ["2024-02-29", "2028-02-29", "2032-02-29"]),
        ("0 0 29 feb ?", ["2024-02-29", "2028-02-29", "2032-02-29"]),
        ("0 0 */10 * *", ["2024-02-11", "2024-02-21", "2024-03-01"]),
        ("0 0 1 JAN,jul *", ["2024-07-01", "2025-01-01", "2025-07-01"]),
        ("0 0 1 nov-feb *", ["2024-11-01", "2024-12-01", "2025-01-01"]),
        ("0 0 1 oct-apr/3 *", ["2024-04-01", "2024-10-01", "2025-01-01"]),
        ("0 0 1 3/4 *", ["2024-03-01", "2024-07-01", "2024-11-01"]),
        ("0 0 * * 0", ["2024-02-11", "2024-02-18", "2024-02-25"]),
        ("0 0 * * 7", ["2024-02-11", "2024-02-18", "2024-02-25"]),
        ("0 0 ? * Sun", ["2024-02-11", "2024-02-18", "2024-02-25"]),
        ("0 0 * * 6-7", ["2024-02-10", "2024-02-11", "2024-02-17"]),
        ("0 0 * * mon-wed,sat", ["2024-02-10", "2024-02-12", "2024-02-13"]),
        ("0 0 * * fri-mon", ["2024-02-10", "2024-02-11", "2024-02-12"]),
        ("0 0 * * fri-1", ["2024-02-10", "2024-02-11", "2024-02-12"]),
        ("0 0 * * 7-tue", ["2024-02-11", "2024-02-12", "2024-02-13"]),
        ("0 0 * * fri-mon/2", ["2024-02-11", "2024-02-16", "2024-02-18"]),
        ("0 0 * * sun-sun", ["2024-02-11", "2024-02-18", "2024-02-25"]),
        ("0 0 * * 2/2", ["2024-02-10", "2024-02-13", "2024-02-15"]),
        ("0 0 * * 7/3", ["2024-02-10", "2024-02-11", "2024-02-14"]),  # Sunday, Wednesday, Saturday
        ("0 0 * * friL", ["2024-02-23", "2024-03-29", "2024-04-26"]),
        ("0 0 * * 5l", ["2024-02-23", "2024-03-29", "2024-04-26"]),
        ("0 0 * * 7L", ["2024-02-25", "2024-03-31", "2024-04-28"]),
        ("0 0 * * thuL", ["2024-02-29", "2024-03-28", "2024-04-25"]),
        ("0 0 * 2 friL,mon", ["2024-02-12", "2024-02-19", "2024-02-23"]),
    ],
)
def test_days(text: str, expected: list[str]) -> None:
    assert days(text, "2024-02-09", 3) == expected


def test_two_restricted_day_fields_are_joined_by_or() -> None:
    assert days("0 0 13 * fri", "2024-09-01", 6) == [
        "2024-09-06", "2024-09-13", "2024-09-20", "2024-09-27", "2024-10-04", "2024-10-11",
    ]  # fmt: skip
    assert days("0 0 13 * fri", "2024-10-11", 2) == ["2024-10-13", "2024-10-18"]
    assert days("0 0 L * friL", "2024-03-01", 3) == ["2024-03-29", "2024-03-31", "2024-04-26"]
    assert days("0 0 30 2 mon", "2024-01-01", 2) == ["2024-02-05", "2024-02-12"]  # the Mondays keep it alive


def test_a_day_field_that_begins_with_an_asterisk_is_joined_by_and() -> None:
    assert days("0 0 */2 * fri", "2024-09-01", 3) == ["2024-09-13", "2024-09-27", "2024-10-11"]
    assert days("0 0 13 * */5", "2024-09-01", 2) == ["2024-09-13", "2024-10-13"]  # a Friday, a Sunday
    assert days("0 0 *,13 * fri", "2024-09-01", 2) == ["2024-09-06", "2024-09-13"]
    assert days("0 0 1-31 * fri", "2024-09-01", 2) == ["2024-09-02", "2024-09-03"]  # this one is restricted, to all


def test_a_rare_day_is_found() -> None:
    """29 February on a Monday: every 28 years, or 12 and 40 around a year without one."""
    assert days("0 0 29 2 */6", "2024-03-01", 3) == ["2032-02-29", "2048-02-29", "2060-02-29"]
    assert days("0 0 */28 2 1L", "2024-03-01", 5) == [
        "2044-02-29",
        "2072-02-29",
        "2112-02-29",
        "2140-02-29",
        "2168-02-29",
    ]
    assert days("0 0 29 2 *", "2096-03-01", 1) == ["2104-02-29"]


@pytest.mark.parametrize(
    ("nickname", "meant"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@Hourly", "0 * * * *"),
    ],
)
def test_nicknames(nickname: str, meant: str) -> None:
    assert Cron.parse(nickname) == Cron.parse(meant)
    assert str(Cron.parse(nickname)) == nickname
    assert repr(Cron.parse(nickname)) == f"Cron.parse('{nickname}')"


def test_expressions_are_equal_by_what_they_say() -> None:
    alike = [Cron.parse(text) for text in ("0 0 * * *", "00 0 */1 jan-dec ?", "0 0 0 * 1/1 0-7", "@daily")]
    assert len(set(alike)) == 1
    assert alike[0] != Cron.parse("0 0 * * mon")
    assert Cron.parse("0 0-23 * * *") != Cron.parse("0 * * * *")  # the second follows real time
    assert Cron.parse("0 0 1 * mon") != Cron.parse("0 0 1 * *")
    assert Cron.parse("0 0 * * 5") != Cron.parse("0 0 * * 5L")
    assert alike[0] != "0 0 * * *"


# --------------------------------------------------------------------------------------------------- refusals

FIELDS = "five fields: minute, hour, day of month, month, day of week; or six, with seconds first"


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("", "cron", f"'' has 0 fields; write {FIELDS}"),
        ("* * * *", "cron", f"'* * * *' has 4 fields; write {FIELDS}"),
        ("0 0 0 1 1 * 2024", "cron", f"'0 0 0 1 1 * 2024' has 7 fields; write {FIELDS}"),
        (
            "@reboot",
            "cron",
            "'@reboot' is no nickname; there are @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly",
        ),
        ("0 " * 300 + "*", "cron", "601 characters are too many; 512 hold every useful expression"),
        (None, "cron", "a NoneType is no expression; write text such as '0 3 * * *'"),
        (b"* * * * *", "cron", "a bytes is no expression; write text such as '0 3 * * *'"),
        ("60 * * * *", "cron.minute", "'60' in '60' must be within 0..59"),
        ("60 0 * * * *", "cron.second", "'60' in '60' must be within 0..59"),
        ("0 24 * * *", "cron.hour", "'24' in '24' must be within 0..23"),
        ("0 0 0 * *", "cron.day_of_month", "'0' in '0' must be within 1..31, L or L-3"),
        ("0 0 1-32 * *", "cron.day_of_month", "'32' in '1-32' must be within 1..31, L or L-3"),
        ("0 0 * 13 *", "cron.month", "'13' in '13' must be within 1..12 or jan..dec"),
        ("0 0 * mon *", "cron.month", "'mon' in 'mon' must be within 1..12 or jan..dec"),
        ("0 0 * * 8", "cron.day_of_week", "'8' in '8' must be within 0..7, sun..sat or 5L"),
        ("0 0 * * 8L", "cron.day_of_week", "'8' in '8' must be within 0..7, sun..sat or 5L"),
        ("0 22-2 * * *", "cron.hour", "'22-2' runs backwards; write 22-23,0-2"),
        ("0 0 * * 5-1", "cron.day_of_week", "'5-1' runs backwards; write 5-6,0-1"),
        ("*/60 * * * *", "cron.minute", "the step of '*/60' must be within 1..59"),
        ("*/90 * * * *", "cron.minute", "the step of '*/90' must be within 1..59"),
        ("* 1-9/0 * * *", "cron.hour", "the step of '1-9/0' must be within 1..23"),
        ("1, * * * *", "cron.minute", "'' must be a value (0..59), a range a-b, or a step */n, a-b/n, a/n"),
        ("* *-3 * * *", "cron.hour", "'*-3' must be a value (0..23), a range a-b, or a step */n, a-b/n, a/n"),
        ("-1 * * * *", "cron.minute", "'-1' must be a value (0..59), a range a-b, or a step */n, a-b/n, a/n"),
        ("1_0 * * * *", "cron.minute", "'1_0' must be a value (0..59), a range a-b, or a step */n, a-b/n, a/n"),
        ("\u0663 * * * *", "cron.minute", "'\u0663' must be a value (0..59), a range a-b, or a step */n, a-b/n, a/n"),
        ("? * * * *", "cron.minute", "'?' must be a value (0..59), a range a-b, or a step */n, a-b/n, a/n"),
        (
            "* * 15w * *",
            "cron.day_of_month",
            "'15w' must be a value (1..31, L or L-3), a range a-b, or a step */n, a-b/n, a/n",
        ),
        (
            "* * L-31 * *",
            "cron.day_of_month",
            "'l-31' must be a value (1..31, L or L-3), a range a-b, or a step */n, a-b/n, a/n",
        ),
        (
            "* * * * L",
            "cron.day_of_week",
            "'l' must be a value (0..7, sun..sat or 5L), a range a-b, or a step */n, a-b/n, a/n",
        ),
        (
            "* * * * 5#2",
            "cron.day_of_week",
            "'5#2' must be a value (0..7, sun..sat or 5L), a range a-b, or a step */n, a-b/n, a/n",
        ),
        ("0 0 30 2 *", "cron.day_of_month", "'0 0 30 2 *' can never fire: none of its months has such a day"),
        (
            "0 0 31 4,jun,9 ?",
            "cron.day_of_month",
            "'0 0 31 4,jun,9 ?' can never fire: none of its months has such a day",
        ),
        ("0 0 L-29 2 *", "cron.day_of_month", "'0 0 L-29 2 *' can never fire: none of its months has such a day"),
        ("0 0 */30 2,6 5L", "cron.day_of_month", "'0 0 */30 2,6 5L' can never fire: none of its months has such a day"),
    ],
)
def test_a_refusal_names_the_field_and_what_would_be_right(text: str, field: str, problem: str) -> None:
    with pytest.raises(InvalidSchedule) as refused:
        Cron.parse(text)
    assert (refused.value.field, refused.value.problem) == (field, problem)
    assert str(refused.value) == f"{field}: {problem}"
    assert isinstance(refused.value, ValueError)
    assert isinstance(refused.value, WindlassError)


def test_what_is_repeated_in_a_message_is_short() -> None:
    with pytest.raises(InvalidSchedule, match=r"^cron\.minute: '1{57}\.\.\.' must be") as refused:
        Cron.parse("1" * 500 + " * * * *")
    assert len(str(refused.value)) < 200


def test_the_longest_useful_expression_is_accepted() -> None:
    every = ",".join(map(str, range(60)))
    text = f"{every} {every} * * * *"
    assert len(text) < TEXT_MAX
    assert Cron.parse(text) == Cron.parse("* * * * * *")


@examples
@given(st.text("0123456789*/-,?l# sunmofrijwd@\u0660\u0130", max_size=30) | st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert str(Cron.parse(text)) == text
    except InvalidSchedule as refused:
        assert refused.field.startswith("cron")


def test_an_instant_out_of_all_time_is_refused() -> None:
    cron = Cron.parse("* * * * *")
    for after in (-(10**18), 10**18, instant("9999-01-03")):
        with pytest.raises(ValueError, match="^after: .* within the years 2 to 9998"):
            cron.next(after, UTC)


@pytest.mark.parametrize("hours", [-23, 0, 14, 23])
def test_the_ends_of_time(hours: int) -> None:
    """The last tick is in the local year 9998, and to go on from it is no error, but the end."""
    zone = timezone(timedelta(hours=hours))
    last = instant("9998-12-31T23:00", zone)
    assert list(Cron.parse("0 * * * *").ticks(last - HOUR - 1, 2**62, zone)) == [last - HOUR, last]
    for after in (last - HOUR, last + HOUR - 1, last + HOUR):
        assert Cron.parse("0 0 1 1 *").next(after, zone) is None
    first = instant("0002-01-01")
    assert Cron.parse("0 * * * *").next(first, zone) == first + HOUR


# ---------------------------------------------------------------------------------------- when clocks change

BERLIN = "Europe/Berlin"  # 2024: on from 02:00 to 03:00 on 31 March, back from 03:00 to 02:00 on 27 October


def test_a_named_time_that_does_not_exist_fires_after_the_jump() -> None:
    assert ticks("30 2 * * *", "2024-03-30", 3, BERLIN) == [
        "2024-03-30 02:30:00+0100",
        "2024-03-31 03:00:00+0200",
        "2024-04-01 02:30:00+0200",
    ]


def test_all_that_a_jump_swallowed_is_one_tick() -> None:
    assert ticks("*/10 1-3 * * *", "2024-03-31 01:40", 4, BERLIN) == [
        "2024-03-31 01:50:00+0100",
        "2024-03-31 03:00:00+0200",
        "2024-03-31 03:10:00+0200",
        "2024-03-31 03:20:00+0200",
    ]
    assert ticks("0 2,3 * * *", "2024-03-31 01:40", 2, BERLIN) == [
        "2024-03-31 03:00:00+0200",
        "2024-04-01 02:00:00+0200",
    ]


def test_a_named_time_that_is_repeated_fires_the_first_time_round() -> None:
    assert ticks("30 2 * * *", "2024-10-26 12:00", 2, BERLIN) == [
        "2024-10-27 02:30:00+0200",
        "2024-10-28 02:30:00+0100",
    ]
    assert ticks("*/30 1-3 * * *", "2024-10-27 01:00", 5, BERLIN) == [
        "2024-10-27 01:30:00+0200",
        "2024-10-27 02:00:00+0200",
        "2024-10-27 02:30:00+0200",
        "2024-10-27 03:00:00+0100",
        "2024-10-27 03:30:00+0100",
    ]


def test_an_hour_that_begins_with_an_asterisk_follows_real_time() -> None:
    assert ticks("30 * * * *", "2024-10-27 01:00", 4, BERLIN) == [
        "2024-10-27 01:30:00+0200",
        "2024-10-27 02:30:00+0200",
        "2024-10-27 02:30:00+0100",
        "2024-10-27 03:30:00+0100",
    ]
    assert ticks("30 * * * *", "2024-03-31 01:00", 2, BERLIN) == [
        "2024-03-31 01:30:00+0100",
        "2024-03-31 03:30:00+0200",
    ]
    assert ticks("0 */2 * * *", "2024-10-27 01:00", 3, BERLIN) == [
        "2024-10-27 02:00:00+0200",
        "2024-10-27 02:00:00+0100",
        "2024-10-27 04:00:00+0100",
    ]
    assert ticks("30 */2 * * *", "2024-03-31 01:00", 1, BERLIN) == ["2024-03-31 04:30:00+0200"]


def test_next_may_be_asked_from_anywhere_in_a_repeated_hour() -> None:
    zone = ZoneInfo(BERLIN)
    turn = instant("2024-10-27T01:00:00+00:00")
    named, real = Cron.parse("15 2 * * *"), Cron.parse("15 * * * *")
    assert named.next(turn, zone) == named.next(turn + HOUR - 1, zone) == instant("2024-10-28T01:15:00+00:00")
    assert named.next(turn - HOUR, zone) == turn - HOUR + 15 * 60 * MICROS
    assert real.next(turn - 40 * 60 * MICROS, zone) == turn + 15 * 60 * MICROS
    assert real.next(turn + 15 * 60 * MICROS - 1, zone) == turn + 15 * 60 * MICROS
    assert real.next(turn + 15 * 60 * MICROS, zone) == turn + 75 * 60 * MICROS


def test_half_an_hour_in_lord_howe() -> None:
    assert ticks("*/15 2 * * *", "2024-10-06 00:00", 3, "Australia/Lord_Howe") == [
        "2024-10-06 02:30:00+1100",  # 02:00 and 02:15 were swallowed; at 02:30 it would have fired anyway
        "2024-10-06 02:45:00+1100",
        "2024-10-07 02:00:00+1100",
    ]
    assert ticks("45 1 * * *", "2024-04-07 00:00", 2, "Australia/Lord_Howe") == [
        "2024-04-07 01:45:00+1100",
        "2024-04-08 01:45:00+1030",
    ]
    assert ticks("45 * * * *", "2024-04-07 01:00", 3, "Australia/Lord_Howe") == [
        "2024-04-07 01:45:00+1100",
        "2024-04-07 01:45:00+1030",
        "2024-04-07 02:45:00+1030",
    ]


def test_a_jump_at_midnight_does_not_swallow_the_day() -> None:
    assert ticks("@daily", "2024-09-07 12:00", 2, "America/Santiago") == [
        "2024-09-08 01:00:00-0300",
        "2024-09-09 00:00:00-0300",
    ]
    assert ticks("30 23 * * *", "2024-04-06 12:00", 2, "America/Santiago") == [
        "2024-04-06 23:30:00-0300",
        "2024-04-07 23:30:00-0400",
    ]


def test_a_day_that_was_skipped() -> None:
    """Samoa had no 30 December 2011: all its times fall to the first moment of the 31st."""
    assert ticks("0 9,17 * * *", "2011-12-29 12:00", 4, "Pacific/Apia") == [
        "2011-12-29 17:00:00-1000",
        "2011-12-31 00:00:00+1400",
        "2011-12-31 09:00:00+1400",
        "2011-12-31 17:00:00+1400",
    ]
    assert ticks("0 * * * *", "2011-12-29 22:30", 2, "Pacific/Apia") == [
        "2011-12-29 23:00:00-1000",
        "2011-12-31 00:00:00+1400",
    ]
    assert ticks("0 9 30 12 *", "2011-01-01", 2, "Pacific/Apia") == [
        "2011-12-31 00:00:00+1400",
        "2012-12-30 09:00:00+1400",
    ]
    assert ticks("0 12 21 8 *", "1993-01-01", 2, "Pacific/Kwajalein") == [
        "1993-08-22 00:00:00+1200",
        "1994-08-21 12:00:00+1200",
    ]


def test_a_day_that_was_repeated() -> None:
    """Alaska changed its side of the date line in the afternoon of 19 October 1867, and had a whole day again."""
    assert ticks("0 12 * * *", "1867-10-17 13:00", 3, "America/Juneau") == [
        "1867-10-18 12:00:00+1502",
        "1867-10-19 12:00:00+1502",
        "1867-10-20 12:00:00-0857",
    ]
    assert ticks("0 */12 * * *", "1867-10-18 23:00", 5, "America/Juneau") == [
        "1867-10-19 00:00:00+1502",
        "1867-10-19 12:00:00+1502",
        "1867-10-19 00:00:00-0857",
        "1867-10-19 12:00:00-0857",
        "1867-10-20 00:00:00-0857",
    ]


def test_winter_as_the_exception() -> None:
    """Dublin's standard time is that of summer; what counts is the clock, not which side is called daylight saving."""
    assert ticks("30 1 * * *", "2024-03-30 12:00", 1, "Europe/Dublin") == ["2024-03-31 02:00:00+0100"]
    assert ticks("30 1 * * *", "2024-10-26 12:00", 2, "Europe/Dublin") == [
        "2024-10-27 01:30:00+0100",
        "2024-10-28 01:30:00+0000",
    ]


def test_offsets_of_seconds() -> None:
    """Monrovia went from -0:44:30 to UTC, so 7 January 1972 began at 00:44:30."""
    assert ticks("0 0 * * *", "1972-01-06 12:00", 2, "Africa/Monrovia") == [
        "1972-01-07 00:44:30+0000",
        "1972-01-08 00:00:00+0000",
    ]
    assert ticks("*/30 * * * *", "1972-01-06 23:20", 2, "Africa/Monrovia") == [
        "1972-01-06 23:30:00-0044",
        "1972-01-07 01:00:00+0000",
    ]


# ------------------------------------------------------------------------------------------------- properties


ZONE = st.sampled_from(
    [BERLIN, "UTC", "Australia/Lord_Howe", "America/Santiago", "Pacific/Apia", "Africa/Casablanca", "America/New_York"]
).map(ZoneInfo)
INSTANT = st.integers(instant("1990-01-01"), instant("2040-01-01"))
NEAR = st.sampled_from(
    [
        instant(turn)
        for turn in ("2024-03-31 01:00", "2024-10-27 01:00", "2024-10-05 15:30", "2024-04-06 15:00", "2011-12-30 10:00")
    ]
)
AFTER = INSTANT | st.tuples(NEAR, st.integers(-6 * HOUR, 3 * HOUR)).map(sum)


@examples
@given(EXPRESSION, AFTER, ZONE)
def test_ticks_only_go_on(text: str, after: int, zone: ZoneInfo) -> None:
    """Each is later than the one before, is named by the expression or ends a jump, and leaves none out."""
    cron, rule = Cron.parse(text), read(text)
    found = list(islice(cron.ticks(after, 2**62, zone), 6))
    assert all(sooner < later for sooner, later in pairwise([after, *found]))
    for sooner, tick in pairwise([after, *found]):
        at = datetime.fromtimestamp(tick // MICROS, zone)
        just_before = datetime.fromtimestamp(tick // MICROS - 1, zone)
        after_jump = not rule.follows_real_time and at.utcoffset() > just_before.utcoffset()
        assert tick % MICROS == 0
        assert rule.names(at.replace(tzinfo=None)) or after_jump
        assert {cron.next(between, zone) for between in (sooner, (sooner + tick) // 2, tick - 1)} == {tick}


@examples
@given(EXPRESSION, AFTER, st.integers(0, 50 * HOUR), st.integers(0, 50 * HOUR), ZONE)
def test_windows_join_without_seams(text: str, start: int, first: int, second: int, zone: ZoneInfo) -> None:
    """A scheduler that reads window after window sees each tick once."""
    cron = Cron.parse("0 " + text if len(text.split()) == 5 else "0 " + text.split(maxsplit=1)[1])  # not every second
    middle, end = start + first, start + first + second
    whole = list(cron.ticks(start, end, zone))
    assert whole == [*cron.ticks(start, middle, zone), *cron.ticks(middle, end, zone)]


@examples
@given(EXPRESSION, INSTANT, st.integers(-23 * 60, 23 * 60))
def test_a_fixed_offset_only_shifts(text: str, after: int, minutes: int) -> None:
    cron, shift = Cron.parse(text), minutes * 60 * MICROS
    tick = cron.next(after + shift, UTC)
    assert tick is not None
    assert cron.next(after, timezone(timedelta(minutes=minutes))) == tick - shift


@examples
@given(EXPRESSION)
def test_the_text_says_it_all(text: str) -> None:
    cron = Cron.parse(text)
    assert str(cron) == text
    assert Cron.parse(str(cron)) == cron
    assert hash(Cron.parse(text.upper())) == hash(cron)
    assert Cron.parse(f"  {text.replace(' ', '   ')} ") == cron
