"""A handler's own transaction: what it writes and the settle of its job are committed together, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from windlass.core.errors import OutcomeUnknown, StoreError, StoreTimeout, StoreUnavailable
from windlass.ports.plan import Plan, Statement, Steps
from windlass.stores.pool import Late, Lost
from windlass.stores.postgres.errors import Again
from windlass.stores.postgres.shell import Clock, Turn
from windlass.stores.postgres.statements import BEGIN, COMMIT, RELEASE, ROLLBACK, SAVEPOINT, Script
from windlass.stores.postgres.watched import Watched
from windlass.stores.postgres.wire import Wire

T = TypeVar("T")

ENDED = "the transaction that Windlass opened was ended by somebody else, or has failed; its end belongs to the worker"


class Session:
    """One open transaction on a connection of its own.

    A savepoint lies under all of it. Only the end of the transaction takes it away, so its absence shows that the
    handler ended the transaction, even where it began another one.
    """

    def __init__(
        self,
        wire: Wire,
        scripts: dict[str, Script],
        clock: Clock | None,
        timeout: float,
        glance: Callable[[Plan[Any]], Any],
        given_back: Callable[[], object],
    ) -> None:
        """`glance` runs a plan on another connection; None where that cannot be had."""
        self._wire = wire
        self._scripts = scripts
        self._clock = clock
        self._timeout = timeout
        self._given_back = given_back
        self._over = False
        wire.send(BEGIN)
        for part in scripts["take_your_time"].parts:
            wire.send(part)
        wire.send(SAVEPOINT)
        for part in scripts["backend"].parts:
            wire.send(part)
        [(pid, began)] = wire.exchange(time.monotonic() + timeout)
        self._backend = Backend(pid, began, glance)
        self.connection = Writer(Watched(wire.pg, self._backend.waits))

    def run(self, plan: Plan[T]) -> T:
        """Run `plan` inside the transaction."""
        if not self._wire.busy:
            raise StoreError(ENDED)
        turn = Turn(self._wire, self._scripts, self._clock, time.monotonic() + self._timeout)
        turn.lasting = True
        turn.be_quick()
        try:
            answer = turn.inside(plan)
            turn.flush()  # what fails now is the plan's failure; at the commit it would seem to be the handler's doing
            return answer
        except (Again, Late, Lost) as error:
            raise _told(error, plan.name) from error

    def commit(self) -> None:
        """Commit everything and give the connection back. Raises StoreError if the handler ended the transaction."""
        deadline = time.monotonic() + self._timeout
        wire = self._wire
        try:
            wire.send(RELEASE)
            for part in self._scripts["touch"].parts:
                wire.send(part)
            wire.send(COMMIT)
            wire.ending = True
            wire.exchange(deadline)
        except (Late, Lost) as error:
            if wire.ending:
                raise OutcomeUnknown(f"transaction: the answer to a commit was lost: {error}") from error
            raise _told(error, "transaction") from error
        except Again as error:
            raise _told(error, "transaction") from error
        except StoreUnavailable:
            raise
        except StoreError as error:
            raise StoreError(f"{ENDED}: {error}") from error
        finally:
            self.rollback()

    def rollback(self) -> None:
        """Undo what was not committed and give the connection back."""
        if self._over:
            return
        self._over = True
        wire = self._wire
        wire.forget()
        with suppress(StoreError, Again, Late, Lost):
            if not wire.lost and wire.busy:
                wire.send(ROLLBACK)
                wire.exchange(time.monotonic() + 1.0)
        heard = not wire.lost and not wire.busy
        wire.close()  # which rolls back as well, where the server hears of it
        if not heard:
            self._backend.end()
        self._given_back()


class Backend:
    """The server's end of one transaction, as it is seen from another connection."""

    def __init__(self, pid: int, began: int, glance: Callable[[Plan[Any]], Any]) -> None:
        self._who = (pid, began)
        self._glance = glance

    def waits(self) -> bool:
        """Whether it waits for its client, or is gone. While nobody can be asked, nobody knows."""
        return bool(self._glance(self._asking("backend_busy")) == [(0,)])

    def end(self) -> None:
        """Have it roll back, if it is still there: it keeps locks from whoever tries again, for as long as it pleases a
        proxy that has lost one side only."""
        self._glance(self._asking("backend_end"))

    def _asking(self, name: str) -> Plan[Any]:
        def steps() -> Steps[Any]:
            return (yield Statement(name, self._who))

        return Plan(steps, name, write=False)


class Writer:
    """The connection as a handler is given it; `psycopg` is psycopg's own, for what needs one."""

    def __init__(self, connection: Any) -> None:
        self.psycopg = connection

    @property
    def in_transaction(self) -> bool:
        """Whether the transaction is still open."""
        return bool(self.psycopg.info.transaction_status)

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        """Run one statement and return its cursor."""
        return self.psycopg.execute(sql, parameters or None)

    def executemany(self, sql: str, parameters: Sequence[Any]) -> Any:
        """Run one statement once per row of parameters."""
        cursor = self.psycopg.cursor()
        cursor.executemany(sql, parameters)
        return cursor


def _told(error: Exception, name: str) -> StoreError:
    if isinstance(error, Late):
        return StoreTimeout(f"{name}: {error}; nothing was applied")
    return StoreUnavailable(f"{name}: {error}; nothing was applied")
