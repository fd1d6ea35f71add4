"""Structured logs: one event per line on standard error, JSON for machines, `key=value` for a person at a terminal.

Control characters are escaped, so that what a job logs can neither forge a line nor drive a terminal; passwords in
URLs are replaced.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any

from windlass.runtime.log_writer import LogWriter

_PASSWORD = re.compile(r"(\w://[^\s:/@]*:)[^\s@]+@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN = re.compile(r"[\w./:+@%-]+")


class Log:
    """A logger whose methods take the event first and its facts by name."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"windlass.{name}")

    def debug(self, event: str, **facts: Any) -> None:
        """For developers of Windlass."""
        self._say(logging.DEBUG, event, facts)

    def info(self, event: str, **facts: Any) -> None:
        """What happened, in the ordinary course of things."""
        self._say(logging.INFO, event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """What somebody should look at when there is time."""
        self._say(logging.WARNING, event, facts)

    def error(self, event: str, **facts: Any) -> None:
        """What somebody should look at now."""
        self._say(logging.ERROR, event, facts)

    def _say(self, level: int, event: str, facts: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", event, extra={"facts": facts}, stacklevel=3)


class JsonFormatter(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {"at": _instant(record.created), "level": record.levelname.lower()}
        line |= {"logger": record.name, "event": record.getMessage(), "process": record.process}
        line |= _facts(record)
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return scrub(json.dumps(line, default=str, ensure_ascii=True))


class PlainFormatter(logging.Formatter):
    """One readable line per record, its facts behind it; a fact called `trace` is lines below it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line; a traceback keeps its own lines, indented."""
        told = _facts(record)
        trace = str(told.pop("trace", "")).splitlines()
        facts = "".join(f" {name}={_quoted(value)}" for name, value in told.items())
        at = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        name = record.name.removeprefix("windlass.")
        text = f"{at} {record.levelname.lower():<7} {name:<10} {_escaped(record.getMessage())}{facts}"
        if record.exc_info:
            trace += self.formatException(record.exc_info).splitlines()
        return scrub(text + "".join(f"\n    {_escaped(line)}" for line in trace))


def setup(level: str = "info", *, as_json: bool | None = None, aside: bool = False) -> None:
    """Send the logs of Windlass to standard error; JSON unless that is a terminal, or as told. Leaves other loggers
    alone, and does nothing where the application has given the logger "windlass" handlers of its own.

    `aside`: another thread writes, for a process that must not stop where nobody reads its standard error.
    """
    logger = logging.getLogger("windlass")
    if logger.handlers:
        return
    handler = LogWriter(sys.stderr) if aside else logging.StreamHandler(sys.stderr)
    machine = not sys.stderr.isatty() if as_json is None else as_json
    handler.setFormatter(JsonFormatter() if machine else PlainFormatter())
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False


def flush() -> None:
    """Have what was said written, in two seconds at most."""
    for handler in logging.getLogger("windlass").handlers:
        handler.flush()


def scrub(text: str) -> str:
    """Replace the password of every URL in `text`."""
    return _PASSWORD.sub(r"\1***@", text)


_ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"facts", "message", "asctime", "taskName"}


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """What was said beside the event: by a Log, or by `extra=` of the standard library."""
    extra = {name: value for name, value in vars(record).items() if name not in _ORDINARY}
    return extra | getattr(record, "facts", {})


def _instant(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e6):06d}Z"


def _quoted(value: Any) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else _escaped(json.dumps(text, ensure_ascii=False))


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)
