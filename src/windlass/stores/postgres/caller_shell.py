"""Plans inside a transaction of the caller's own, on a psycopg connection, blocking or async."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from windlass.core.errors import StoreError, StoreTimeout, StoreUnavailable
from windlass.ports.plan import Plan
from windlass.stores.pool import Late, Lost
from windlass.stores.postgres.errors import Again
from windlass.stores.postgres.hints import HintListener
from windlass.stores.postgres.shell import Shell
from windlass.stores.postgres.statements import BACK, COMMIT, RELEASE, ROLLBACK, SAVEPOINT, Part
from windlass.stores.postgres.wire import Wire

T = TypeVar("T")

WAITS = Part(
    b"",
    b"SELECT current_setting('lock_timeout'), current_setting('transaction_isolation'),"
    b" extract(epoch FROM clock_timestamp() - now())::bigint",
    (),
)
SNAPSHOT_MOST = 50
"""Seconds for which a transaction may go by one snapshot. In an older one a job that moves to another part of its table
would be in neither, and be stored a second time; see SETTLED in parts.py."""
WAITS_AGAIN = Part(b"", b"SELECT set_config('lock_timeout', $1, true)", (0,))


def check_snapshot(plan: str, isolation: str, age: int) -> None:
    """Raises StoreError for a transaction that goes by a snapshot which is too old."""
    if isolation != "read committed" and int(age) > SNAPSHOT_MOST:
        raise StoreError(f"{plan}: a transaction under {isolation} must be younger than {SNAPSHOT_MOST} s, not {age} s")


def _beginning(connection: Any) -> Part:
    """What psycopg itself would begin a transaction with, as it was told by the application."""
    words = [b"BEGIN"]
    if connection.isolation_level is not None:
        words.append(b"ISOLATION LEVEL " + connection.isolation_level.name.replace("_", " ").encode())
    if connection.read_only is not None:
        words.append(b"READ ONLY" if connection.read_only else b"READ WRITE")
    if connection.deferrable is not None:
        words.append(b"DEFERRABLE" if connection.deferrable else b"NOT DEFERRABLE")
    return Part(b"", b" ".join(words), ())


class CallerShell:
    """A narrower shell: no begin that the connection would not make itself, no commit, no restart; a savepoint."""

    def __init__(self, shell: Shell, connection: Any, wire: Wire) -> None:
        self._shell = shell
        self._connection = connection
        self._wire = wire

    @property
    def begun(self) -> bool:
        """Whether a transaction is open on the caller's connection."""
        return self._wire.busy

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """Run `plan` under a savepoint of the caller's transaction; the caller commits.

        On a connection in autocommit with no transaction open, it is a transaction of its own, and is committed here.
        """
        with self._connection.lock:
            return self._run(plan, timeout)

    def _run(self, plan: Plan[T], timeout: float | None) -> T:
        self._shell.check()
        deadline = time.monotonic() + (self._shell.timeout if timeout is None else timeout)
        try:
            return self._under_savepoint(plan, deadline)
        except Again as error:
            raise StoreUnavailable(
                f"{plan.name}: another transaction was in the way ({error}); roll yours back and begin it again"
            ) from error
        except Late as error:
            self._wire.close()
            raise StoreTimeout(f"{plan.name}: {error}; the connection was closed, and nothing was applied") from error
        except Lost as error:
            raise StoreUnavailable(f"{plan.name}: {error}; nothing was applied") from error

    def _under_savepoint(self, plan: Plan[T], deadline: float) -> T:
        wire = self._wire
        opened = wire.busy
        if not opened:
            wire.send(_beginning(self._connection))
        wire.send(SAVEPOINT)
        wire.send(WAITS)
        waits, isolation, age = wire.exchange(deadline)[0]
        turn = self._shell.turn(wire, deadline)
        try:
            check_snapshot(plan.name, isolation, age)
            turn.wait_at_most()
            answer = turn.inside(plan)
            turn.touch(self._shell.channel if plan.hint else None)
            if not turn.wrote:  # what it has looked at, as a key that is another's, is in nobody's way until the commit
                wire.send(BACK)
            wire.send(WAITS_AGAIN, (waits,))
            wire.send(RELEASE)
            if not opened and self._connection.autocommit:
                wire.send(COMMIT)
            wire.exchange(deadline)
        except (Late, Lost):
            raise
        except BaseException:
            self._undo(opened)
            raise
        return answer

    def _undo(self, opened: bool) -> None:
        self._wire.forget()
        with suppress(StoreError, Again, Late, Lost):
            if opened:
                self._wire.send(BACK)
                self._wire.send(RELEASE)
            else:
                self._wire.send(ROLLBACK)
            self._wire.exchange(time.monotonic() + 1.0)

    def changed(self) -> int:
        """As the store's own shell."""
        return self._shell.changed()

    def hint(self) -> None:
        """As the store's own shell; worth sending only after the caller's commit."""
        self._shell.hint()

    def listen(self) -> HintListener:
        """As the store's own shell."""
        return self._shell.listen()

    def close(self) -> None:
        """Nothing to do: the connection is the caller's."""


class AsyncCallerShell(CallerShell):
    """The same on a psycopg AsyncConnection: a plan is one hop to a thread, and nobody else uses the connection
    meanwhile, for it is locked."""

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """An event loop must not be stopped for as long as a lock takes."""
        raise StoreError("this connection belongs to an event loop: use aenqueue inside app.transaction")

    async def arun(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See CallerShell.run. Once begun it is finished, though its caller be cancelled."""
        return await asyncio.shield(self._locked(lambda: self._run(plan, timeout)))

    async def _locked(self, work: Callable[[], T]) -> T:
        async with self._connection.lock:
            return await asyncio.to_thread(work)
