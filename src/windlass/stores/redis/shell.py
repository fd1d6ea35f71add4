"""The shell of the Redis store: runs plans, one script for each statement."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NoReturn, TypeVar

import msgspec
import redis

from windlass.core import errors
from windlass.ports.plan import NOW, Plan, Rows, Statement, drive
from windlass.stores.pool import Late, Lost, Pool
from windlass.stores.redis.connection import Durability
from windlass.stores.redis.hints import HintListener, Hints
from windlass.stores.redis.keys import NAMES
from windlass.stores.redis.scripts import script
from windlass.stores.redis.wire import Wire, packed

T = TypeVar("T")


PASSING = frozenset({"beat", "report", "listen"})
"""What is said again soon: nobody waits until it cannot be lost."""
Clock = Callable[[], int]

_encode = msgspec.msgpack.Encoder().encode


class RedisShell:
    """Runs plans. A statement is a script, which is done whole or not at all."""

    def __init__(
        self,
        pool: Pool[Wire],
        connect: Callable[[float], Wire],
        keys: Sequence[bytes],
        clock: Clock | None,
        timeout: float,
        durability: Durability = Durability.SERVER,
    ) -> None:
        """`connect` makes the connections of listeners, which last."""
        self.pool = pool
        self._keys = tuple(keys)
        self._clock = clock
        self.durability = durability
        self._pid = os.getpid()
        self._closed = False
        self._prefix = cache(self._begin)
        changes = self._keys[NAMES.index("changes")]
        self._get_changes = packed("GET", changes)
        self._hints = Hints(changes, connect, self._arm)
        self._hints.publish = self._say
        self.timeout = timeout
        pool.users += 1

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See Shell.run. Scripts tell the listeners."""
        self.check()
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        with self.pool.borrowed(deadline) as wire:
            answer = drive(iter(plan), lambda statement: self.execute(wire, statement, deadline, write=plan.write))
            if plan.write and plan.name not in PASSING and self.durability is not Durability.SERVER:
                self._confirm(wire, plan.name, deadline)
            return answer

    def _confirm(self, wire: Wire, name: str, deadline: float) -> None:
        """Wait until what this connection wrote is where the profile says. Raises OutcomeUnknown if that takes too
        long: it was applied, and may be lost again with the server."""
        if wire.confirmed:
            return
        left = max(1, round((deadline - time.monotonic()) * 1e3))
        disk = self.durability is Durability.DISK
        command = packed("WAITAOF", 1, 0, left) if disk else packed("WAIT", 1, left)
        try:
            reached = wire.ask(command, deadline + 1.0)
        except redis.exceptions.ResponseError as error:
            raise errors.OutcomeUnknown(f"{name}: durability={self.durability}: {error}") from None
        except (Late, Lost) as error:
            raise errors.OutcomeUnknown(f"{name}: the answer was lost ({error})") from None
        if not (reached[0] if isinstance(reached, list) else reached):
            where = "the disk of the server" if disk else "a replica"
            raise errors.OutcomeUnknown(f"{name}: it was applied, and has not reached {where} until the deadline")

    def execute(self, wire: Wire, statement: Statement, deadline: float, *, write: bool) -> Rows:
        """Run one script. Raises OutcomeUnknown where nobody can say whether the server has heard it."""
        for fresh in (False, True):
            command = self._command(wire, statement, deadline, write=write)
            try:
                answer = self._ask(wire, statement.name, command, deadline)
                return [(msgspec.msgpack.decode(answer),)] if statement.name == NOW.name else answer
            except redis.exceptions.ResponseError as error:
                late = str(error).startswith("LATE")
                if not late or fresh or time.monotonic() >= deadline:
                    self._fail(wire, statement.name, error)
                wire.set_clock(deadline)  # the server's clock was set, or it was busy for as long as we may wait
            except (Late, Lost) as error:
                self.pool.forget()
                if write:
                    why = str(error) or "nothing was heard until the deadline"
                    raise errors.OutcomeUnknown(f"{statement.name}: the answer was lost ({why})") from None
                if isinstance(error, Late):
                    raise errors.StoreTimeout(f"{statement.name}: nothing was heard until the deadline") from None
                raise errors.StoreUnavailable(f"{statement.name}: {error}") from None
        raise AssertionError

    def _ask(self, wire: Wire, name: str, command: bytes, deadline: float) -> Any:
        try:
            return wire.ask(command, deadline)
        except redis.exceptions.NoScriptError:  # restarted, failed over or flushed
            wire.ask(packed("SCRIPT", "LOAD", script(name).text), deadline)
            return wire.ask(command, deadline)

    def _command(self, wire: Wire, statement: Statement, deadline: float, *, write: bool) -> bytes:
        """A call of the script. One that writes is not begun after the deadline: it would come true after its caller
        was told that it had not."""
        clock = b"" if self._clock is None else str(self._clock()).encode()
        last = str(round(deadline * 1e6) + wire.ahead).encode() if write else b""
        given = _encode(statement.params)
        return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            *(self._prefix(statement.name), len(clock), clock, len(given), given, len(last), last),
        )

    def _begin(self, name: str) -> bytes:
        """The part that is always the same."""
        found = script(name)
        pieces = (found.command, found.sha, str(len(self._keys)).encode(), *self._keys)
        packed = b"".join(b"$%d\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return b"*%d\r\n" % (len(pieces) + 3) + packed

    def _fail(self, wire: Wire, name: str, error: redis.exceptions.ResponseError) -> NoReturn:
        """What the server says, as the few errors that the rest knows: nothing was applied."""
        said = str(error)
        word = said.partition(" ")[0]
        if word == "SCHEMA":
            raise errors.SchemaError("there is no store here yet: run `windlass store migrate`") from None
        if word == "LATE":
            raise errors.StoreTimeout(f"{name}: the server was busy until the deadline; nothing was applied") from None
        if isinstance(error, redis.exceptions.OutOfMemoryError) or word == "OOM":
            raise errors.StoreFull(f"{name}: the server's memory is full (maxmemory); nothing was applied") from None
        if word in AWAY or isinstance(error, AWAY_KINDS):
            wire.close()
            problem = f"{name}: the server cannot be used now: {said}; nothing was applied"
            raise errors.StoreUnavailable(problem) from None
        if isinstance(error, redis.exceptions.NoPermissionError) or word == "NOPERM":
            raise errors.StoreError(f"{name}: the login lacks a right, see `windlass store roles`: {said}") from None
        raise errors.StoreError(f"{name}: {said}") from None

    def drop(self) -> None:
        """Take away all keys of the store."""
        deadline = time.monotonic() + self.timeout
        with self.pool.borrowed(deadline) as wire:
            wire.ask(packed("UNLINK", *self._keys), deadline)

    # --- hints -------------------------------------------------------------------------------------------------------

    def _say(self, command: bytes) -> None:
        deadline = time.monotonic() + 1.0
        with self.pool.borrowed(deadline) as wire:
            wire.ask(command, deadline)

    def _arm(self) -> int:
        return self.run(LISTEN)

    def changed(self) -> int:
        """See Shell.changed."""
        self.check()
        deadline = time.monotonic() + self.timeout
        with self.pool.borrowed(deadline) as wire:
            try:
                return int(wire.ask(self._get_changes, deadline) or 0)
            except Late:
                raise errors.StoreTimeout("nothing was heard until the deadline") from None
            except Lost as error:
                raise errors.StoreUnavailable(str(error)) from None
            except redis.exceptions.ResponseError as error:
                self._fail(wire, "changed", error)

    def hint(self) -> None:
        """See Shell.hint."""
        self._hints.send()

    def listen(self) -> HintListener:
        """See Shell.listen."""
        self.check()
        return self._hints.listen()

    def check(self) -> None:
        """Raises StoreError where this shell must not be used: once it was closed, and in a forked child (I28)."""
        if self._closed:
            raise errors.StoreError("this store was closed")
        if os.getpid() != self._pid:
            raise errors.StoreError(
                f"this store was opened by process {self._pid}; a forked child has to open it anew"
            )

    def close(self) -> None:
        """See Shell.close."""
        if self._closed:
            return
        self._closed = True
        self._hints.close()
        self.pool.leave()


def _listen() -> Any:
    return msgspec.msgpack.decode((yield Statement("listen")))


LISTEN: Plan[int] = Plan(_listen, "listen", write=True)
AWAY = frozenset({"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "BUSY", "NOREPLICAS"})
AWAY |= {"MISCONF", "UNBLOCKED"}
"""What a server says that cannot be used as it is now; another may be there the next time."""
AWAY_KINDS = (
    redis.exceptions.BusyLoadingError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MovedError,
)
