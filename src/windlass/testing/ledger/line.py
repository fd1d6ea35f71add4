"""Lines, and the files in which they stand. Instants are CLOCK_MONOTONIC, which all processes of a machine share."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec


class DamagedLedger(ValueError):
    """A folder without ledgers, or a line that is none; the message names the file and the line."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that an actor did or saw; the words of `what` are those of docs/guides/ledgers.md."""

    at: float
    actor: int
    """The process that wrote the line."""
    what: str
    job: str = ""
    fence: int = 0
    attempt: int = 0
    note: str = ""
    parent: int = 0
    """The process that had started the actor: of a worker, its supervisor."""
    task: str = ""
    state: str = ""
    limits: dict[str, int] = {}
    """How many jobs may run at once under each key that the job carries."""
    unique: str = ""
    """The key of which at most one job may run at a time."""
    alone: bool = False
    """At most one job with this unique key may wait or run: there is no successor."""
    schedule: str = ""
    tick: int = 0
    """Microseconds since 1970."""
    since: float = 0.0
    """When what is over at `at` had begun."""
    pids: tuple[int, ...] = ()
    """Whom a fault hit; the one process of a worker."""
    worker: str = ""
    """The id of a worker, as the store knows it."""
    kind: str = ""
    """kill, stop, term, disk or store."""
    created: int = 0
    ended: int = 0
    """Microseconds since 1970, by the store's clock."""
    step: int = 0
    result: int = 0
    """The fence that a job's result names: of a handler that returned `{"fence": ctx.token.fence}`."""


STEP = 1_000_000
"""Microseconds between two ticks of a schedule that does not say."""
TICKS_MOST = 1_000_000
LINE_MOST = 1 << 20
"""Bytes of one line: a file without any end must not be read whole."""

_decode = msgspec.json.Decoder(Line).decode


def write(
    directory: str, what: str, job: str = "", fence: int = 0, attempt: int = 0, note: str = "", **more: Any
) -> None:
    """One line, in one write, to this process's own file: a kill cannot tear it."""
    line = Line(time.monotonic(), os.getpid(), what, job, fence, attempt, note, os.getppid(), **more)
    append(os.path.join(directory, f"{os.getpid()}.jsonl"), [line])


def append(path: str, lines: list[Line]) -> None:
    """Add lines to a file, in one write."""
    # Opened each time: a handler may fork, or close every descriptor there is.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        while text:
            text = text[os.write(fd, text) :]
    finally:
        os.close(fd)


def files(directory: Path) -> list[Path]:
    """The ledgers in a folder. Raises DamagedLedger if it is no folder, or has none."""
    if not directory.is_dir():
        raise DamagedLedger(f"{directory} is no folder")
    found = sorted(directory.glob("*.jsonl"))
    if not found:
        raise DamagedLedger(f"{directory} has no ledgers: no file in it ends in .jsonl")
    return found


def lines(path: Path) -> Iterator[Line]:
    """The lines of one file as they come. Raises DamagedLedger."""
    with path.open("rb") as file:
        number = 0
        while text := file.readline(LINE_MOST):
            number += 1
            if not text.endswith(b"\n"):
                long = f"is longer than {LINE_MOST} bytes" if len(text) == LINE_MOST else "is cut off"
                raise DamagedLedger(f"{path}:{number}: the line {long}")
            try:
                line = _decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise DamagedLedger(f"{path}:{number}: {error}") from None
            if problem := _problem(line):
                raise DamagedLedger(f"{path}:{number}: {problem}")
            yield line


def _problem(line: Line) -> str:
    """What is wrong with a line that can be read, if anything is."""
    if line.what == "worker" and not line.pids:
        return "`pids`: a worker has one"
    span = line.ended - line.created
    if line.what == "schedule" and not (line.step >= 0 <= span <= TICKS_MOST * (line.step or STEP)):
        return f"`created`, `ended`, `step`: a schedule is looked at for 0 to {TICKS_MOST} steps"
    return ""


def read(directory: Path) -> list[Line]:
    """Every line of every actor, by time. Of a folder in which nobody has written yet: none."""
    found = [line for path in directory.glob("*.jsonl") for line in lines(path)]
    return sorted(found, key=lambda line: line.at)


def read_path(directory: str) -> list[Line]:
    """As `read`, for a handler that only has the name."""
    return read(Path(directory))
