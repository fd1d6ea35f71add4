"""What may be said about a job apart from its arguments, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from windlass.core.backoff import Backoff
from windlass.core.duration import Duration, micros, seconds
from windlass.core.errors import InvalidJob
from windlass.core.job import PRIORITY, Policy
from windlass.names import KEY_MOST, shown, valid_name, valid_queue

if TYPE_CHECKING:
    from windlass.keys import Key
    from windlass.limits import Limit
    from windlass.unique import Unique

TAGS_MOST = 20
HEADERS_BYTES_MOST = 8_192


class JobOptions(TypedDict, total=False):
    """Options of one job, for `using` and for enqueueing by name. They overrule those of the task."""

    queue: str
    priority: int
    """0..100, larger first; 50 unless said otherwise."""
    delay: Duration
    """Due this long after the store accepted it."""
    at: datetime
    """Due at this instant; with a time zone."""
    expires: Duration | datetime | None
    """If it has not started by then, it never will: the job ends as `expired`."""
    timeout: Duration | None
    """Soft limit of one attempt; None is no limit."""
    grace: Duration
    """From the soft limit to the hard one."""
    max_attempts: int
    backoff: Backoff
    idempotency_key: str | None
    """While a job of the same task with this key lives, and 24 hours after its end, no second one is stored."""
    tags: Sequence[str]
    headers: Mapping[str, str]
    result_ttl: Duration
    partition_key: str
    limit: int | Limit | Sequence[int | Limit] | None
    """How many jobs of the task may run at once, anywhere; see Limit for more."""
    unique: Unique | None
    """At most one job with the same key lives; see Unique."""
    limit_key: Key
    """Beside a `limit` that is a number: it holds for each value of this parameter, or of this function of them."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a job, checked; durations as NewJob and Policy want them."""

    queue: str = "default"
    priority: int = PRIORITY
    after: int = 0
    at: int | None = None
    expires_after: int | None = None
    expires_at: int | None = None
    idempotency_key: str | None = None
    tags: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    partition_key: str = ""
    limits: tuple[Any, ...] = ()
    """Of Limit."""
    unique: Any = None
    """A Unique."""
    policy: Policy = Policy()

    def having(self, options: Mapping[str, Any]) -> Terms:
        """These terms with `options` instead; raises InvalidJob that names the option and says what would be right."""
        changes: dict[str, Any] = {}
        policy: dict[str, Any] = {}
        if "limit_key" in options:
            options = _with_limit_key(options)
        for name, value in options.items():
            read = _READERS.get(name)
            if read is None:
                raise InvalidJob(name, f"is no option; there are {', '.join(_READERS)}")
            try:
                found = read(value, name)
            except ValueError as error:
                raise InvalidJob(name, str(error).removeprefix(f"{name}: ")) from None
            (policy if name in Policy.__struct_fields__ else changes).update(found)
        if "delay" in options and "at" in options:
            raise InvalidJob("at", "cannot be given together with delay")
        unique = changes.get("unique", self.unique)
        if unique is not None and changes.get("idempotency_key", self.idempotency_key) is not None:
            raise InvalidJob("unique", "cannot be given together with idempotency_key")
        if policy:
            changes["policy"] = msgspec.structs.replace(self.policy, **policy)
        return msgspec.structs.replace(self, **changes)


def _whole(least: int, most: int) -> Callable[[Any, str], dict[str, Any]]:
    def read(value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"{shown(value)} must be a whole number, {least}..{most}")
        return {name: value}

    return read


def _delay(value: Any, name: str) -> dict[str, Any]:
    return {"after": micros(value, name), "at": None}


def _at(value: Any, _: str) -> dict[str, Any]:
    return {"at": _instant(value), "after": 0}


