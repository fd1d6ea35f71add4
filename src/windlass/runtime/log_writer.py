"""Log lines of a thread that may wait for nothing: another thread writes them, and loses some rather than wait."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from typing import IO

LINES_MOST = 10_000
SIZE_MOST = 1 << 20
"""Characters that wait for whoever reads standard error. Past either bound lines are dropped, and counted."""
LAST_LINES = 2.0
"""Seconds that the end of the process waits for them."""


class LogWriter(logging.Handler):
    """A handler that returns at once, however full the pipe behind its stream is; the order of lines stays."""

    def __init__(self, stream: IO[str]) -> None:
        """Write to `stream`: to its descriptor if it has one, since a stream that is blocked holds its lock."""
        super().__init__()
        self._stream = stream
        try:
            self._fd = stream.fileno()
        except (OSError, ValueError):  # one in memory
            self._fd = -1
        self._lines: deque[str] = deque()
        self._size = 0
        self._dropped = 0
        self._patience = LAST_LINES
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if self._lines and (len(self._lines) >= LINES_MOST or self._size + len(line) > SIZE_MOST):
                self._dropped += 1
                return
            self._own_up()
            self._keep(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="windlass-logs", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written, for two seconds at most. The interpreter calls it once more at its end."""
        with self._changed:
            self._own_up()
            if not self._changed.wait_for(lambda: not self._lines, self._patience):
                self._patience = 0.0  # nobody reads: not twice

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines[0]
            self._write(line + "\n")
            with self._changed:
                self._size -= len(self._lines.popleft())
                if not self._lines:
                    self._own_up()
                self._changed.notify_all()

    def _keep(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line)

    def _own_up(self) -> None:
        """Say, in their place, how many lines are missing."""
        if self._dropped:
            text = "log lines were dropped, since nobody read standard error"
            told = {"name": "windlass.logs", "levelno": logging.WARNING, "levelname": "WARNING", "msg": text}
            self._keep(self.format(logging.makeLogRecord({**told, "facts": {"lines": self._dropped}})))
            self._dropped = 0

    def _write(self, text: str) -> None:
        """Wherever it goes: a stream that cannot be written to is no reason to stop anything."""
        try:
            if self._fd < 0:
                self._stream.write(text)
                return
            left = text.encode(errors="backslashreplace")
            while left:
                try:
                    left = left[os.write(self._fd, left) :]
                except BlockingIOError:  # somebody who shares it made it so
                    select.select([], [self._fd], [], 1.0)
        except (OSError, ValueError):
            return
