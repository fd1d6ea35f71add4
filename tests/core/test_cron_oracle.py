"""The cron engine beside an oracle that knows nothing of it: every zone, every change of its clocks, forty expressions.

The soak walks all of them: 598 zones, 17,348 changes, 693,920 cases, half an hour on one core. It may be cut and taken
up again by zone: `make soak ARGS="-k 'test_every_zone and Europe'"`.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.core.cron_oracle import (
    EXPRESSIONS,
    HOUR,
    MINUTELY,
    SECONDLY,
    Change,
    Walk,
    changes,
    distinct,
    offset,
    read,
    walk,
    zones,
)
from tests.core.cron_texts import EXPRESSION
from windlass.core.cron import Cron
from windlass.testing.conformance.sizes import size

MICROS = 1_000_000

Engine = Callable[[Cron, int, int, tzinfo], list[int]]
"""The ticks after one instant up to another, in microseconds."""


parsed = functools.lru_cache(1_000)(Cron.parse)


def by_oracle(walk: Walk, text: str) -> list[int]:
    return [at * MICROS for at in walk.expected(read(text))]


def engine(cron: Cron, after: int, until: int, zone: tzinfo) -> list[int]:
    return list(cron.ticks(after, until, zone))


def differences(walk: Walk, text: str, expected: list[int], ticks: Engine = engine) -> list[str]:
    """What the engine says otherwise than the oracle."""
    found = ticks(parsed(text), walk.start * MICROS - 1, walk.end * MICROS, walk.zone)
    if found == expected:
        return []
    moments = sorted(set(expected) ^ set(found)) or found
    return [f"{text} in {walk.zone}: {shown(moments[0], walk.zone)} of {len(moments)} differences"]


def shown(at: int, zone: tzinfo) -> str:
    return f"{datetime.fromtimestamp(at / MICROS, zone).isoformat()} ({at})"


def lone_steps(walk: Walk, change: Change, text: str, expected: list[int]) -> list[str]:
    """`next` asked from moments that are no ticks: just before, at and after the change, in what it repeats or skips."""
    cron, wrong = parsed(text), []
    reach, at = change.size * MICROS, change.at * MICROS
    for beside in (-reach - 1, -reach, -reach // 2, -1, 0, 1, 1_023 * MICROS, reach // 2, reach - 1, reach, reach + 1):
        after = at + beside
        found = cron.next(after, walk.zone)
        right = next((tick for tick in expected if tick > after), None)
        late = right is None and (found is None or found > walk.end * MICROS)
        if found != right and not late:
            wrong.append(f"{text} in {walk.zone}: after {shown(after, walk.zone)} comes {found}, not {right}")
    return wrong


def compared(zone: tzinfo, change: Change, minutely: list[str], secondly: list[str], margin: int) -> Iterator[int]:
    """Each expression around one change, in windows that hold all it does; fails at the first difference."""
    for texts, step, around in ((minutely, 60, margin), (secondly, 1, 180)):
        window = walk(zone, change, step=step, margin=around) if texts else None
        for text in texts:
            assert window is not None
            expected = by_oracle(window, text)
            wrong = differences(window, text, expected) + lone_steps(window, change, text, expected)
            assert not wrong, wrong
            yield len(expected)


def test_there_are_forty_expressions() -> None:
    assert len(set(EXPRESSIONS)) == 40
    assert [text for text in EXPRESSIONS if Cron.parse(text).real_time != read(text).follows_real_time] == []


def test_every_history_of_clocks(record_property: Callable[[str, object], None]) -> None:
    """Each distinct one since 2000, at each of its changes, with one or two of the expressions in turn."""
    count: Counter[str] = Counter()
    for name, history in distinct(zones()):
        zone = ZoneInfo(name)
        count["histories"] += 1
        for change in history:
            turn = count["changes"]
            minutely = [MINUTELY[turn % len(MINUTELY)]]
            secondly = [SECONDLY[turn // 40 % len(SECONDLY)]] if turn % 40 == 0 else []
            ticks = list(compared(zone, change, minutely, secondly, HOUR))
            count.update(changes=1, cases=len(ticks), ticks=sum(ticks), silent=ticks.count(0))
    assert count["histories"] > 100
    assert count["changes"] > 3_000
    record_property("proof", dict(count))


@pytest.mark.soak
@pytest.mark.parametrize("name", zones())
def test_every_zone(name: str, record_property: Callable[[str, object], None]) -> None:
    """Every change of every zone, with all forty."""
    zone, count = ZoneInfo(name), Counter[str](zones=1)
    for change in changes(zone):
        ticks = list(compared(zone, change, MINUTELY, SECONDLY, 3 * HOUR))
        count.update(changes=1, cases=len(ticks), ticks=sum(ticks), silent=ticks.count(0))
    record_property("proof", dict(count))


NOTABLE = {  # zone, the day of a change (UTC), and its size in seconds
    "half an hour back": ("Australia/Lord_Howe", "2024-04-06", -1_800),
    "half an hour on": ("Australia/Lord_Howe", "2024-10-05", 1_800),
    "two hours on": ("Antarctica/Troll", "2024-03-31", 7_200),
    "on, at midnight": ("America/Santiago", "2024-09-08", 3_600),
    "back, at midnight": ("America/Santiago", "2024-04-07", -3_600),
    "on, a minute past midnight": ("Asia/Gaza", "2010-03-26", 3_600),
    "winter is the exception, on": ("Europe/Dublin", "2024-03-31", 3_600),
    "winter is the exception, back": ("Europe/Dublin", "2024-10-27", -3_600),
    "a day skipped in Samoa": ("Pacific/Apia", "2011-12-30", 86_400),
    "a day skipped in Kwajalein": ("Pacific/Kwajalein", "1993-08-21", 86_400),
    "a day twice in Alaska": ("America/Juneau", "1867-10-19", -86_400),
    "a new offset, half an hour back": ("Asia/Pyongyang", "2015-08-14", -1_800),
    "a new offset, half an hour on": ("America/Caracas", "2016-05-01", 1_800),
    "a new offset, a quarter of an hour": ("Asia/Kathmandu", "1985-12-31", 900),
    "a new offset, three hours": ("Antarctica/Casey", "2018-03-10", -10_800),
    "by the rule for all years to come": ("Europe/Berlin", "2099-03-29", 3_600),
    "by the rule for all years to come, back": ("Australia/Lord_Howe", "2099-04-04", -1_800),
    "from seconds, on": ("Africa/Monrovia", "1972-01-07", 2_670),
    "from seconds, back": ("Europe/Paris", "1911-03-10", -561),
}


@pytest.mark.parametrize("what", NOTABLE)
def test_notable_changes(what: str, record_property: Callable[[str, object], None]) -> None:
    """With all forty, but where a day is skipped."""
    name, day, size = NOTABLE[what]
    zone, noon = ZoneInfo(name), int(datetime.fromisoformat(f"{day}T12:00+00:00").timestamp())
    (change,) = changes(zone, noon - 43_200, noon + 43_200)
    assert change.after - change.before == size
    minutely, secondly = MINUTELY, SECONDLY
    if change.before % 60 or change.after % 60:  # where a full minute of one is none of the other
        minutely, secondly = [], EXPRESSIONS
    elif change.size > 4 * HOUR:  # so many seconds are better spent elsewhere
        secondly = []
    ticks = list(compared(zone, change, minutely, secondly, HOUR))
    record_property("proof", {"cases": len(ticks), "ticks": sum(ticks), "silent": ticks.count(0)})


PLACES = [
    "America/Santiago", "Africa/Casablanca", "America/Havana", "America/New_York", "Antarctica/Troll", "Asia/Gaza",
    "Asia/Tehran", "Australia/Lord_Howe", "Europe/Dublin", "Pacific/Apia",
]  # fmt: skip


@functools.cache
def history(name: str) -> list[Change]:
    return changes(ZoneInfo(name))


@settings(max_examples=size(25, 1_000, 30_000), deadline=None)
@given(EXPRESSION, st.sampled_from(PLACES), st.integers(0, 100))
@example("* * * * 1/1", "America/Santiago", 0)
@example("* * * * 7/2", "America/Santiago", 0)
def test_any_expression(text: str, name: str, turn: int) -> None:
    """What forty expressions do not hold."""
    change = history(name)[turn % len(history(name))]
    fields = len(text.split())
    assume(fields == 5 or change.size <= 2 * HOUR)
    list(compared(ZoneInfo(name), change, [text] if fields == 5 else [], [text] if fields == 6 else [], HOUR))


@pytest.mark.soak
@pytest.mark.parametrize("century", [1850, 1900, 1950])
def test_every_history_before_2000(century: int, record_property: Callable[[str, object], None]) -> None:
    """Local mean times, wars and double summers: each change by seconds, with five expressions in turn."""
    count: Counter[str] = Counter()
    since, until = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (century, century + 50))
    for name, past in distinct(zones(), since, until):
        count["histories"] += 1
        for change in past:
            texts = [EXPRESSIONS[(5 * count["changes"] + more) % 40] for more in range(5)]
            ticks = list(compared(ZoneInfo(name), change, [], texts, 0))
            count.update(changes=1, cases=len(ticks), ticks=sum(ticks), silent=ticks.count(0))
    record_property("proof", dict(count))


@pytest.mark.parametrize("year", [3, 1700, 1849, 1890, 1930, 1965])
def test_far_from_any_change(year: int, record_property: Callable[[str, object], None]) -> None:
    """Where an offset has seconds no local minute is a minute of UTC's, on any day."""
    dice, count = random.Random(year), Counter[str]()
    for name in dice.sample(zones(), size(20, 200, len(zones()))):
        zone = ZoneInfo(name)
        at = int(datetime(year, dice.randint(1, 12), dice.randint(1, 28), dice.randint(0, 23), tzinfo=UTC).timestamp())
        there = offset(zone, at)
        ticks = list(compared(zone, Change(at, there, there), [], dice.sample(EXPRESSIONS, 3), 0))
        count.update(cases=len(ticks), ticks=sum(ticks), odd=bool(there % 60))
    assert count["odd"] or year == 1965
    record_property("proof", dict(count))


