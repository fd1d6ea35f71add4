"""A route to a PostgreSQL or Redis server that can be cut, fall silent, grow slow or lead elsewhere, at a moment that matters."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit


class Pace(NamedTuple):
    """How much is passed on at a time, and after how many seconds more of it."""

    most: int
    pause: float


PACES = {
    "freeze": Pace(0, 0.02),
    "slow": Pace(1 << 16, 0.1),
    "drip": Pace(1, 0.001),
}
FULL = Pace(1 << 20, 0.0)
COMMITS = (b"\0commit\0", b"COMMIT\0", b"\r\nEVALSHA\r\n")
"""What makes something last; a script of Redis's is a transaction of its own."""
RESET = struct.pack("ii", 1, 0)
"""Linger for no time: what is closed so is not ended but reset."""


class Proxy:
    """Passes on what client and server say to each other, until told otherwise.

    `mode` is `pass`; `slow`: each time something is passed on, 0.1 s go by; `drip`: one byte at a time, a thousand a
    second; `freeze`: nothing is passed on until the mode is another one; `refuse`: whoever connects is turned away;
    `lose`: the next commit reaches the server, and its answer is cut off; `drop`: the next commit does not reach it,
    and the connection is cut. `target` is where connections that are made from now on lead to.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self._listener.getsockname()[1]
        user = f"{parts.username}@" if parts.username else ""
        self.url = f"{parts.scheme}://{user}127.0.0.1:{self.port}{parts.path}{'?' if parts.query else ''}{parts.query}"
        self.mode = "pass"
        self.connections = 0
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._resting: dict[socket.socket, tuple[float, str]] = {}
        """Until when nothing is read of a side, and which it is."""
        self._gone: list[socket.socket] = []
        self._dying: set[socket.socket] = set()
        self._orders: list[str] = []
        self._carried_out = threading.Event()
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """End every connection."""
        self._order("cut")

    def reset(self) -> None:
        """Reset every connection, as a firewall does that has forgotten them."""
        self._order("reset")

    def lose_peers(self) -> None:
        """Of every connection, have either side vanish without a word: half-open, for ever. New ones are passed on."""
        self._order("gone")

    def close(self) -> None:
        self._order("end")
        self._thread.join()
        self._waker.close()

    def _order(self, order: str) -> None:
        self._carried_out.clear()
        self._orders.append(order)
        with suppress(OSError):  # it has seen it already, and it was the end
            self._waker.send(b"!")
        self._carried_out.wait()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            ended = False
            while not ended:
                for key, _ in selector.select(self._rest(selector)):
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif key.fileobj is self._wake:
                        self._wake.recv(16)
                    elif key.fileobj in self._pairs:  # else it ended a moment ago, with its other side
                        self._pass_on(selector, key.fileobj, key.data)  # type: ignore[arg-type]
                while self._orders:
                    ended = self._obey(selector, self._orders.pop(0)) or ended
                    self._carried_out.set()
        for each in (self._listener, self._wake, *self._gone):
            each.close()

    def _rest(self, selector: selectors.BaseSelector) -> float | None:
        """Read again of whoever has rested; answers the seconds until the next has, if any rests."""
        now = time.monotonic()
        for one in [one for one, (until, _) in self._resting.items() if until <= now]:
            selector.register(one, selectors.EVENT_READ, self._resting.pop(one)[1])
        return max(0.0, min(until for until, _ in self._resting.values()) - now) if self._resting else None

    def _obey(self, selector: selectors.BaseSelector, order: str) -> bool:
        for one in list(self._pairs):
            if order == "reset":
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        for one in list(self._pairs):
            if order == "gone":
                self._unregister(selector, one)
                self._gone.append(one)
                del self._pairs[one]
            elif one in self._pairs:
                self._end(selector, one)
        return order == "end"

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        try:
            if self.mode == "refuse":
                raise ConnectionRefusedError
            server = socket.create_connection(self.target)
        except OSError:  # as if it had been refused here
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            return client.close()
        for one, other, side in ((client, server, "client"), (server, client, "server")):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[one] = other
            selector.register(one, selectors.EVENT_READ, side)
        self.connections += 1

    def _pass_on(self, selector: selectors.BaseSelector, one: socket.socket, side: str) -> None:
        other = self._pairs[one]
        pace = PACES.get(self.mode, FULL)
        if pace.pause:
            selector.unregister(one)
            self._resting[one] = (time.monotonic() + pace.pause, side)
        if not pace.most:
            return
        try:
            said = one.recv(pace.most)
        except OSError:
            said = b""
        if not said:
            return self._end(selector, one)
        if side == "client" and self.mode in {"lose", "drop"} and any(word in said for word in COMMITS):
            mode, self.mode = self.mode, "pass"
            if mode == "drop":
                return self._end(selector, one)
            self._dying.add(other)
        if side == "server" and one in self._dying:  # it has answered, so it has committed
            return self._end(selector, one)
        try:
            other.sendall(said)
        except OSError:
            self._end(selector, one)

    def _end(self, selector: selectors.BaseSelector, one: socket.socket) -> None:
        for each in (one, self._pairs.pop(one, None)):
            if each is not None:
                self._pairs.pop(each, None)
                self._dying.discard(each)
                self._unregister(selector, each)
                each.close()

    def _unregister(self, selector: selectors.BaseSelector, one: socket.socket) -> None:
        if self._resting.pop(one, None) is None:
            with suppress(KeyError):
                selector.unregister(one)


def _refuse(route: Proxy) -> None:
    route.mode = "refuse"
    route.reset()


WAYS: dict[str, Callable[[Proxy], None]] = {
    "half-open": Proxy.lose_peers,
    "reset": Proxy.reset,
    "ended": Proxy.cut,
    "silent": lambda route: setattr(route, "mode", "freeze"),
    "slow": lambda route: setattr(route, "mode", "slow"),
    "one byte at a time": lambda route: setattr(route, "mode", "drip"),
    "refused": _refuse,
}
"""In which a route is bad, until its mode is `pass` again."""
