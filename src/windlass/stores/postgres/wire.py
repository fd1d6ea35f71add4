"""One connection to PostgreSQL: statements are queued, and go to the server together when an answer is wanted.

This is libpq's pipeline mode, by way of `psycopg.pq`, with a deadline on every wait: what a server that is frozen, or a
route that swallows packets, cannot do is keep a caller for ever. All values travel as text.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import pq

from windlass.core.errors import CapabilityMissing, StoreError
from windlass.ports.plan import Rows
from windlass.stores.pool import Late, Lost
from windlass.stores.postgres.errors import translate
from windlass.stores.postgres.statements import Part

ENOUGH = 500
"""Statements queued, after which it is time to see what becomes of them."""

_OK = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK})
_ERROR = pq.ExecStatus.FATAL_ERROR
_SYNC = pq.ExecStatus.PIPELINE_SYNC
_SQLSTATE = pq.DiagnosticField.SQLSTATE
_SEVERITY = pq.DiagnosticField.SEVERITY_NONLOCALIZED
_FATAL = {b"FATAL", b"PANIC"}
"""The server has ended the connection."""
_MESSAGE = pq.DiagnosticField.MESSAGE_PRIMARY


def _truth(value: bytes) -> bool:
    return value == b"t"


_DECODE: dict[int, Callable[[bytes], Any]] = {16: _truth, 20: int, 21: int, 23: int}
"""By the number of the type: boolean, and the whole numbers. Everything else is text."""


class Wire:
    """See above. Used by one thread at a time."""

    def __init__(self, connection: pq.abc.PGconn, *, prepares: bool) -> None:
        """`prepares`: whether the server will still know what it was told when the next transaction comes."""
        self.pg = connection
        self._prepares = prepares
        self._prepared: set[bytes] = set()
        self._queued: list[tuple[Part, list[bytes | None]]] = []
        self._poll = select.poll()
        self._poll.register(connection.socket, select.POLLIN)
        self._before: pq.abc.PGresult | None = None
        self.changes = 0
        """Rows that were written so far."""
        self.ending = False
        """The end of the transaction was sent, and nobody knows yet whether it was heard."""

    @property
    def lost(self) -> bool:
        """Whether the connection is of no use any more."""
        return self.pg.status != pq.ConnStatus.OK

    @property
    def busy(self) -> bool:
        """Whether a transaction is open, or the server would not say."""
        return self.pg.transaction_status != pq.TransactionStatus.IDLE

    def stale(self) -> bool:
        """See stores.pool.Wire. Not asked here: who begins on a connection that was ended begins anew on another."""
        return False

    def send(self, part: Part, params: Sequence[Any] = ()) -> None:
        """Queue a statement with the parameters of its script."""
        self._queued.append((part, [_encode(params[place]) for place in part.uses]))

    @property
    def full(self) -> bool:
        """Whether it is time for an exchange."""
        return len(self._queued) >= ENOUGH

    def forget(self) -> None:
        """Drop what was queued and not sent."""
        self._queued.clear()

    def exchange(self, deadline: float) -> Rows:
        """Send what is queued and answer the rows of the last statement. Raises what the first one that failed was
        about (those after it were not run), Lost, or Late, after which the connection is of no use."""
        queued, self._queued = self._queued, []
        try:
            self.pg.enter_pipeline_mode()
            expected = self._put(queued)
            self.pg.pipeline_sync()
            self._flush(deadline)
            rows, error = self._take(expected, deadline)
            self.pg.exit_pipeline_mode()
        except psycopg.Error as failure:
            raise Lost(f"the connection to the server was lost: {failure}".strip()) from failure
        if error is not None:
            raise error
        return rows

    def before(self) -> Rows:
        """In the last exchange, the rows of the statement before the last one."""
        return rows_of(self._before) if self._before is not None else []

    def _put(self, queued: Sequence[tuple[Part, list[bytes | None]]]) -> list[bytes | None]:
        """Hand statements to the library; answers, for each result to come, the name that it prepares."""
        expected: list[bytes | None] = []
        new: set[bytes] = set()
        for part, params in queued:
            if not self._prepares or not part.name:
                self.pg.send_query_params(part.sql, params)
            else:
                if part.name not in self._prepared and part.name not in new:
                    self.pg.send_prepare(part.name, part.sql)
                    expected.append(part.name)
                    new.add(part.name)
                self.pg.send_query_prepared(part.name, params)
            expected.append(None)
        return expected

    def _flush(self, deadline: float) -> None:
        while self.pg.flush():
            # What the server answers meanwhile has to be read, or neither side would get on.
            self._wait(select.POLLIN | select.POLLOUT, deadline)
            self.pg.consume_input()

    def _take(self, expected: Sequence[bytes | None], deadline: float) -> tuple[Rows, Exception | None]:
        last: pq.abc.PGresult | None = None
        error: Exception | None = None
        place = 0
        while True:
            result = self._result(deadline)
            if result is None:  # the end of one statement's answer
                if self.lost:
                    raise Lost("the connection to the server was lost")
                continue
            status = result.status
            if status in _OK:
                name = expected[place]
                if name is not None:
                    self._prepared.add(name)
                else:
                    self._before, last = last, result
                    self.changes += result.command_tuples or 0
            elif status == _SYNC:
                return (rows_of(last) if last is not None and error is None else []), error
            elif status == _ERROR:
                error = error or self._failure(result, at_end=place == len(expected) - 1)
            place += 1

    def _failure(self, result: pq.abc.PGresult, *, at_end: bool) -> Exception:
        state = result.error_field(_SQLSTATE)
        message = (result.error_field(_MESSAGE) or b"").decode("utf-8", "replace")
        if state is None or result.error_field(_SEVERITY) in _FATAL:
            raise Lost(message or result.get_error_message().strip())
        if not at_end:
            self.ending = False  # the server passes by what comes after a failure
        return translate(state.decode(), message)

    def _result(self, deadline: float) -> pq.abc.PGresult | None:
        while self.pg.is_busy():
            self._wait(select.POLLIN, deadline)
            self.pg.consume_input()
        return self.pg.get_result()

    def _wait(self, events: int, deadline: float) -> None:
        self._poll.modify(self.pg.socket, events)
        left = deadline - time.monotonic()
        if left <= 0 or not self._poll.poll(left * 1_000):
            raise Late("the server did not answer before the deadline")

    def fileno(self) -> int:
        """What becomes readable when the server says something."""
        return self.pg.socket

    def notified(self) -> bool:
        """Read what the server has said by itself; whether there was a notification. Raises Lost."""
        try:
            self.pg.consume_input()
            said = False
            while self.pg.notifies() is not None:
                said = True
        except psycopg.Error as failure:
            raise Lost(str(failure)) from failure
        if self.lost:
            raise Lost("the connection to the server was lost")
        return said

    def close(self) -> None:
        """Close the connection, whatever became of it; what was not committed never will be."""
        self.pg.finish()


def joined(connection: Any) -> tuple[Wire, bool] | None:
    """A wire over a connection of the caller's, and whether it belongs to an event loop; None if it is none of
    psycopg's. Raises CapabilityMissing for one that cannot be joined."""
    if not isinstance(connection, psycopg.Connection | psycopg.AsyncConnection):
        return None
    pg = connection.pgconn
    if pg.status != pq.ConnStatus.OK:
        raise CapabilityMissing("caller_transaction: the connection is closed")
    if pg.pipeline_status != pq.PipelineStatus.OFF:
        raise CapabilityMissing("caller_transaction: the connection is in pipeline mode; leave it first")
    if pg.parameter_status(b"client_encoding") != b"UTF8":
        raise CapabilityMissing("caller_transaction: the connection's client_encoding must be UTF8")
    return Wire(pg, prepares=False), isinstance(connection, psycopg.AsyncConnection)