def _expires(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {"expires_after": None, "expires_at": None}
    if isinstance(value, datetime):
        return {"expires_at": _instant(value), "expires_after": None}
    return {"expires_after": micros(value, name), "expires_at": None}


def _instant(value: Any) -> int:
    if not isinstance(value, datetime):
        raise ValueError(f"{shown(value)} must be a datetime; for a duration there is delay")
    if value.utcoffset() is None:
        raise ValueError(f"{value.isoformat()} has no time zone; write for instance datetime.now(UTC)")
    instant = round(value.timestamp() * 1e6)
    if instant < 0:
        raise ValueError(f"{value.isoformat()} lies before 1970")
    return instant


def _time(value: Any, name: str) -> dict[str, Any]:
    return {name: seconds(value, name)}


def _timeout(value: Any, name: str) -> dict[str, Any]:
    limit = None if value is None else seconds(value, name)
    if limit == 0:
        raise ValueError(f"{shown(value)} leaves no time at all; None is no limit")
    return {name: limit}


def _backoff(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Backoff):
        raise ValueError(f'{shown(value)} must be a Backoff, for instance Backoff(base="1s", factor=2, max="10m")')
    return {name: value}


def _text(most: int) -> Callable[[Any, str], dict[str, Any]]:
    def read(value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
            raise ValueError(f"{shown(value)} must be printable text of 1 to {most} characters")
        return {name: value}

    return read


def _key(value: Any, name: str) -> dict[str, Any]:
    return {name: None} if value is None else _text(KEY_MOST)(value, name)


def _tags(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, str) or not isinstance(value, (Sequence, set, frozenset)):
        raise ValueError(f"{shown(value)} must be a list of names")
    if len(value) > TAGS_MOST:
        raise ValueError(f"{len(value)} tags are too many; the limit is {TAGS_MOST}")
    return {name: tuple(dict.fromkeys(valid_name(tag, name) for tag in value))}


def _headers(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{shown(value)} must be a mapping of text to text")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise ValueError(f"{shown(key)}: {shown(text)} must be text on both sides")
        try:
            (key + text).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{key!a}: {text!a} holds a lone surrogate") from None
    if sum(len(key.encode()) + len(text.encode()) for key, text in value.items()) > HEADERS_BYTES_MOST:
        raise ValueError(f"are more than {HEADERS_BYTES_MOST} bytes together")
    return {name: dict(value)}


def _limit(value: Any, _: str) -> dict[str, Any]:
    from windlass.limits import read_limits

    return {"limits": value if isinstance(value, _Read) else read_limits(value)}


def _unique(value: Any, name: str) -> dict[str, Any]:
    from windlass.unique import Unique

    if value is not None and not isinstance(value, Unique):
        raise ValueError(f'{shown(value)} must be a Unique, for instance Unique(key="user_id", policy="keep-last")')
    return {name: value}


class _Read(tuple[Any, ...]):
    """Limits that were read already."""

    __slots__ = ()


def _with_limit_key(options: Mapping[str, Any]) -> dict[str, Any]:
    from windlass.limits import read_limits

    rest = {name: value for name, value in options.items() if name != "limit_key"}
    try:
        return {**rest, "limit": _Read(read_limits(rest.get("limit"), options["limit_key"]))}
    except ValueError as error:
        raise InvalidJob("limit_key", str(error)) from None


_READERS: dict[str, Callable[[Any, str], dict[str, Any]]] = {
    "queue": lambda value, name: {name: valid_queue(value, name)},
    "priority": _whole(0, 100),
    "delay": _delay,
    "at": _at,
    "expires": _expires,
    "timeout": _timeout,
    "grace": _time,
    "max_attempts": _whole(1, 10_000),
    "backoff": _backoff,
    "idempotency_key": _key,
    "tags": _tags,
    "headers": _headers,
    "result_ttl": _time,
    "partition_key": _text(KEY_MOST),
    "limit": _limit,
    "unique": _unique,
    "crash_budget": _whole(1, 1_000),
    "loss_budget": _whole(1, 1_000),
}
