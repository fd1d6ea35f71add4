"""I/O for one PostgreSQL database: connections, transactions, and what becomes of those that fail."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from windlass.core.errors import OutcomeUnknown, SchemaError, StoreError, StoreTimeout, StoreUnavailable
from windlass.ports.plan import NOW, Plan, Rows, Statement, drive
from windlass.stores.pool import Late, Lost, Pool
from windlass.stores.postgres.errors import Again, Anew, Behind, Kept
from windlass.stores.postgres.hints import HintListener, Hints
from windlass.stores.postgres.statements import (
    BEGIN,
    BEGIN_READING,
    COMMIT,
    IDLE,
    NOTIFY,
    ROLLBACK,
    UNFLUSHED,
    Part,
    Script,
)
from windlass.stores.postgres.wire import Wire
from windlass.stores.sql.text import as_json

if TYPE_CHECKING:
    from windlass.stores.postgres.asyncpg_shell import AsyncpgShell
    from windlass.stores.postgres.session import Session

T = TypeVar("T")

Clock = Callable[[], int]

NEXT = {"enqueue": "queue_bounds"}
"""By the name of a plan, what it asks right after the clock, whatever that says: so both cost one way to the server and
back, and a single enqueue is two of them, not three."""
RAW = "raw"
"""The statement name that carries its own text: a migration's."""
ASIDE = "aside"
"""The same, for what can be part of no transaction: it is run on a connection of its own."""
SO_FAR = "so far"
"""Commit what was done so far, and go on in another transaction. Only for a plan that goes on where it was stopped."""
OWNERS_HOLD = "owners_hold"
"""What no transaction of somebody else's is to hold, however long it goes on: see queries.sql."""
RETRY_FIRST, RETRY_MOST = 0.001, 0.05
SERVERS_SHARE = 0.95
"""Of what is left until the deadline, how much the server may wait for a lock: so it is the one to give up, and the
connection stays good."""
PATIENCE = 100
"""Milliseconds for which the lock on all moves is waited for at a time."""
GLANCE = 1.0
"""Seconds that a glance waits for those of others, and for its answer on a connection that was idle."""
GOODBYE = 1.0
"""Seconds for a rollback, after which the connection is thrown away instead."""


