"""Log lines aside: whoever says something goes on at once, and what is lost is counted."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator

import pytest

from windlass.runtime import log_writer
from windlass.runtime.log_writer import LogWriter


def filled() -> tuple[int, int]:
    """A pipe that takes no byte more."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"-" * 65_536)
    except BlockingIOError:
        os.set_blocking(write, True)
    return read, write


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = filled()
    yield read, write
    os.close(read)


def say(writer: LogWriter, text: str) -> None:
    writer.handle(logging.makeLogRecord({"msg": text, "levelname": "INFO"}))


def rest(read: int, write: int) -> list[str]:
    """What stands behind the filling, once `write` is closed."""
    os.close(write)
    with os.fdopen(os.dup(read), "rb") as reader:
        return reader.read().lstrip(b"-").decode().splitlines()


def test_nobody_waits_for_a_full_pipe_and_the_order_stays(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "LINES_MOST", 3)
    monkeypatch.setattr(log_writer, "LAST_LINES", 5.0)
    read, write = pipe
    with os.fdopen(os.dup(write), "w") as stream:
        writer = LogWriter(stream)
        for number in range(10):
            say(writer, f"line {number}")
        os.read(read, 1 << 20)  # the reader reads again
        writer.flush()
        say(writer, "after")
        writer.flush()
    said = rest(read, write)
    assert said[:3] == ["line 0", "line 1", "line 2"]
    assert said[3:] == ["log lines were dropped, since nobody read standard error", "after"]


def test_a_flush_gives_up_and_does_so_once(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "LAST_LINES", 0.05)
    read, write = pipe
    with os.fdopen(os.dup(write), "w") as stream:
        writer = LogWriter(stream)
        say(writer, "first")
        writer.flush()
        assert writer._patience == 0.0
        writer.flush()
        os.read(read, 1 << 20)
        writer._patience = 5.0
        writer.flush()
    assert rest(read, write) == ["first"]


def test_a_stream_without_a_descriptor_will_do() -> None:
    stream = io.StringIO()
    writer = LogWriter(stream)
    say(writer, "one")
    say(writer, "two")
    writer.flush()
    assert stream.getvalue() == "one\ntwo\n"


def test_a_stream_that_is_gone_stops_nobody(pipe: tuple[int, int]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        writer = LogWriter(stream)
        say(writer, "to nobody")
        writer.flush()
        assert not writer._lines
    os.close(pipe[1])
