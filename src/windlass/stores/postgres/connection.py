"""How connections are made: what they are told at their start, and within which time."""

from __future__ import annotations

import select
import time

import psycopg
from psycopg import conninfo, pq

from windlass.core.errors import ConfigError, StoreUnavailable
from windlass.stores.pool import Late
from windlass.stores.postgres.wire import Wire

SETTINGS = {
    # Compiling a statement takes longer than any of ours runs.
    "jit": "off",
    # Plans are made once and kept, some of them while a table is still empty. All our tables are read by their keys.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    # What serves a process that is gone without a word counts among the server's connections, for two hours and a
    # quarter as Linux has it; each time the network forgets us, all of ours would. Now it is a minute.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}

ALIVE = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3", "tcp_user_timeout": "60000"}
"""Our waits have deadlines, but not those of a handler's own statements in `ctx.transaction()`: where the network had
forgotten its connection it waited for two hours and a quarter, as Linux has it. Now it is a minute, while the server
cannot be asked; where it can, see Watched."""


class Connector:
    """Makes connections to one database."""

    def __init__(self, url: str, *, pooled: bool) -> None:
        """`pooled`: behind a pooler that gives each transaction another connection, nothing that is told to one lasts,
        and nothing may be told at its start."""
        self._pooled = pooled
        try:
            given = conninfo.conninfo_to_dict(url)
        except psycopg.Error as error:
            raise ConfigError(f"url: {error}".strip()) from None
        given.setdefault("application_name", "windlass")
        for name, value in ALIVE.items():
            given.setdefault(name, value)
        given["client_encoding"] = "UTF8"
        if not pooled:
            settings = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
            given["options"] = f"{settings} {given.get('options') or ''}".strip()
        self._info = conninfo.make_conninfo("", **given)

    def connect(self, deadline: float) -> Wire:
        """A new connection. Raises StoreUnavailable where there is none to be had, Late after the deadline."""
        try:
            connection = pq.PGconn.connect_start(self._info.encode())
            _finish(connection, deadline)
        except psycopg.Error as error:
            raise _unreached(str(error)) from error
        connection.nonblocking = 1
        connection.notice_handler = None
        return Wire(connection, prepares=not self._pooled)


def _finish(connection: pq.abc.PGconn, deadline: float) -> None:
    """Wait until the connection is made."""
    while True:
        if connection.status == pq.ConnStatus.BAD:
            raise _unreached(connection.get_error_message())
        step = connection.connect_poll()
        if step == pq.PollingStatus.OK:
            return
        if step == pq.PollingStatus.FAILED:
            raise _unreached(connection.get_error_message())
        poll = select.poll()
        poll.register(connection.socket, select.POLLIN if step == pq.PollingStatus.READING else select.POLLOUT)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1_000):
            raise Late("the server did not take the connection before the deadline")


def _unreached(problem: str) -> StoreUnavailable:
    """What libpq says in several lines, in one; and what is to be done, where that is known."""
    words = " ".join(problem.split())
    if "unsupported startup parameter" in words and "options" in words:
        words += "; behind PgBouncer, say pooler=transaction in the URL"
    return StoreUnavailable(f"the server cannot be reached: {words}")
