"""What a cron expression should do, found the slow way: walk every moment, ask the zone what clocks show, apply the rule.

Nothing here comes from `windlass.core.cron`, nor is it like it: no `fold`, no search, no arithmetic on local times.
A moment is a whole second (or minute) since 1970, and all that is ever asked is what a clock on the wall shows then.
"""

from __future__ import annotations

import zoneinfo
from calendar import monthrange
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache
from typing import NamedTuple

SINCE, UNTIL = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2000, 2038))
LOOK = 3 * 86_400  # no two changes of any zone are nearer than seven days, so a look every three misses none
HOUR = 3_600
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

MINUTELY = """
* * * * *
*/5 * * * *
*/7 * * * *
30 * * * *
0 * * * *
59 * * * *
0,15,30,45 * * * *
10-20 * * * *
5/20 * * * *
*/30 */2 * * *
0 */3 * * *
30 */1 * * sun
15 * L * *
*/20 * * 3,4,9-11 7
45 * 25-31 mar,oct *
* 2 * * *
30 2 * * *
0 2 * * *
0 3 * * *
30 1 * * *
0 0 * * *
30 0 * * *
59 23 * * *
0 1-3 * * *
*/10 0-4 * * *
15,45 1,2,3 * * *
*/15 0/2 * * *
0 0-23 * * *
1-59/2 0-23 * * *
30 2 L * *
0 0 L-3 * *
30 1,2 * * sunL
0 2,3 * * 0L
10 0,1,2,3 29-31 3,10 sun
20 2 1-7 * sun
""".strip().splitlines()
SECONDLY = """
*/15 * * * * *
59 59 * * * *
0 30 2 * * *
10,50 0,29,30,31,59 0-3 * * *
7/20 */9 1-2 * * sun
""".strip().splitlines()
EXPRESSIONS = [*MINUTELY, *SECONDLY]  # forty


class Rule(NamedTuple):
    """An expression as sets; `days` answers for a date."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    follows_real_time: bool
    months: frozenset[int]
    day_words: tuple[str, str]

    def names(self, wall: datetime) -> bool:
        return (
            wall.minute in self.minutes
            and wall.second in self.seconds
            and wall.hour in self.hours
            and wall.month in self.months
            and day_fits(wall.date(), *self.day_words)
        )


@cache
def read(text: str) -> Rule:
    words = text.lower().split()
    if len(words) == 5:
        words = ["0", *words]
    second, minute, hour, day, month, weekday = words
    return Rule(
        numbers(second, 0, 59), numbers(minute, 0, 59), numbers(hour, 0, 23), hour[0] == "*", numbers(month, 1, 12), (day, weekday)
    )  # fmt: skip


@cache
def numbers(word: str, low: int, high: int) -> frozenset[int]:
    for index, name in enumerate(MONTHS, 1):
        word = word.replace(name, str(index))
    found: set[int] = set()
    for item in word.split(","):
        span, _, step = item.partition("/")
        if span == "*":
            start, end = low, high
        elif "-" in span:
            start, end = map(int, span.split("-"))
        else:
            start = int(span)
            end = high if step else start
        found.update(range(start, end + 1, int(step or 1)))
    return frozenset(found)


@cache
def day_fits(day: date, day_word: str, weekday_word: str) -> bool:
    last = monthrange(day.year, day.month)[1]
    by_date = any(
        (day.day == last - int(item[2:] or 0)) if item[0] == "l" else day.day in numbers(item, 1, 31)
        for item in day_word.split(",")
    )
    by_weekday = any(
        (weekday_fits(day, item[:-1]) and day.day + 7 > last) if item[-1] == "l" else weekday_fits(day, item)
        for item in weekday_word.split(",")
    )
    if "*" in (day_word[0], weekday_word[0]):
        return by_date and by_weekday
    return by_date or by_weekday


def weekday_fits(day: date, item: str) -> bool:
    for index, name in enumerate(WEEKDAYS):
        item = item.replace(name, str(index))
    first, slash, step = item.partition("/")
    if slash and first != "*" and "-" not in first:  # without an end it is Saturday; 7 is only another word for 0
        (start,) = numbers(first, 0, 7)
        item = f"{start % 7}-6/{step}"
    return bool({day.isoweekday(), day.isoweekday() % 7} & numbers(item, 0, 7))


class Change(NamedTuple):
    """At `at`, the zone's clocks are moved from one offset to another; all in seconds."""

    at: int
    before: int
    after: int

    @property
    def size(self) -> int:
        return abs(self.after - self.before)


def offset(zone: tzinfo, moment: int) -> int:
    found = datetime.fromtimestamp(moment, zone).utcoffset()
    assert found is not None
    return int(found.total_seconds())


def changes(zone: tzinfo, since: int = SINCE, until: int = UNTIL) -> list[Change]:
    """All changes of a zone's offset, found by looking every three days and halving what lies between."""
    found = []
    before = offset(zone, since)
    for look in range(since + LOOK, until + LOOK, LOOK):
        after = offset(zone, look)
        if after != before:
            low, high = look - LOOK, look
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(zone, middle) == before else (low, middle)
            found.append(Change(high, before, after))
            before = after
    return [change for change in found if change.at < until]


class Walk:
    """Every moment from `start` to `end`, and what clocks show at it."""

    def __init__(self, zone: tzinfo, start: int, end: int, step: int) -> None:
        self.zone, self.start, self.end = zone, start, end
        self.shown = [(at, datetime.fromtimestamp(at, zone).replace(tzinfo=None)) for at in range(start, end + 1, step)]
        self.first: dict[datetime, int] = {}
        for at, wall in self.shown:
            self.first.setdefault(wall, at)
        self.walls = []  # every local time from the first to the last, whether or not clocks show it
        wall, last, pace = self.shown[0][1], self.shown[-1][1], timedelta(seconds=step)
        while wall <= last:
            self.walls.append(wall)
            wall += pace

    def expected(self, rule: Rule) -> list[int]:
        """The rule, word for word."""
        if rule.follows_real_time:  # every instant whose local reading matches
            return [at for at, wall in self.shown if rule.names(wall)]
        # Each local time once: when clocks first show it, or else at the first moment after the jump over it.
        named = (wall for wall in self.walls if rule.names(wall))
        return sorted({self.first[wall] if wall in self.first else self.after_jump(wall) for wall in named})

    def after_jump(self, wall: datetime) -> int:
        (at,) = [
            at
            for (_, shown_before), (at, shown) in zip(self.shown, self.shown[1:], strict=False)
            if shown_before < wall < shown
        ]
        return at


def walk(zone: tzinfo, change: Change, *, step: int, margin: int) -> Walk:
    """Around a change: all that it repeats or skips, and `margin` seconds on either side."""
    reach = change.size + margin
    return Walk(zone, change.at - reach, change.at + reach, step)


def zones() -> list[str]:
    """Every zone of the database, save the machine's own."""
    return sorted(zoneinfo.available_timezones() - {"localtime"})


def distinct(names: Iterable[str], since: int = SINCE, until: int = UNTIL) -> Iterator[tuple[str, list[Change]]]:
    """One zone for each history of changes; links, and the many zones that were alike in these years, are left out."""
    seen = set()
    for name in names:
        zone = zoneinfo.ZoneInfo(name)
        history = tuple(changes(zone, since, until)) or (Change(since, offset(zone, since), offset(zone, since)),)
        if history not in seen:
            seen.add(history)
            yield name, list(history)
