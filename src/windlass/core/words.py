"""Values in words, for people: instants, spans, counts, and text from jobs, which is never trusted."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))
# C0 and C1 move the cursor, ring, or answer for the user; the marks of U+202A..202E and U+2066..2069 turn the
# reading order round; lone surrogates cannot be written at all.
_HOSTILE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def printable(text: str) -> str:
    """`text`, with whatever could drive a terminal or forge a line escaped."""
    return _HOSTILE.sub(_escape, text)


def brief(text: str, most: int = 200) -> str:
    """The first line of `text`, at most `most` characters of it."""
    first = text.strip().partition("\n")[0].rstrip()
    return first if len(first) <= most else first[: most - 1] + "…"


def instant(micros: int | None) -> str | None:
    """Microseconds since 1970 as an ISO 8601 instant in UTC: 2026-11-22T10:00:00.250Z. None stays None."""
    if micros is None:
        return None
    try:
        moment = _EPOCH + dt.timedelta(microseconds=micros)
    except OverflowError:  # a job may be scheduled for whenever 64 bits can say
        return f"{micros} microseconds since 1970"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(micros: float) -> str:
    """A span of time, two units at most: 250ms, 1.5s, 42s, 3m 5s, 2h, 4d 3h."""
    seconds = max(0.0, micros / 1e6)
    if seconds < 1:
        return f"{seconds * 1e3:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = round(seconds)
    for position, (size, unit) in enumerate(_UNITS):
        if whole >= size:
            small, name = _UNITS[position + 1] if position + 1 < len(_UNITS) else (1, "s")
            rest = whole % size // small
            return f"{whole // size}{unit}" + (f" {rest}{name}" if rest else "")
    return f"{whole}s"


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 job, 2 jobs, 10,000 processes."""
    many = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else many}"


def near(word: str, known: Iterable[str]) -> str:
    """A question to add to "there is no such": ` Did you mean 'mail'?`; empty where nothing known is like `word`."""
    found = nearest(word, known)
    return f" Did you mean {found!r}?" if found else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """What of `known` is most like `word`; empty where nothing is."""
    from difflib import get_close_matches  # a mistake may cost a millisecond more than what is right

    return next(iter(get_close_matches(word, list(known), n=1, cutoff=0.7)), "")


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def redacted(url: str) -> str:
    """`url` with its passwords replaced, as it may be shown: beside the user, and among the parameters, where whole
    URLs may stand too. Where it is no URL, as a password was not percent-encoded, rather too little is shown."""
    scheme, mark, rest = url.partition("://")
    before, ask, query = rest.partition("?")
    if scheme.startswith("sqlite") and "@" not in before.partition("/")[0]:  # a path may have both
        return url
    user, at, host = before.rpartition("@")
    name, colon, _ = user.partition(":")
    if not at:
        host_name, mark_of_port, port = before.partition("/")[0].rpartition(":")
        if mark_of_port and not port.isdecimal() and "[" not in host_name:
            return f"{scheme}{mark}{host_name.partition(':')[0]}:***"
    shown = [
        f"{field}=***" if field in ("password", "sslpassword", "listen") else part
        for part in query.split("&")
        for field in (part.partition("=")[0],)
    ]
    return f"{scheme}{mark}{name}{colon}{'***' if colon else ''}{at}{host}{ask}{'&'.join(shown)}"
