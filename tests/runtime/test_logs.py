"""Log lines: one event each, readable by machine and man, whatever is in them."""

from __future__ import annotations

import json
import logging

import pytest

from windlass.runtime import logs


def record(event: str, *, error: bool = False, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "windlass.test", "levelname": "INFO", "msg": event, **extra})
    if error:
        try:
            raise ValueError("bad\x1b[31m")
        except ValueError as problem:
            made.exc_info = (ValueError, problem, problem.__traceback__)
    return made


NASTY = 'a "quoted"\nline\x1b[31m and \u2028more \x85'


@pytest.mark.parametrize("error", [False, True])
def test_json_is_one_object_a_line(error: bool) -> None:
    text = logs.JsonFormatter().format(record(NASTY, error=error, facts={"job": "x", "path": NASTY}))
    assert "\n" not in text
    assert text.isascii()
    line = json.loads(text)
    assert (line["event"], line["job"], line["path"], line["level"]) == (NASTY, "x", NASTY, "info")


def test_text_cannot_forge_a_line_or_drive_a_terminal() -> None:
    text = logs.PlainFormatter().format(record(NASTY, facts={"path": NASTY, "n": 3}))
    assert not [c for c in text if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029"]
    assert "n=3" in text
    trace = logs.PlainFormatter().format(record("failed", error=True)).splitlines()
    assert all(line.startswith("    ") for line in trace[1:])
    assert "\x1b" not in "".join(trace)


@pytest.mark.parametrize("formatter", [logs.JsonFormatter(), logs.PlainFormatter()])
def test_passwords_are_never_printed(formatter: logging.Formatter) -> None:
    text = formatter.format(record("cannot reach postgres://app:s3cr3t@db/jobs", facts={"url": "redis://:s3cr3t@r"}))
    assert "s3cr3t" not in text
    assert "***" in text


def test_extra_of_the_standard_library_is_shown() -> None:
    assert json.loads(logs.JsonFormatter().format(record("late", job="j-1")))["job"] == "j-1"


def test_an_application_with_handlers_of_its_own_keeps_them() -> None:
    logger = logging.getLogger("windlass")
    own = logging.NullHandler()
    logger.addHandler(own)
    before = (list(logger.handlers), logger.level, logger.propagate)
    try:
        logs.setup("debug")
        assert (logger.handlers, logger.level, logger.propagate) == before
    finally:
        logger.removeHandler(own)