# ------------------------------------------------------------------------------------------------- broken engines


def in_real_time(cron: Cron) -> Cron:
    return msgspec.structs.replace(cron, real_time=True)


def fires_twice(cron: Cron, after: int, until: int, zone: tzinfo) -> list[int]:
    """A named time in each pass of a repeated hour."""
    return sorted({*cron.ticks(after, until, zone), *in_real_time(cron).ticks(after, until, zone)})


def skips_the_jump(cron: Cron, after: int, until: int, zone: tzinfo) -> list[int]:
    """Nothing where clocks jump."""
    shown = set(in_real_time(cron).ticks(after, until, zone))
    return [tick for tick in cron.ticks(after, until, zone) if tick in shown]


def real_time_for_all(cron: Cron, after: int, until: int, zone: tzinfo) -> list[int]:
    return list(in_real_time(cron).ticks(after, until, zone))


def once_for_all(cron: Cron, after: int, until: int, zone: tzinfo) -> list[int]:
    """Hours that begin with `*` as if they were named: one pass, and something made up for a jump."""
    return list(msgspec.structs.replace(cron, real_time=False).ticks(after, until, zone))


def by_wall_arithmetic(fold: int) -> Engine:
    """Local times found without a thought of clocks, then turned into instants: in a jump, by the offset before it."""

    def ticks(cron: Cron, after: int, until: int, zone: tzinfo) -> list[int]:
        walls_at = [datetime.fromtimestamp(at / MICROS, zone).replace(tzinfo=UTC) for at in (after, until)]
        start, end = (int(wall.timestamp()) * MICROS for wall in walls_at)
        walls = (datetime.fromtimestamp(at / MICROS, UTC) for at in cron.ticks(start, end, UTC))
        found = {int(wall.replace(tzinfo=zone, fold=fold).timestamp()) * MICROS for wall in walls}
        return sorted(at for at in found if after < at <= until)

    return ticks


