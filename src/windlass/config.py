"""Settings: pyproject.toml, overruled by the environment (WINDLASS_*), overruled by arguments; validated once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict, get_args

import msgspec

from windlass.core.duration import YEAR, Duration, seconds
from windlass.core.errors import ConfigError
from windlass.core.words import redacted
from windlass.names import valid_queue
from windlass.ports.store import PruneRules
from windlass.runtime.bounds import CONCURRENCY_MOST, PROCESSES_MOST
from windlass.stores import problem_of

Durability = Literal["full", "normal"]
LogFormat = Literal["auto", "text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

WEIGHT_MOST = 1_000
"""Of a queue among those that a worker serves; one without a weight counts 1."""


OUTBOXES = ("postgresql", "sqlite", "sqlite+stdlib")
"""Stores that can be part of a transaction of their database."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an application and its workers were told, complete; durations are seconds, sizes are bytes."""

    url: str = "sqlite:///windlass.db"
    outbox: str | None = None
    """A store in the application's own database, for `app.outbox`."""
    hold: float = 15.0
    """How long a worker's lease lasts."""
    seconds_per_priority: float = 10.0
    """How far one step of priority moves a job forward; changing it concerns only jobs enqueued later."""
    max_payload: int = 256 * 1024
    max_result: int = 1024 * 1024
    max_depth: int = 64
    enqueue_timeout: float = 5.0
    """`enqueue` returns or raises within this time, however long the store is locked."""
    durability: Durability = "full"
    """full: "enqueued" survives a loss of power. normal: it survives a crash of every process."""
    processes: int | None = None
    """Worker processes under one supervisor; None is one for each core, 0 runs jobs in the supervisor itself."""
    concurrency: int = 20
    """Slots of one worker process."""
    queues: tuple[str, ...] = ()
    """Queues that a worker serves, each "name" or "name:weight"; empty: all that the application's tasks name."""
    stop_timeout: float = 30.0
    """How long running jobs may go on after the first SIGTERM."""
    stall_timeout: float | None = None
    """Kill a worker that has not answered for this long; None: only when finished outcomes stay unsettled."""
    keep_completed: float | None = 7 * 86_400.0
    """How long ended jobs stay in the store; None keeps them."""
    keep_cancelled: float | None = 7 * 86_400.0
    keep_expired: float | None = 7 * 86_400.0
    keep_dead: float | None = 90 * 86_400.0
    log_format: LogFormat = "auto"
    """auto is text on a terminal, JSON lines elsewhere."""
    log_level: LogLevel = "info"

    def prune_rules(self) -> PruneRules:
        """The `keep_` settings as a store wants them."""
        kept = {name: getattr(self, f"keep_{name}") for name in ("completed", "cancelled", "expired", "dead")}
        rules: dict[str, Any] = {k: None if time is None else round(time * 1e6) for k, time in kept.items()}
        return PruneRules(**rules)


class SettingsArguments(TypedDict, total=False):
    """The settings as keyword arguments of `Windlass`."""

    outbox: str | None
    hold: Duration
    seconds_per_priority: Duration
    max_payload: int
    max_result: int
    max_depth: int
    enqueue_timeout: Duration
    durability: Durability
    processes: int | None
    concurrency: int
    queues: str | tuple[str, ...] | list[str]
    stop_timeout: Duration
    stall_timeout: Duration | None
    keep_completed: Duration | None
    keep_cancelled: Duration | None
    keep_expired: Duration | None
    keep_dead: Duration | None
    log_format: LogFormat
    log_level: LogLevel


