"""The shell of the Redis store: runs plans, one script for each statement."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import msgspec
import redis

from windlass.core.errors import SchemaError, StoreError, StoreTimeout, StoreUnavailable
from windlass.ports.plan import Plan, Rows, Statement, drive
from windlass.stores.redis.keys import NAMES, keys_of
from windlass.stores.redis.scripts import script

T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds that a plan waits, unless told otherwise."""

_encode = msgspec.msgpack.Encoder().encode


class RedisShell:
    """Runs plans. A statement is a script, which is done whole or not at all."""

    def __init__(self, client: redis.Redis, prefix: str, clock: Callable[[], int] | None) -> None:
        self._client = client
        self._keys = keys_of(prefix, 0)
        self._count = str(len(self._keys)).encode()
        self._clock = clock
        self._pid = os.getpid()
        self._closed = False
        self.timeout = TIMEOUT

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """See Shell.run."""
        self.check()
        answer = drive(iter(plan), self._execute)
        if plan.hint:
            self.hint()
        return answer

    def _execute(self, statement: Statement) -> Rows:
        text, sha = script(statement.name)
        clock = b"" if self._clock is None else str(self._clock()).encode()
        given = (self._count, *self._keys, clock, _encode(statement.params))
        try:
            try:
                return self._evaluate("EVALSHA", sha, given)
            except redis.exceptions.NoScriptError:
                return self._evaluate("EVAL", text, given)
        except redis.exceptions.TimeoutError as error:
            raise StoreTimeout(f"{statement.name}: {error}") from error
        except redis.exceptions.ConnectionError as error:
            raise StoreUnavailable(f"{statement.name}: {error}") from error
        except redis.exceptions.RedisError as error:
            if str(error).startswith("SCHEMA"):
                raise SchemaError("there is no store here yet: run `windlass store migrate`") from None
            raise StoreError(f"{statement.name}: {error}") from error

    def _evaluate(self, command: str, script: bytes, given: tuple[bytes, ...]) -> Rows:
        return self._client.execute_command(command, script, *given)  # type: ignore[no-any-return,no-untyped-call]

    def check(self) -> None:
        """Raises StoreError where this shell must not be used: once it was closed, and in a forked child (I28)."""
        if self._closed:
            raise StoreError("this store was closed")
        if os.getpid() != self._pid:
            raise StoreError(f"this store was opened by process {self._pid}; a forked child has to open it anew")

    def changed(self) -> int:
        """See Shell.changed."""
        return int(self._client.get(self._keys[NAMES.index("changes")]) or 0)

    def hint(self) -> None:
        """See Shell.hint."""

    def close(self) -> None:
        """See Shell.close."""
        self._closed = True
        self._client.close()
