"""One connection to a server: a command out, an answer in, until a deadline."""

from __future__ import annotations

import select
import time
from contextlib import suppress
from typing import Any

import redis
from hiredis import pack_command

from windlass.stores.pool import Late, Lost

Answer = Any


def packed(*pieces: str | int | bytes) -> bytes:
    """A command as the server reads it."""
    return pack_command(pieces)  # type: ignore[no-any-return,arg-type]


class Wire:
    """See above. Of redis-py it is the connection alone: its clients have time-outs and retries of their own."""

    def __init__(self, connection: redis.connection.AbstractConnection) -> None:
        """A connection that was made."""
        self._connection = connection
        self.lost = self.busy = False
        self.ending = False
        self.confirmed = False
        """Whether what it answers is on disk already."""
        self.ahead = 0
        """Microseconds by which the server's clock is ahead of the monotonic one here."""

    def set_clock(self, deadline: float) -> None:
        """Ask the server for its time."""
        began = time.monotonic()
        seconds, micros = self.ask(packed("TIME"), deadline)
        self.ahead = int(seconds) * 1_000_000 + int(micros) - round(began * 1e6)

    def ask(self, command: bytes, deadline: float) -> Answer:
        """The answer to a packed command. Raises what the server says, as redis.exceptions.ResponseError; Lost, and
        Late, after which the connection is of no use."""
        self.busy = True
        try:
            self.send(command)
            answer = self.heard(deadline)
        except redis.exceptions.ResponseError:
            self.busy = False
            raise
        self.busy = False
        return answer

    def send(self, command: bytes) -> None:
        """Say something without waiting for an answer. Raises Lost and Late."""
        try:
            self._connection.send_packed_command([command], check_health=False)  # type: ignore[no-untyped-call]
        except redis.exceptions.TimeoutError:
            self.lost = True
            raise Late from None
        except redis.exceptions.ConnectionError as error:
            self.lost = True
            raise Lost(str(error)) from None

    def heard(self, deadline: float) -> Answer:
        """The next that the server says."""
        try:
            if not self._connection.can_read(max(0.0, deadline - time.monotonic())):
                raise Late
            return self._connection.read_response(disable_decoding=True)
        except redis.exceptions.ResponseError:
            raise
        except (redis.exceptions.TimeoutError, Late):
            self.lost = True
            raise Late from None
        except (redis.exceptions.ConnectionError, OSError) as error:
            self.lost = True
            raise Lost(str(error)) from None

    def stale(self) -> bool:
        """Whether the server has hung up, or says what nobody asked for: nothing was begun on it."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def exchange(self, deadline: float) -> None:
        """See stores.pool.Wire."""
        self.ask(packed("PING"), deadline)

    def fileno(self) -> int:
        """Of the socket, for which redis-py has no other word."""
        socket: Any = self._connection._sock  # noqa: SLF001
        number: int = socket.fileno()
        return number

    def close(self) -> None:
        """See stores.pool.Wire."""
        self.lost = True
        with suppress(Exception):
            self._connection.disconnect()  # type: ignore[no-untyped-call]