def jumps_are_hours(cron: Cron, after: int, until: int, zone: tzinfo) -> list[int]:
    """The end of a jump of half an hour taken for the next full hour."""
    shown = set(in_real_time(cron).ticks(after, until, zone))
    return [tick if tick in shown else tick + 1_800 * MICROS for tick in cron.ticks(after, until, zone)]


BROKEN: dict[str, tuple[Engine, str, str]] = {  # with a zone and an expression that shows it
    "fires twice": (fires_twice, "Europe/Berlin", "30 2 * * *"),
    "skips the jump": (skips_the_jump, "Europe/Berlin", "30 2 * * *"),
    "all in real time": (real_time_for_all, "Europe/Berlin", "*/10 0-4 * * *"),
    "all once": (once_for_all, "Europe/Berlin", "30 * * * *"),
    "shifted out of the jump": (by_wall_arithmetic(0), "Europe/Berlin", "30 2 * * *"),
    "shifted before the jump, and in the second pass": (by_wall_arithmetic(1), "Europe/Berlin", "30 2 * * *"),
    "jumps are whole hours": (jumps_are_hours, "Australia/Lord_Howe", "15 2 * * *"),
}


def caught(ticks: Engine, zone: ZoneInfo, change: Change, text: str) -> list[str]:
    window = walk(zone, change, step=60, margin=HOUR)
    return differences(window, text, by_oracle(window, text), ticks)


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_engine_is_caught(what: str) -> None:
    ticks, name, text = BROKEN[what]
    year = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
    around = [(ZoneInfo(name), change, text) for change in changes(ZoneInfo(name), year, year + 366 * 24 * HOUR)]
    assert any(caught(ticks, *case) for case in around)
    assert not any(caught(engine, *case) for case in around)


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_engine_is_caught_by_the_sample(what: str) -> None:
    """By what a day's run holds, too: few expressions in turn at each change."""
    ticks, name, _ = BROKEN[what]
    turns = enumerate(history(name))
    assert any(caught(ticks, ZoneInfo(name), change, MINUTELY[turn % len(MINUTELY)]) for turn, change in turns)