def load(
    arguments: Mapping[str, Any], *, environ: Mapping[str, str] | None = None, directory: str | None = None
) -> Settings:
    """Merge the three sources into Settings; raises ConfigError that names the setting and where it came from.

    `directory` (default: the current one) and its parents are searched for the nearest pyproject.toml that has a
    table [tool.windlass].
    """
    found: dict[str, Any] = {}
    path, table = _project(directory or current_directory())
    for name, value in table.items():
        _known(name, f"[tool.windlass] of {path}")
        found[name] = checked(name, _anchored(name, value, path), f"[tool.windlass] of {path}")
    environ = os.environ if environ is None else environ
    for name in _READERS:
        variable = f"WINDLASS_{name.upper()}"
        if text := environ.get(variable, "").strip():  # set but empty is how many tools unset a variable
            found[name] = checked(name, None if text.lower() == "none" and name in _OPTIONAL else text, variable)
    for name, value in arguments.items():
        _known(name, "the arguments of Windlass()")
        found[name] = checked(name, value, "the arguments of Windlass()")
    return Settings(**found)


def checked(name: str, value: Any, origin: str) -> Any:
    """The value of one setting, as it is kept; raises ConfigError that names it and `origin`."""
    try:
        return _READERS[name](value, name)
    except ValueError as error:
        raise ConfigError(f"{error} (from {origin})") from None


def parse_queues(value: Any, name: str) -> list[tuple[str, int | None]]:
    """[(queue, weight or None)] from "a,b:3" or a list of such parts; empty parts count for nothing.

    Raises ValueError that names `name`, for what is no queue's name, a weight that is not 1..1000, and a queue that is
    named twice.
    """
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f'{name}: {value!r} must be a list of names, or "a,b:3"')
    found: dict[str, int | None] = {}
    for part in (each.strip() for each in parts if each.strip()):
        queue, colon, weight = part.rpartition(":")
        queue = valid_queue(queue if colon else part, name)
        if colon and not (weight.isdecimal() and 0 < int(weight) <= WEIGHT_MOST):
            raise ValueError(f"{name}: {part!r}: a weight must be a whole number, 1..{WEIGHT_MOST}")
        if queue in found:
            raise ValueError(f"{name}: {queue!r} is named twice")
        found[queue] = int(weight) if colon else None
    return list(found.items())


