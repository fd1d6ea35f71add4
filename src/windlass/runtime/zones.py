"""Time zones by name, from the system's database or else from the package `tzdata`."""

from __future__ import annotations

from datetime import UTC, tzinfo
from functools import lru_cache

from windlass.core.errors import InvalidSchedule

_UTC = frozenset({"UTC", "Etc/UTC", "Z"})


@lru_cache(maxsize=1_024)
def load(name: str) -> tzinfo:
    """The zone of that name. Raises InvalidSchedule for one that there is not, with the name that was perhaps meant."""
    if name in _UTC:  # needs no database, and costs nothing to look at
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # also what a path is made of
        raise InvalidSchedule("timezone", f"{name!r} is no time zone{_meant(name)}") from None


def _meant(name: str) -> str:
    from difflib import get_close_matches
    from zoneinfo import available_timezones

    known = {each.lower(): each for each in available_timezones()}
    # People leave out the continent, too.
    cities = {each.rpartition("/")[2]: known[each] for each in sorted(known)}
    wanted = name.lower().replace(" ", "_")
    near = get_close_matches(wanted, known, 1, 0.75) or [cities[c] for c in get_close_matches(wanted, cities, 1, 0.8)]
    if near:
        return f"; did you mean {known.get(near[0], near[0])!r}?"
    return "" if known else "; this machine has no database of them: install the package tzdata"
