"""Plans inside a transaction of the caller's own, on an asyncpg connection.

asyncpg is not imported: whoever has such a connection has it. It speaks to the server by itself, so there is no
pipeline here, and each statement is a round trip.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, TypeVar

from windlass.core.errors import StoreError, StoreTimeout, StoreUnavailable
from windlass.ports.plan import NOW, Plan, Rows, Statement, Steps
from windlass.stores.postgres.caller_shell import WAITS, WAITS_AGAIN, check_snapshot
from windlass.stores.postgres.errors import Again, translate
from windlass.stores.postgres.hints import HintListener
from windlass.stores.postgres.shell import ASIDE, OWNERS_HOLD, RAW, SO_FAR, Clock, Shell, in_a_transaction
from windlass.stores.postgres.statements import BACK, NOTIFY, RELEASE, SAVEPOINT, Part, Script
from windlass.stores.sql.text import as_json

T = TypeVar("T")

_JSON = re.compile(r"(\$\d+)::jsonb")


def is_asyncpg(connection: Any) -> bool:
    """Whether it is one of asyncpg's, or what a pool of it lends."""
    return type(connection).__module__.startswith("asyncpg.") and hasattr(connection, "is_in_transaction")


class AsyncpgShell:
    """As AsyncCallerShell, in asyncpg's words."""

    def __init__(self, shell: Shell, scripts: dict[str, Script], clock: Clock | None, connection: Any) -> None:
        self._shell = shell
        self._scripts = scripts
        self._clock = clock
        self._connection = connection
        self._now: Rows | None = None
        self._wrote = False

    @property
    def begun(self) -> bool:
        """Whether a transaction is open on the caller's connection."""
        return bool(self._connection.is_in_transaction())

    def run(self, plan: Plan[T], timeout: float | None = None) -> T:
        """An event loop must not be stopped for as long as a lock takes."""
        raise StoreError("this connection belongs to an event loop: use aenqueue inside app.transaction")

    async def arun(self, plan: Plan[T], timeout: float | None = None) -> T:
        """Run `plan` under a savepoint of the caller's transaction, or where none is open, in one of its own."""
        self._shell.check()
        seconds = self._shell.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                if self.begun:
                    return await self._under_savepoint(plan, seconds)
                async with self._connection.transaction():
                    return await self._under_savepoint(plan, seconds)
        except Again as error:
            raise StoreUnavailable(
                f"{plan.name}: another transaction was in the way ({error}); roll yours back and begin it again"
            ) from error
        except TimeoutError as error:
            raise StoreTimeout(f"{plan.name}: no answer before the deadline; roll the transaction back") from error

    async def _under_savepoint(self, plan: Plan[T], seconds: float) -> T:
        self._now, self._wrote = None, False
        await self._send(SAVEPOINT)
        ((waits, isolation, age),) = await self._send(WAITS)
        try:
            check_snapshot(plan.name, isolation, age)
            await self._send(self._scripts["wait_at_most"].parts[0], (f"{max(1, int(seconds * 950))}ms",))
            answer = await self._drive(iter(plan))
            if self._wrote:
                await self._send(self._scripts["touch"].parts[0])
                channel = self._shell.channel if plan.hint else None
                if channel is not None:
                    await self._send(NOTIFY, (channel,))
            if not self._wrote:  # as in CallerShell
                await self._send(BACK)
            await self._send(WAITS_AGAIN, (waits,))
            await self._send(RELEASE)
        except (StoreError, Again):
            await self._send(BACK)
            await self._send(RELEASE)
            raise
        return answer

    async def _drive(self, steps: Steps[T]) -> T:
        """`ports.plan.drive`, which differs in one word."""
        try:
            wanted = next(steps)
            while True:
                try:
                    rows = await self._execute(wanted)
                except Exception as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(rows)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    async def _execute(self, statement: Statement) -> Rows:
        name, params, many = statement
        if statement is NOW:
            if self._now is None:
                clock = self._clock
                self._now = [(clock(),)] if clock else await self._send(self._scripts["now"].parts[0])
            return self._now
        if name in (SO_FAR, ASIDE):
            raise in_a_transaction()
        if name == OWNERS_HOLD:
            return []
        if name == RAW:
            return await self._send(Part(b"", params[0].encode(), ()))
        script = self._scripts[name]
        if many is not None and not many:
            return []
        self._wrote = self._wrote or script.writes
        if script.gathers:
            params, many = (as_json([params] if many is None else many),), None
        rows: Rows = []
        for row in (params,) if many is None else many:
            for part in script.parts:
                rows = await self._send(part, row)
        return rows if many is None else []

    async def _send(self, part: Part, params: tuple[Any, ...] = ()) -> Rows:
        try:
            # As text: what asyncpg takes for JSON, a codec of the application's may encode once more.
            sql = _JSON.sub(r"\1::text::jsonb", part.sql.decode())
            rows = await self._connection.fetch(sql, *(params[place] for place in part.uses))
        except Exception as error:
            state = getattr(error, "sqlstate", None)
            if state is None:
                raise StoreUnavailable(f"the connection could not be used: {error}") from error
            raise translate(state, str(error)) from error
        return [tuple(row) for row in rows]

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
