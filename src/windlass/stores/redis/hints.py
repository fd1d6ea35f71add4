"""Hints by way of the server: a script that puts something in line tells those who listen, once for all that comes
until they listen again. See lua/record.lua, wake."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import redis

from windlass.core.errors import StoreError
from windlass.stores.pool import Late, Lost
from windlass.stores.redis.wire import Wire, packed

PAUSE = 0.002
"""Seconds after a hint in which no other is asked for: whatever comes meanwhile shares the next one."""
RECONNECT_FIRST, RECONNECT_MOST = 0.1, 2.0
QUIET, ANSWER = 5.0, 2.0
"""Seconds of silence after which a listener asks whether anybody is there, and seconds that it waits for an answer."""


class Hints:
    """Receives the hints of one store, and sends those that no script sends."""

    def __init__(self, channel: bytes, connect: Callable[[float], Wire], arm: Callable[[], int]) -> None:
        """`connect` makes a connection for a listener; `arm` asks for the next hint, and answers how many were due."""
        self._channel = channel
        self._connect = connect
        self._arm = arm
        self._listeners: set[HintListener] = set()
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.publish: Callable[[bytes], None] = lambda _: None
        """Sends a command, on a connection of the shell's."""

    def send(self) -> None:
        """Tell every listener, soon; never fails, never waits."""
        if not self._wanted.is_set():
            self._wanted.set()
            if self._thread is None and not self._closed:
                with self._lock:
                    if self._thread is None:
                        self._thread = threading.Thread(target=self._serve, name="windlass-hint", daemon=True)
                        self._thread.start()

    def _serve(self) -> None:
        command = packed("SPUBLISH", self._channel, "0")
        while True:
            self._wanted.wait()
            if self._closed:
                return
            self._wanted.clear()
            with suppress(StoreError, Lost, Late):  # a hint; whoever needs it also looks by itself
                self.publish(command)
            time.sleep(PAUSE)

    def listen(self) -> HintListener:
        """Start to listen."""
        listener = HintListener(self._channel, self._connect, self._arm, self._listeners.discard)
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
        self,
        channel: bytes,
        connect: Callable[[float], Wire],
        arm: Callable[[], int],
        closed: Callable[[HintListener], object],
    ) -> None:
        self._subscribe = packed("SSUBSCRIBE", channel)
        self._ping = packed("PING")
        self._connect = connect
        self._arm = arm
        self._on_close = closed
        self._hint = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._end = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = False
        self._wire: Wire | None = None
        self._came = 0
        with suppress(StoreError, Late, Lost):  # a server that is away now: the thread tries again
            self._begin()
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

    def _begin(self) -> None:
        deadline = time.monotonic() + 5.0
        wire = self._connect(deadline)
        try:
            wire.ask(self._subscribe, deadline)
            self._came = self._arm()
        except BaseException:
            wire.close()
            raise
        self._wire = wire

    def _serve(self) -> None:
        wait = RECONNECT_FIRST
        while not self._closing:
            if self._wire is None:
                try:
                    self._begin()
                except (StoreError, Late, Lost):
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
                wire.send(self._ping)
            said = wire.heard(time.monotonic() + ANSWER)
            if said[0] == b"smessage":
                os.eventfd_write(self._hint, 1)
                self._listen_again(int(said[2]))
        except (Late, Lost, StoreError, redis.exceptions.ResponseError):
            return False
        return True

    def _listen_again(self, came: int) -> None:
        """In a moment, and for all that comes from the one that was told of on."""
        self._came = max(self._came, came)
        time.sleep(PAUSE)
        now = self._arm()
        if now != self._came:
            self._came = now
            os.eventfd_write(self._hint, 1)
