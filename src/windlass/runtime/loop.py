"""One thread's loop: readiness, timers, signals, calls handed over by other threads. No coroutines: little memory."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import queue
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[], Any]


class Timer:
    """A call to come; `cancel` makes it not come."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call: Call | None = call

    def cancel(self) -> None:
        """Forget the call."""
        self.call = None


class Loop:
    """Runs callbacks on the thread that calls `run`; only `post` may be called from others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._posted: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._waking = False
        """A wake-up is on its way: another would only fill the socket."""
        self._wake_r, self._wake_w = _pipe()
        # Signals have a pair of their own, where calls that nobody has run yet cannot fill their room.
        self._signals_r, self._signals_w = _pipe()
        self._handlers: dict[int, Call] = {}
        self._restore: list[tuple[int, Any]] = []
        self._wakeup_fd: int | None = None
        self.watch(self._wake_r, self._woken)
        self.watch(self._signals_r, self._signalled)

    def watch(self, source: Any, call: Call) -> None:
        """Call whenever `source` (a descriptor or something with `fileno`) can be read."""
        self._selector.register(source, selectors.EVENT_READ, call)

    def forget(self, source: Any) -> None:
        """Stop watching; does nothing if it is not watched."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(source)

    def later(self, delay: float, call: Call) -> Timer:
        """Call once, `delay` seconds from now."""
        timer = Timer(call)
        heapq.heappush(self._timers, (self.clock() + delay, next(self._count), timer))
        return timer

    def post(self, call: Call) -> None:
        """Call soon, on the loop's thread; from any thread."""
        self._posted.put(call)
        if not self._waking:
            self._waking = True
            with contextlib.suppress(OSError):  # closed: nobody waits any more
                self._wake_w.send(b"\0")

    def on_signal(self, number: int, call: Call) -> None:
        """Call on the loop whenever the signal arrives. Main thread only."""
        if self._wakeup_fd is None:
            self._wakeup_fd = signal.set_wakeup_fd(self._signals_w.fileno(), warn_on_full_buffer=False)
        self._handlers[number] = call
        self._restore.append((number, signal.signal(number, lambda *_: None)))

    def run(self, done: Callable[[], bool]) -> None:
        """Run until `done()`, asked after every round."""
        while not done():
            for key, _ in self._selector.select(self._wait()):
                key.data()
            now = self.clock()
            while self._timers and self._timers[0][0] <= now:
                timer = heapq.heappop(self._timers)[2]
                if timer.call is not None:
                    timer.call()

    def close(self) -> None:
        """Give back descriptors and signal handlers."""
        for number, handler in reversed(self._restore):
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if self._wakeup_fd is not None:
            signal.set_wakeup_fd(self._wakeup_fd)
        self._selector.close()
        for end in (self._wake_r, self._wake_w, self._signals_r, self._signals_w):
            end.close()

    def _wait(self) -> float | None:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self.clock()) if self._timers else None

    def _woken(self) -> None:
        # In this order: a call that is posted too late to be counted finds that it has to wake us again.
        _read(self._wake_r)
        self._waking = False
        for _ in range(self._posted.qsize()):
            self._posted.get_nowait()()

    def _signalled(self) -> None:
        for number in dict.fromkeys(_read(self._signals_r)):  # each once per round, in the order of arrival
            if number in self._handlers:
                self._handlers[number]()


def _pipe() -> tuple[socket.socket, socket.socket]:
    """(read, write), of which neither waits."""
    read, write = socket.socketpair()
    read.setblocking(False)
    write.setblocking(False)
    return read, write


def _read(sock: socket.socket) -> bytes:
    """All that is there."""
    data = b""
    with contextlib.suppress(BlockingIOError):
        while part := sock.recv(4_096):
            data += part
    return data


def ignore_but_pass_on(*numbers: int) -> None:
    """Make this process deaf to signals without making its children so: SIG_IGN survives exec, a handler does not."""
    for number in numbers:
        signal.signal(number, lambda *_: None)


def is_ignored(number: int) -> bool:
    """Whether the signal was ignored from the start (nohup), which must stay so."""
    return signal.getsignal(number) == signal.SIG_IGN


def hostname() -> str:
    """This machine, as operators know it."""
    return socket.gethostname() or f"host-{os.getpid()}"
