"""Hints by way of the server: NOTIFY, sent beside the transactions and never in them; LISTEN, once per supervisor."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from windlass.core.errors import StoreError
from windlass.stores.pool import Late, Lost
from windlass.stores.postgres.errors import Again
from windlass.stores.postgres.statements import Part, quoted
from windlass.stores.postgres.wire import Wire

PAUSE = 0.002
"""Seconds between two NOTIFYs of one process: whatever is enqueued meanwhile shares the next one."""
RECONNECT_FIRST, RECONNECT_MOST = 0.1, 2.0
INSIDE_EVERY = 0.05
"""Seconds between two callers' transactions that notify."""
QUIET, ANSWER = 5.0, 2.0
"""Seconds of silence after which a listener asks whether anybody is there, and seconds that it waits for an answer: a
peer that is gone without a word says nothing for ever."""
ECHO = 0.05
"""Seconds after a change was seen in which it may not have been readable yet."""


class Hints:
    """Sends and receives the hints of one store."""

    def __init__(self, channel: str, connect: Callable[[float], Wire]) -> None:
        """`connect` makes a connection for a listener."""
        self.channel = channel
        self._connect = connect
        self.notify: Callable[[str], None] = lambda _: None
        """Sends one hint, on a connection of the shell's."""
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._listeners: set[HintListener] = set()
        self._last = (-1, 0.0)
        self._count = 0
        self._inside = 0.0

    def send(self) -> None:
        """Tell every listener, soon; never fails, never waits."""
        if not self._wanted.is_set():
            self._wanted.set()
            if self._thread is None and not self._closed:
                with self._lock:
                    if self._thread is None:
                        self._thread = threading.Thread(target=self._serve, name="windlass-notify", daemon=True)
                        self._thread.start()

    def _serve(self) -> None:
        while True:
            self._wanted.wait()
            if self._closed:
                return
            self._wanted.clear()
            with suppress(StoreError, Again, Late, Lost):  # a hint; whoever needs it also looks by itself
                self.notify(self.channel)
            time.sleep(PAUSE)

    def may_notify_inside(self) -> bool:
        """Whether a transaction of a caller's may notify: now and then only."""
        now = time.monotonic()
        if now - self._inside < INSIDE_EVERY:
            return False
        self._inside = now
        return True

    def seen(self, number: int) -> int:
        """A number that moves when `number` has, and once more a little later."""
        last, at = self._last
        now = time.monotonic()
        if number != last:
            self._last = (number, now if last >= 0 else 0.0)
            self._count += 1
        elif at and now - at >= ECHO:
            self._last = (number, 0.0)
            self._count += 1
        return self._count

    def listen(self) -> HintListener:
        """Start to listen."""
        listener = HintListener(self.channel, self._connect, self._listeners.discard)
        self._listeners.add(listener)
        return listener

    def close(self) -> None:
        """End the threads."""
        self._closed = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
        for listener in list(self._listeners):
            listener.close()


class HintListener:
    """A thread with a connection of its own, which it makes again whenever it broke. Its readers see a descriptor that
    is readable, whatever becomes of the connection."""

    def __init__(
        self, channel: str, connect: Callable[[float], Wire], closed: Callable[[HintListener], object]
    ) -> None:
        self._listen = Part(b"listen", f"LISTEN {quoted(channel)}".encode(), ())
        self._connect = connect
        self._on_close = closed
        self._hint = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._end = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = False
        self._wire: Wire | None = None
        with suppress(StoreError, Late, Lost):  # a server that is away now: the thread tries again
            self._begin(5.0)
        self._thread = threading.Thread(target=self._serve, name="windlass-listen", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """See ports.store.Listener."""
        return self._hint

    def drain(self) -> None:
        """See ports.store.Listener."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._hint)

    def close(self) -> None:
        """See ports.store.Listener."""
        if self._closing:
            return
        self._closing = True
        os.eventfd_write(self._end, 1)
        self._thread.join()
        os.close(self._hint)
        os.close(self._end)
        self._on_close(self)

    def _begin(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        wire = self._connect(deadline)
        try:
            wire.send(self._listen)
            wire.exchange(deadline)
        except BaseException:
            wire.close()
            raise
        self._wire = wire

    def _serve(self) -> None:
        wait = RECONNECT_FIRST
        while not self._closing:
            if self._wire is None:
                try:
                    self._begin(5.0)
                except (StoreError, Again, Late, Lost):
                    select.select([self._end], [], [], wait)
                    wait = min(RECONNECT_MOST, wait * 2)
                    continue
                wait = RECONNECT_FIRST
                os.eventfd_write(self._hint, 1)  # what was said meanwhile, nobody heard
            wire = self._wire
            if wire is not None and not self._heard(wire):
                wire.close()
                self._wire = None
        if self._wire is not None:
            self._wire.close()

    def _heard(self, wire: Wire) -> bool:
        """Wait for something and pass it on; False once the connection broke."""
        poll = select.poll()
        poll.register(wire.fileno(), select.POLLIN)
        poll.register(self._end, select.POLLIN)
        quiet = not poll.poll(QUIET * 1_000)
        if self._closing:
            return True
        try:
            if quiet:
                wire.exchange(time.monotonic() + ANSWER)
            if wire.notified():
                os.eventfd_write(self._hint, 1)
        except (Late, Lost):
            return False
        return True