class Shell:
    """Runs plans, each in one transaction, on a connection of its own per thread that is inside."""

    def __init__(
        self, pool: Pool[Wire], scripts: dict[str, Script], hints: Hints, clock: Clock | None, timeout: float
    ) -> None:
        """`clock` replaces the server's."""
        self._pool = pool
        pool.users += 1
        self._scripts = scripts
        self._hints = hints
        hints.notify = self.notify
        self._clock = clock
        self.timeout = timeout
        self._sessions = threading.Semaphore(pool.most)
        self._glancing = threading.Lock()
        self._closed = False
        self._pid = os.getpid()

    # --- plans -----------------------------------------------------------------------------------------------------

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See ports.store.Shell."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        wait = RETRY_FIRST
        broken = False
        while True:
            self.check()
            try:
                answer = self._once(plan, deadline)
            except (Lost, Anew) as error:
                # Nothing was committed. A server that was started anew, a network that forgot a connection, or a schema
                # that was changed since, is found out when the connection is used next: that is no reason to bother
                # anybody, unless it happens again.
                if broken:
                    raise StoreUnavailable(f"{plan.name}: {error}; nothing was applied") from error
                broken = True
            except Again as error:
                if time.monotonic() + wait > deadline:
                    raise StoreTimeout(
                        f"{plan.name}: other transactions were in the way until the deadline ({error}); nothing was "
                        "applied"
                    ) from error
                time.sleep(max(wait, error.wait) * (0.5 + random.random() / 2))
                wait = min(RETRY_MOST, wait * 2)
            else:
                if plan.hint:
                    # After the commit, and beside it: NOTIFY in the transaction would have all that notify flush one
                    # after the other.
                    self._hints.send()
                return answer

    def _once(self, plan: Plan[T], deadline: float) -> T:
        with self._pool.borrowed(deadline) as wire:
            turn = Turn(wire, self._scripts, self._clock, deadline, self._aside)
            try:
                return turn.run(plan)
            except Lost as error:
                self._pool.forget()
                if not wire.ending:
                    raise
                raise _told(error, plan.name, wire) from error
            except Late as error:
                self._pool.forget()
                raise _told(error, plan.name, wire) from error
            except Anew:
                self._pool.forget()
                wire.close()
                raise
            except UnicodeError as error:
                turn.undo()
                raise StoreError(f"{plan.name}: a value that cannot be stored: {error}") from error
            except BaseException:
                turn.undo()
                raise

    def _aside(self, sql: str, deadline: float) -> None:
        wire = self._pool.connect(deadline)
        try:
            wire.send(Part(b"", sql.encode(), ()))
            wire.exchange(deadline)
        except Again as error:  # two rows that a unique index cannot hold: no other transaction of a moment
            raise StoreError(str(error)) from error
        finally:
            wire.close()

    # --- connections -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises StoreError where this shell must not be used: once it was closed, and in a forked child (I28)."""
        if self._closed:
            raise StoreError("this store was closed")
        if os.getpid() != self._pid:
            raise StoreError(
                f"this store was opened by process {self._pid}; its connections must not be used in a forked child, "
                "which has to open the store anew"
            )

    def session(self, timeout: float | None = None) -> Session:
        """Open a transaction for a caller's own statements and ours: see Session."""
        from windlass.stores.postgres.session import Session

        self.check()
        wait = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + wait
        if not self._sessions.acquire(timeout=wait):
            raise StoreTimeout(f"{self._pool.most} transactions of other handlers were open here until the deadline")
        try:
            wire = self._pool.connect(deadline)
            try:
                return Session(wire, self._scripts, self._clock, wait, self._glance, self._sessions.release)
            except BaseException:
                wire.close()
                raise
        except (Late, Lost) as error:
            self._sessions.release()
            raise StoreUnavailable(f"transaction: {error}; nothing was applied") from error
        except BaseException:
            self._sessions.release()
            raise

    def _glance(self, plan: Plan[T]) -> T | None:
        """Run a plan that only looks at something, if that can be had. One at a time: handlers that wait for a server
        must not have all the connections by which the worker is to find out that it is back."""
        if not self._glancing.acquire(timeout=GLANCE):
            return None
        try:
            try:
                return self.run(plan, GLANCE)
            except StoreTimeout:  # what was idle may be as silent, and is thrown away now: once more on a new one
                return self.run(plan)
        except StoreError:
            return None
        finally:
            self._glancing.release()

    @property
    def pool(self) -> Pool[Wire]:
        """Where its connections come from."""
        return self._pool

    def spoken_by(self, connection: Any) -> AsyncpgShell:
        """A shell that speaks through a connection of asyncpg's."""
        from windlass.stores.postgres.asyncpg_shell import AsyncpgShell

        return AsyncpgShell(self, self._scripts, self._clock, connection)

    def turn(self, wire: Wire, deadline: float) -> Turn:
        """A transaction on a connection that is not of this shell's making."""
        turn = Turn(wire, self._scripts, self._clock, deadline)
        turn.lasting = True
        return turn

    @property
    def channel(self) -> str | None:
        """Where to notify from within somebody's transaction; None while that was done a moment ago. Transactions that
        notify are flushed one after the other, so only a few should."""
        return self._hints.channel if self._hints.may_notify_inside() else None

    # --- hints -----------------------------------------------------------------------------------------------------

    def changed(self) -> int:
        """See ports.store.Shell. The sequence moves just before a commit is seen, so a change counts twice: whoever
        looked too early looks once more."""
        self.check()
        deadline = time.monotonic() + self.timeout
        with self._pool.borrowed(deadline) as wire:
            for part in self._scripts["changed"].parts:
                wire.send(part)
            try:
                return self._hints.seen(int(wire.exchange(deadline)[0][0]))
            except Late as error:
                self._pool.forget()
                raise _told(error, "changed", wire) from error
            except (Again, Lost):  # it may well have; whoever asks again is told on another connection
                self._pool.forget()
                wire.close()
                return -1

    def hint(self) -> None:
        """See ports.store.Shell."""
        self._hints.send()

    def listen(self) -> HintListener:
        """See ports.store.Shell."""
        return self._hints.listen()

    def notify(self, channel: str) -> None:
        """Tell every listener of the database. Nobody waits for this to be flushed: a hint that is lost in a crash of
        the server is worth nothing after it."""
        deadline = time.monotonic() + self.timeout
        with self._pool.borrowed(deadline) as wire:
            wire.send(BEGIN)
            wire.send(UNFLUSHED)
            wire.send(NOTIFY, (channel,))
            wire.send(COMMIT)
            wire.exchange(deadline)

    def close(self) -> None:
        """See ports.store.Shell."""
        if self._closed or os.getpid() != self._pid:  # the connections are the parent's to close
            return
        self._closed = True
        self._hints.close()
        self._pool.leave()