def innermost(connection: Any) -> Any:
    """Behind a Session or a Connection of SQLAlchemy's, or Django's `connection`, the driver's own. All are told by
    what they have, so that neither has to be installed."""
    session = getattr(connection, "sync_session", connection)  # SQLAlchemy's AsyncSession
    session = getattr(session, "sync_connection", session)  # and its AsyncConnection
    if hasattr(session, "get_bind") and callable(getattr(session, "connection", None)):
        session = _begun(session)
    if hasattr(session, "begin_nested"):
        if not session.in_transaction():
            session.begin()
        return session.connection.driver_connection
    if hasattr(session, "ensure_connection"):  # Django's
        session.ensure_connection()
        return session.connection
    return session


def _begun(session: Any) -> Any:
    """The connection of a Session of SQLAlchemy's, which begins here what it will commit."""
    try:
        return session.connection()
    except Exception as error:
        if type(error).__name__ != "MissingGreenlet":
            raise
        raise CapabilityMissing(
            "caller_transaction: this AsyncSession, or its savepoint, has not begun: `await session.connection()` first"
        ) from error


def rows_of(result: pq.abc.PGresult) -> Rows:
    """The rows of a result, as Python has them."""
    count = result.ntuples
    if not count:
        return []
    columns = [(n, _DECODE.get(result.ftype(n), bytes.decode)) for n in range(result.nfields)]
    get = result.get_value
    return [
        tuple(None if (value := get(row, n)) is None else decode(value) for n, decode in columns)
        for row in range(count)
    ]


def _encode(value: Any) -> bytes | None:
    if isinstance(value, str):
        if "\0" in value:
            raise StoreError("PostgreSQL stores no text with a NUL in it")
        return value.encode()
    if value is None:
        return None
    if isinstance(value, bool):
        return b"1" if value else b"0"
    return str(value).encode()
