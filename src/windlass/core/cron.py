"""Cron expressions: which instants they name, in a zone whose clock may jump."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo

import msgspec

from windlass.core.errors import InvalidSchedule

TEXT_MAX = 512  # characters; a list of every minute and every second has 340

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)
_YEAR_MAX = 9_998  # a year before the last that a datetime holds, so that no offset leads out of it
_SOONEST = -62_104_060_800_000_000  # 0002-01-01, for the same reason
_LATEST = 253_370_937_600_000_000  # 9999-01-03, when the year 9998 is over everywhere

_EVERY_WEEK = sum(1 << 7 * week for week in range(5))
_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Cron(msgspec.Struct, frozen=True, eq=False):
    """A cron expression. `Cron.parse(text)` makes one; `str()` gives the text back.

    Five fields: minute, hour, day of month, month, day of week; or six, with seconds first. A field is a list
    (`1,15,40`) of values, ranges (`9-17`), and steps (`*/5`, `9-17/2`, and `10/20`: from 10 to the largest value, which
    for weekdays is Saturday). Months and weekdays have names too (`jan`, `fri`), in either case; 0 and 7 are both
    Sunday. In the day of month `L` is the last day and `L-3` three days before it; in the day of week `5L` or `friL` is
    the last Friday of the month. `?` is `*` in either day field. A range of names may pass the end of the week or year
    (`fri-mon`, `nov-feb`); a range of numbers may not, since `50-10` is more often a slip than a wish: `22-23,0-2` says
    it. The nicknames are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly.

    Days: if both day fields are restricted (neither begins with `*` or is `?`) a day matches when either field does;
    else it must match both. So `0 0 13 * fri` is every 13th and every Friday, and `0 0 */2 * fri` the Fridays among
    the odd days. (Vixie cron's rule.)

    When clocks change: an expression whose hour field does not begin with `*` names local times. Each fires exactly
    once: the first time round where an hour repeats; and where the clock jumps over it, at the first moment after
    the jump, at which all that one jump swallowed make a single tick. An expression whose hour field begins with `*`
    follows real time: every instant whose local reading matches fires, so both passes of a repeated hour do, and
    nothing is made up for a jump. This holds for jumps of any size at any time, a whole day among them. Mind that
    `0 0-23 * * *` is of the first kind and `0 * * * *` of the second.

    Two expressions are equal if they have the same fields, however written: `@daily`, `0 0 * * ?`, `0 0 0 * * *`.
    """

    # Sets of small numbers are integers with a bit for each: the next member is found in two operations.
    text: str
    seconds: int
    minutes: int
    hours: int
    real_time: bool  # the hour field begins with `*`
    days: int
    days_before_31: int  # `L` is bit 31 and `L-3` bit 28, as they would fall in a month of 31 days
    months: int
    weekdays: int
    last_weekdays: int
    either_day: bool

    def __post_init__(self) -> None:
        # Every kind of year, leap or not and from each weekday on, occurs within these 28.
        if not any(self._days(year, month) for year in range(2000, 2028) for month in range(1, 13)):
            never = f"{_short(self.text)} can never fire: none of its months has such a day"
            raise InvalidSchedule("cron.day_of_month", never)

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Read an expression. Raises InvalidSchedule (a ValueError) naming the field and what would be right."""
        return _parse(text)

    def next(self, after: int, zone: tzinfo) -> int | None:
        """The first tick strictly after `after`; both are microseconds since 1970, UTC.

        `zone` must tell repeated and skipped hours apart by `fold` (PEP 495), as every `zoneinfo.ZoneInfo` does. None
        means: not before the end of the year 9998. Raises ValueError where `after` is no instant of years 2 to 9998.
        """
        if not _SOONEST <= after < _LATEST:
            raise ValueError(f"after: {after!r} must be microseconds since 1970, within the years 2 to {_YEAR_MAX}")
        here = (_EPOCH + after * _MICRO).astimezone(zone)
        wall = self._match(here)
        if self.real_time:
            wall = self._repeated(here, wall)
        while wall is not None:
            first, last = _instants(wall)
            if first > last:  # the clock jumps over it
                turn = _turn(zone, last, first)
                if turn > after and not self.real_time:
                    return turn
                wall = self._match(_before(wall, turn - last))
            elif first > after:
                return first
            elif last > after and self.real_time:
                return last
            else:  # the second pass of an hour: all of it fired in the first
                wall = self._match(_before(wall, _turn(zone, first, last) - first))
        return None

    def ticks(self, after: int, until: int, zone: tzinfo) -> Iterator[int]:
        """The ticks after `after`, up to and including `until`, in order.

        Windows laid end to end share none and miss none. There may be one a second for as long as you ask: how many to
        take is the caller's to decide.
        """
        tick = self.next(after, zone)
        while tick is not None and tick <= until:
            yield tick
            tick = self.next(tick, zone)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Cron.parse({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if isinstance(other, Cron) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._fields())

    def _fields(self) -> tuple[int, ...]:
        return msgspec.structs.astuple(self)[1:]

    def _repeated(self, here: datetime, wall: datetime | None) -> datetime | None:
        """`wall`, the next match after `here`; or, if the clock goes back before it, the first match it goes back to.

        The second pass is to be searched from its beginning, once the first has nothing left.
        """
        if here.utcoffset() == here.replace(fold=1).utcoffset():
            return wall
        first, last = _instants(here)
        turn = _turn(here.tzinfo, first, last)
        if wall is not None and wall < here + (turn - first) * _MICRO:
            return wall
        return self._match(here + (turn - last - 1) * _MICRO)

    def _match(self, after: datetime) -> datetime | None:
        """The first local time strictly after `after` that the expression names, whether or not clocks show it."""
        start = after + _SECOND  # of which a fraction is left out below
        year, month, day = start.year, start.month, start.day
        if year <= _YEAR_MAX and self._days(year, month) >> day & 1:
            time = self._time(start.hour, start.minute, start.second)
            if time:
                return datetime(year, month, day, *time, tzinfo=start.tzinfo)
        found = self._day(year, month, day + 1)
        if found is None:
            return None
        return datetime(*found, _least(self.hours), _least(self.minutes), _least(self.seconds), tzinfo=start.tzinfo)

    def _time(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        """The first time of day from that time on."""
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1:
                rest = self.seconds >> second
                if rest:
                    return hour, minute, second + _least(rest)
            rest = self.minutes >> minute + 1
            if rest:
                return hour, minute + 1 + _least(rest), _least(self.seconds)
        rest = self.hours >> hour + 1
        return (hour + 1 + _least(rest), _least(self.minutes), _least(self.seconds)) if rest else None

    def _day(self, year: int, month: int, day: int) -> tuple[int, int, int] | None:
        """The first day from that day on; month by month, so the rarest, 29 February on a given weekday, is 40 away."""
        while year <= _YEAR_MAX:
            rest = self.months >> month
            if not rest:
                year, month, day = year + 1, 1, 1
            elif not rest & 1:
                month, day = month + _least(rest), 1
            else:
                days = self._days(year, month) >> day
                if days:
                    return year, month, day + _least(days)
                month, day = month + 1, 1
        return None

    def _days(self, year: int, month: int) -> int:
        """The days of one month, a bit each."""
        if not self.months >> month & 1:
            return 0
        leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        length = _LENGTHS[month] + leap
        real = (2 << length) - 2
        first = date(year, month, 1).isoweekday() % 7
        by_weekday = _spread(self.weekdays, first)
        if self.last_weekdays:
            by_weekday |= _spread(self.last_weekdays, first) & real >> length - 6 << length - 6
        by_date = self.days | self.days_before_31 >> 31 - length
        return real & (by_date | by_weekday if self.either_day else by_date & by_weekday)


def _least(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _spread(weekdays: int, first: int) -> int:
    """Weekdays to the days of a month that begins on weekday `first`; five weeks of them, some past its end."""
    return ((weekdays >> first | weekdays << 7 - first) & 0x7F) * _EVERY_WEEK << 1


def _instants(wall: datetime) -> tuple[int, int]:
    """When clocks show `wall`, by the offset before and the offset after a change of offset, if there is one near.

    Equal on nearly all days. If the first is sooner, clocks show it twice; if it is later, they jump over it, and the
    jump lies after the second and not after the first.
    """
    first, again = (wall - _EPOCH) // _MICRO, wall.replace(fold=1)
    return first, first if again.utcoffset() == wall.utcoffset() else (again - _EPOCH) // _MICRO


def _turn(zone: tzinfo | None, low: int, high: int) -> int:
    """The first instant in (low, high] that has another offset than `low`, found by bisection."""
    offset = _offset(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(middle, zone) == offset:
            low = middle
        else:
            high = middle
    return high


def _offset(instant: int, zone: tzinfo | None) -> timedelta | None:
    return (_EPOCH + instant * _MICRO).astimezone(zone).utcoffset()


def _before(wall: datetime, micros: int) -> datetime:
    """The last moment before `wall` plus `micros`, and never before `wall`: whatever a zone says, a search goes on."""
    return wall + max(micros - 1, 0) * _MICRO


class _Field(msgspec.Struct, frozen=True):
    """What may stand in one field: numbers from `low` to `high`, perhaps names for them, and what an error says."""

    name: str
    low: int
    high: int
    right: str
    names: tuple[str, ...] = ()
    alias: int = -1  # one number more, another word for `low`: 7 is Sunday


_SECOND_FIELD = _Field("second", 0, 59, "0..59")
_MINUTE_FIELD = _Field("minute", 0, 59, "0..59")
_HOUR_FIELD = _Field("hour", 0, 23, "0..23")
_DAY_FIELD = _Field("day_of_month", 1, 31, "1..31, L or L-3")
_MONTH_FIELD = _Field("month", 1, 12, "1..12 or jan..dec", _MONTHS)
_WEEKDAY_FIELD = _Field("day_of_week", 0, 6, "0..7, sun..sat or 5L", _WEEKDAYS, 7)

_ITEM = re.compile(r"(\*|[0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?(?:/([0-9]{1,2}))?")
_LAST_DAY = re.compile(r"l(?:-([1-9]|[12][0-9]|30))?")
_LAST_WEEKDAY = re.compile(r"([0-9]|[a-z]{3})l")


def _parse(text: str) -> Cron:
    second, minute, hour, day, month, weekday = _words(text)
    days, days_before_31 = _days_of(day)
    weekdays, last_weekdays = _weekdays_of(weekday)
    return Cron(
        text=text,
        seconds=_set(_SECOND_FIELD, second.split(",")),
        minutes=_set(_MINUTE_FIELD, minute.split(",")),
        hours=_set(_HOUR_FIELD, hour.split(",")),
        real_time=hour.startswith("*"),
        days=days,
        days_before_31=days_before_31,
        months=_set(_MONTH_FIELD, month.split(",")),
        weekdays=weekdays,
        last_weekdays=last_weekdays,
        either_day=not day.startswith(("*", "?")) and not weekday.startswith(("*", "?")),
    )


def _words(text: str) -> list[str]:
    """The six fields."""
    if not isinstance(text, str):
        raise InvalidSchedule("cron", f"a {type(text).__name__} is no expression; write text such as '0 3 * * *'")
    if len(text) > TEXT_MAX:
        raise InvalidSchedule("cron", f"{len(text)} characters are too many; {TEXT_MAX} hold every useful expression")
    words = text.lower().split()
    if len(words) == 1 and words[0].startswith("@"):
        if words[0] not in _NICKNAMES:
            raise InvalidSchedule("cron", f"{_short(text)} is no nickname; there are {', '.join(_NICKNAMES)}")
        words = _NICKNAMES[words[0]].split()
    if len(words) == 5:
        words.insert(0, "0")
    if len(words) != 6:
        right = "five fields: minute, hour, day of month, month, day of week; or six, with seconds first"
        said = f"{len(words)} field{'' if len(words) == 1 else 's'}"
        raise InvalidSchedule("cron", f"{_short(text)} has {said}; write {right}")
    return words


def _days_of(word: str) -> tuple[int, int]:
    """The days of the month, and the days counted from its end, as they fall in a month of 31."""
    plain, before_31 = [], 0
    for item in ("*" if word == "?" else word).split(","):
        last = _LAST_DAY.fullmatch(item)
        if last:
            before_31 |= 1 << 31 - int(last[1] or 0)
        else:
            plain.append(item)
    return _set(_DAY_FIELD, plain), before_31


def _weekdays_of(word: str) -> tuple[int, int]:
    """The weekdays, and those of which the month's last is meant."""
    plain, last_of_month = [], []
    for item in ("*" if word == "?" else word).split(","):
        last = _LAST_WEEKDAY.fullmatch(item)
        if last:
            last_of_month.append(last[1])
        else:
            plain.append(item)
    return _set(_WEEKDAY_FIELD, plain), _set(_WEEKDAY_FIELD, last_of_month)


def _set(field: _Field, items: list[str]) -> int:
    """The numbers that the items name, a bit each."""
    size = field.high - field.low + 1
    bits = 0
    for item in items:
        for number in _item(field, item):
            bits |= 1 << field.low + (number - field.low) % size
    return bits


def _item(field: _Field, item: str) -> range:
    """The numbers of one item; those past the field's highest begin the round again."""
    found = _ITEM.fullmatch(item)
    if not found or (found[1] == "*" and found[2]):
        right = f"a value ({field.right}), a range a-b, or a step */n, a-b/n, a/n"
        raise _refused(field, f"{_short(item)} must be {right}")
    start, end, step = found.groups()
    if step and not 1 <= int(step) <= field.high - field.low:
        raise _refused(field, f"the step of {_short(item)} must be within 1..{field.high - field.low}")
    if start == "*":
        return range(field.low, field.high + 1, int(step or 1))
    first = _value(field, start, item)
    if not end:
        first = first if first <= field.high else field.low
        return range(first, field.high + 1 if step else first + 1, int(step or 1))
    last = _value(field, end, item)
    if last < first:
        if start.isdecimal() and end.isdecimal():
            raise _refused(field, f"{_short(item)} runs backwards; write {start}-{field.high},{field.low}-{end}")
        last += field.high - field.low + 1
    return range(first, last + 1, int(step or 1))


def _value(field: _Field, word: str, item: str) -> int:
    if word in field.names:
        return field.low + field.names.index(word)
    if word.isdecimal() and field.low <= int(word) <= max(field.high, field.alias):
        return int(word)
    raise _refused(field, f"{_short(word)} in {_short(item)} must be within {field.right}")


def _refused(field: _Field, problem: str) -> InvalidSchedule:
    return InvalidSchedule(f"cron.{field.name}", problem)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