def named_queues(text: str, name: str) -> list[tuple[str, int | None]]:
    """`parse_queues` of what somebody typed; raises ConfigError, also where that names none."""
    try:
        found = parse_queues(text, name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not found:
        raise ConfigError(f'{name}: {text!r} names no queue; write "a,b:3", or leave it out for all')
    return found


def served_queues(
    named_here: str | None, settings: Settings, of_tasks: Sequence[str]
) -> tuple[list[tuple[str, float | None]], bool]:
    """[(queue, weight or None)] from the command line, the settings, or what the tasks name; and whether their order is
    strict: somebody wrote it down, and no weight. Raises ConfigError."""
    written = named_queues(named_here, "queues") if named_here is not None else None
    found = written or parse_queues(settings.queues or of_tasks, "queues")
    given = bool(written or settings.queues)
    return [*found], given and all(weight is None for _, weight in found)


def current_directory() -> str:
    """Where this process is; raises ConfigError where that has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the current directory does not exist any more; change to one that does") from None


def located(url: str) -> str:
    """Where the store of that URL lies, as it may be shown: the whole path of an SQLite file, which a relative URL
    names only together with the current directory; of any other the URL, its password replaced."""
    scheme, _, path = url.partition("://")
    return os.path.realpath(path[1:]) if scheme.startswith("sqlite") and path[1:] else redacted(url)


def _project(directory: str) -> tuple[str, dict[str, Any]]:
    """The nearest pyproject.toml with our table, and that table."""
    while True:
        path = os.path.join(directory, "pyproject.toml")
        if os.path.isfile(path):
            table = _table(path)
            if table is not None:
                return path, table
        parent = os.path.dirname(directory)
        if parent == directory:
            return "", {}
        directory = parent


def _table(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:  # not ours to read: then it is not ours
        return None
    if b"windlass" not in content:  # most projects; parsing would cost milliseconds at every start
        return None
    import tomllib

    try:
        tools = tomllib.loads(content.decode()).get("tool", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    if not isinstance(tools, dict):
        raise ConfigError(f"[tool] of {path} must be a table")
    table = tools.get("windlass")
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"[tool.windlass] of {path} must be a table")
    return table


def _anchored(name: str, value: Any, path: str) -> Any:
    """A relative SQLite file in pyproject.toml lies beside it, wherever in the project a command is started."""
    known = name in ("url", "outbox") and isinstance(value, str)
    scheme, mark, rest = value.partition(":///") if known else ("", "", "")
    if not scheme.startswith("sqlite") or not rest or rest.startswith(("/", ":")):
        return value
    return f"{scheme}{mark}{os.path.join(os.path.dirname(path), rest)}"


def _known(name: str, origin: str) -> None:
    if name not in _READERS:
        raise ConfigError(f"{name} (from {origin}) is no setting; there are: {', '.join(sorted(_READERS))}")


def _url(value: Any, name: str) -> str:
    text = value.strip() if isinstance(value, str) else value
    if not isinstance(text, str) or "://" not in text:
        # What is meant for a server's client may have a password in it.
        shown = "it" if isinstance(text, str) and ("@" in text or "password" in text.lower()) else repr(text)
        raise ValueError(f'{name}: {shown} is no store URL; write for instance "sqlite:///jobs.db" or "memory://"')
    if problem := problem_of(text):
        raise ValueError(f"{name}: {problem}")
    return text


def _outbox(value: Any, name: str) -> str:
    text = _url(value, name)
    if text.partition(":")[0] not in OUTBOXES:
        known = " or ".join(f"{each}://" for each in OUTBOXES)
        raise ValueError(f"{name}: it must be a store in a database, {known}")
    return text


def _whole(least: int, most: int) -> Callable[[Any, str], int]:
    def read(value: Any, name: str) -> int:
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = value
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
            raise ValueError(f"{name}: {value!r} must be a whole number, {least}..{most}")
        return number

    return read


def _time(least: float, most: float) -> Callable[[Any, str], float]:
    def read(value: Any, name: str) -> float:
        amount = seconds(value, name)
        if not least <= amount <= most:
            raise ValueError(f"{name}: {value!r} must be between {least:g} and {most:g} seconds")
        return amount

    return read


def _choice(choices: Any) -> Callable[[Any, str], str]:
    def read(value: Any, name: str) -> str:
        text = value.strip().lower() if isinstance(value, str) else value
        if text not in get_args(choices):
            raise ValueError(f"{name}: {value!r} must be one of {', '.join(get_args(choices))}")
        return str(text)

    return read


def _optional(read: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda value, name: None if value is None else read(value, name)


def _queues(value: Any, name: str) -> tuple[str, ...]:
    return tuple(queue if weight is None else f"{queue}:{weight}" for queue, weight in parse_queues(value, name))


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "url": _url,
    "outbox": _optional(_outbox),
    "hold": _time(0.1, 3_600),
    "seconds_per_priority": _time(0, 86_400),
    "max_payload": _whole(64, 64 * 1024 * 1024),
    "max_result": _whole(64, 64 * 1024 * 1024),
    "max_depth": _whole(1, 500),
    "enqueue_timeout": _time(0.01, 3_600),
    "durability": _choice(Durability),
    "processes": _optional(_whole(0, PROCESSES_MOST)),
    "concurrency": _whole(1, CONCURRENCY_MOST),
    "queues": _queues,
    "stop_timeout": _time(0, 86_400),
    "stall_timeout": _optional(_time(1, 86_400)),
    "keep_completed": _optional(_time(0, YEAR)),
    "keep_cancelled": _optional(_time(0, YEAR)),
    "keep_expired": _optional(_time(0, YEAR)),
    "keep_dead": _optional(_time(0, YEAR)),
    "log_format": _choice(LogFormat),
    "log_level": _choice(LogLevel),
}
_OPTIONAL = ("outbox", "processes", "stall_timeout", "keep_completed", "keep_cancelled", "keep_expired", "keep_dead")
"""For these, "none" in the environment says None."""