class Turn:
    """One transaction on one connection."""

    def __init__(
        self,
        wire: Wire,
        scripts: dict[str, Script],
        clock: Clock | None,
        deadline: float,
        aside: Callable[[str, float], None] | None = None,
    ) -> None:
        """`aside` runs what can be part of no transaction; None where the transaction is somebody else's."""
        self._aside = aside
        self.lasting = False
        """It goes on for as long as somebody else likes."""
        self._plan = ""
        self._wire = wire
        self._scripts = scripts
        self._clock = clock
        self._deadline = deadline
        self._now: Rows | None = None
        self._alone = False
        self._next: dict[str, Rows] = {}
        self._wrote = False

    def run(self, plan: Plan[T]) -> T:
        """Begin, run the plan, commit."""
        self.begin(write=plan.write)
        answer = self.inside(plan)
        self.commit(write=plan.write)
        return answer

    def begin(self, *, write: bool) -> None:
        """Queue the beginning of a transaction."""
        if write:
            self._wire.send(BEGIN)
            self.be_quick()
        else:
            self._wire.send(BEGIN_READING)

    def commit(self, *, write: bool) -> None:
        """Commit what was begun."""
        wire = self._wire
        self.touch()
        wire.send(COMMIT)
        wire.ending = write
        wire.exchange(self._deadline)
        wire.ending = False

    def inside(self, plan: Plan[T]) -> T:
        """Run the plan in the transaction that is open."""
        self._plan = plan.name
        try:
            return drive(iter(plan), self.execute)
        except StoreTimeout as error:
            if self._alone:
                raise Kept(str(error)) from error
            raise

    @property
    def wrote(self) -> bool:
        """Whether anything was sent that changes something."""
        return self._wrote

    def flush(self) -> None:
        """Send what is queued, and see what becomes of it."""
        self._wire.exchange(self._deadline)

    def touch(self, channel: str | None = None) -> None:
        """If anything was written, say so to those who look; with a channel, to those who listen as well, once this is
        committed."""
        if self._wrote:
            self._send("touch")
            if channel is not None:
                self._wire.send(NOTIFY, (channel,))

    def be_quick(self) -> None:
        """From here on the transaction may hold what others wait for: it must not idle, nor wait past the deadline."""
        self._send("be_quick")
        self.wait_at_most()

    def wait_at_most(self) -> None:
        """Have the server give up waiting for a lock shortly before we give up waiting for it."""
        left = max(1, int((self._deadline - time.monotonic()) * 1_000 * SERVERS_SHARE))
        self._send("wait_at_most", (f"{left}ms",))

    def execute(self, statement: Statement) -> Rows:
        """Run one statement of a plan, or queue it where nobody waits for what it answers."""
        name, params, many = statement
        if statement is NOW:
            return self._clock_now()
        if name == "changes":
            self._wire.exchange(self._deadline)
            return [(self._wire.changes,)]
        if name == "moves_alone":
            return self._be_alone()
        if name in (SO_FAR, ASIDE):
            return self._beside(params)
        if name == OWNERS_HOLD and self.lasting:
            return []
        if name in self._next:
            return self._next.pop(name)
        if name == RAW:
            self._wire.send(Part(b"", params[0].encode(), ()))
            return self._wire.exchange(self._deadline)
        script = self._scripts[name]
        if many is not None and not many:
            return []
        self._wrote = self._wrote or script.writes
        if script.gathers:
            params, many = (as_json([params] if many is None else many),), None
        for row in (params,) if many is None else many:
            for part in script.parts:
                self._wire.send(part, row)
            if self._wire.full:
                self._wire.exchange(self._deadline)
        return self._wire.exchange(self._deadline) if many is None and script.answers else []

    def _beside(self, params: tuple[Any, ...]) -> Rows:
        if self._aside is None:
            raise in_a_transaction()
        if params:
            # A SET has no snapshot, and ends that of the statement before it, for which an index would wait.
            self._wire.send(IDLE)
            self._wire.exchange(self._deadline)
            self._aside(params[0], self._deadline)
            return []
        self._wire.send(COMMIT)
        self._wire.send(BEGIN)
        return self._wire.exchange(self._deadline)

    def _be_alone(self) -> Rows:
        """Wait for the lock for a moment only. One who stands in line for it has everybody who would share it stand
        behind; and whoever holds it may be a process that was stopped. Nor is anything waited for longer by who has it:
        a transaction of an application's may have a key in hand for an hour."""
        self._send("wait_at_most", (f"{PATIENCE}ms",))
        self._send("moves_alone")
        try:
            rows = self._wire.exchange(self._deadline)
        except StoreTimeout as error:
            raise Behind(str(error)) from error
        self._alone = True
        return rows

    def _clock_now(self) -> Rows:
        """The store's clock, asked once a transaction: what is done in one is done at one instant."""
        if self._now is None:
            if self._clock is not None:
                self._now = [(self._clock(),)]
            else:
                self._now = self._asked_with_next()
        return self._now

    def _asked_with_next(self) -> Rows:
        """The server's clock, and with it what the plan asks next, if that is known."""
        self._send("now")
        following = NEXT.get(self._plan)
        if following is None:
            return self._wire.exchange(self._deadline)
        self._send(following)
        self._next[following] = self._wire.exchange(self._deadline)
        return self._wire.before()

    def _send(self, name: str, params: tuple[Any, ...] = ()) -> None:
        for part in self._scripts[name].parts:
            self._wire.send(part, params)

    def undo(self) -> None:
        """Roll back what was begun. Where that cannot be had, the connection is closed, which does the same."""
        wire = self._wire
        wire.forget()
        wire.ending = False
        if wire.lost:
            return
        if wire.busy:
            with suppress(Late, Lost, Again, StoreError):
                wire.send(ROLLBACK)
                wire.exchange(time.monotonic() + GOODBYE)


def in_a_transaction() -> StoreError:
    """Of a migration that a caller's transaction came upon."""
    return SchemaError("the schema wants an index, which no transaction can build: run `windlass store migrate` first")


def _told(error: Late | Lost, name: str, wire: Wire) -> StoreError:
    """What a broken or silent connection means for whoever asked."""
    if wire.ending:
        return OutcomeUnknown(f"{name}: the answer to a commit was lost: {error}")
    if isinstance(error, Late):
        return StoreTimeout(f"{name}: {error}; nothing was applied")
    return StoreUnavailable(f"{name}: {error}; nothing was applied")
