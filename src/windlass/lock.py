"""Named locks and semaphores for the user's own code, in the store that its jobs are in.

A lock is a lead (`Store.lead`) of its holder's own: it lapses by the store's clock, so a holder that dies keeps nobody
waiting for longer than its `ttl`, and each holder has a larger fence than all before it, so that what the lock protects
can refuse a holder that was stopped and does not know yet.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from windlass.core.duration import Duration, micros, seconds
from windlass.core.errors import LockTimeout, StoreError, StoreTimeout, WindlassError
from windlass.names import KEY_MOST, valid_name
from windlass.patience import Wait, await_, until, wait
from windlass.ports.plan import Plan
from windlass.ports.store import Leadership, Opened

if TYPE_CHECKING:
    from windlass.app import Windlass

TTL_LEAST, TTL_MOST = 1.0, 86_400.0
SLOTS_MOST = 1_000

# Counts while the machine sleeps, as the holder's lease in the store does.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _boottime() -> float:
    return time.clock_gettime(_CLOCK)


class Lock:
    """One lock, or one slot of a semaphore, made by `app.lock` and `app.semaphore`. It is held inside `with` or
    `async with`, and renewed by a thread meanwhile. One object is held once at a time; it may be used again.

    `fence` is a number that grows with each holder of this name: hand it to what must refuse a ghost. `lost` says that
    the lock could not be renewed in time, or not in this process, and may be another's by now.
    """

    def __init__(self, app: Windlass, name: str, ttl: Duration, slots: int, timeout: Duration | None) -> None:
        """See `Windlass.semaphore`. Raises ValueError that names the argument."""
        self.name = valid_name(name, "name", most=KEY_MOST)
        self._ttl = seconds(ttl, "ttl")
        if not TTL_LEAST <= self._ttl <= TTL_MOST:
            raise ValueError(f"ttl: {ttl!r} must be {TTL_LEAST:.0f} s to {TTL_MOST / 3_600:.0f} h")
        self._slots = _checked_slots(slots)
        self._timeout = None if timeout is None else micros(timeout, "timeout") / 1e6
        self._app = app
        self._hold: Hold | None = None
        self._asking: Hold | None = None

    def __repr__(self) -> str:
        return f"<lock {self.name!r}, {'held' if self.held else 'not held'}>"

    @property
    def held(self) -> bool:
        """Whether it is held here, and not lost."""
        return self._hold is not None and not self._hold.lost

    @property
    def lost(self) -> bool:
        """Whether it was held here and may be another's by now. Look before each step that must not be done twice."""
        return self._hold is not None and self._hold.lost

    @property
    def fence(self) -> int:
        """Greater than that of every holder before. Raises WindlassError while it is not held."""
        if self._hold is None:
            raise WindlassError(f"lock {self.name!r} is not held: its fence is known inside `with`")
        return self._hold.fence

    def acquire(self, timeout: Duration | None = None) -> None:
        """Wait until it is held here, at most `timeout` long (None: that of the lock). Raises LockTimeout."""
        wait(self._app.engine, self._waiting(timeout))

    async def aacquire(self, timeout: Duration | None = None) -> None:
        """`acquire` for an event loop."""
        import asyncio

        try:
            await await_(self._app.engine, self._waiting(timeout))
        except asyncio.CancelledError:
            # What was asked for is asked to the end, and may have been had: then nobody is there to hold it.
            if self._asking is not None:
                await self._take_back(self._asking)
            raise

    async def _take_back(self, hold: Hold) -> None:
        """Give up what may have been had, and wait for that no longer than for an enqueue. An error would stand in the
        place of the cancellation, and what is not given up lapses by itself."""
        import asyncio

        from windlass.gathering import answered

        timeout = self._app.settings.enqueue_timeout
        with suppress(StoreError):
            opened = await answered(self._app.engine.aopened(timeout), timeout, _late)
            await answered(asyncio.shield(opened.async_shell().run(hold.resign())), timeout, _late)

    def _waiting(self, timeout: Duration | None) -> Wait[Hold]:
        if self._hold is not None:
            raise WindlassError(f"lock {self.name!r} is held by this object already")
        limit = self._timeout if timeout is None else micros(timeout, "timeout") / 1e6
        deadline = None if limit is None else time.monotonic() + limit
        opened = self._app.engine.opened()
        hold = self._asking = Hold(opened, f"lock:{self.name}", self._ttl, self._slots)
        self._hold = yield from until(opened, hold.look, deadline, lambda: LockTimeout(self.name, limit or 0.0))
        return self._hold

    def release(self) -> None:
        """Give it up; nothing happens if it is not held, or was lost."""
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.end()

    async def arelease(self) -> None:
        """`release` for an event loop."""
        import asyncio

        hold, self._hold = self._hold, None
        if hold is not None:
            await asyncio.shield(asyncio.to_thread(hold.end))

    def __enter__(self) -> Self:
        """Raises LockTimeout."""
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        """Raises LockTimeout."""
        await self.aacquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.arelease()


def _late() -> StoreTimeout:
    return StoreTimeout("lock: the store did not answer in time; the lock lapses by itself")


def _checked_slots(slots: Any) -> int:
    if not isinstance(slots, int) or isinstance(slots, bool) or not 1 <= slots <= SLOTS_MOST:
        raise ValueError(f"slots: {slots!r} must be a whole number, 1..{SLOTS_MOST}")
    return slots


class Hold:
    """One holding of a lock, from its begin to its end, with the thread that renews it."""

    def __init__(self, opened: Opened, name: str, ttl: float, slots: int) -> None:
        self._opened = opened
        self._name = name
        self._ttl = ttl
        self._slots = slots
        self._holder = os.urandom(16).hex()
        self._pid = os.getpid()
        self._until = 0.0
        self._gone = False
        self._over = threading.Event()
        self.fence = 0

    @property
    def lost(self) -> bool:
        """Whether the last renewal is too long ago, by a clock of this machine's that was read before it."""
        return self._gone or _boottime() >= self._until or os.getpid() != self._pid

    def ask(self) -> Plan[Leadership]:
        """The plan by which it is had, and renewed."""
        return self._opened.store.lead(self._name, self._holder, round(self._ttl * 1e6), self._slots)

    def resign(self) -> Plan[None]:
        """The plan by which it is given up."""
        return self._opened.store.resign(self._name, self._holder)

    def look(self) -> Wait[Hold | None]:
        """Ask for it once; itself if it is held, and renewed from now on."""
        asked_at = _boottime()
        answer = yield self.ask()
        if not answer.leading:
            return None
        self.fence, self._until = answer.term, asked_at + self._ttl
        self._thread = threading.Thread(target=self._renew, name="windlass-lock", daemon=True)
        self._thread.start()
        return self

    def end(self) -> None:
        """Give it up, if the store answers; else it lapses."""
        self._over.set()
        if os.getpid() != self._pid:  # inherited by a fork: it is the parent's
            return
        self._thread.join()
        try:
            self._opened.shell.run(self.resign())
        except StoreError:
            return
        self._opened.shell.hint()

    def _renew(self) -> None:
        wait = self._ttl / 3
        while not self._over.wait(wait) and not self.lost:
            asked_at = _boottime()
            try:
                answer = self._opened.shell.run(self.ask(), self._ttl / 3)
            except StoreError:  # `lost` will say so by itself once it is too late
                wait = min(1.0, self._ttl / 10)
                continue
            if not answer.leading or answer.term != self.fence:
                # It lapsed, and whoever had it meanwhile may have ended as well: this would be another holding.
                self._gone = True
                return
            self._until, wait = asked_at + self._ttl, self._ttl / 3
