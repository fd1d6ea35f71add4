"""A route to a PostgreSQL server that can be cut, or fall silent, at a moment that matters."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Proxy:
    """Passes on what client and server say to each other, until told otherwise.

    `mode` is `pass`; `freeze`: nothing more is passed on; `lose`: the next commit reaches the server, and its answer is
    cut off; `drop`: the next commit does not reach it, and the connection is cut.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        user = f"{parts.username}@" if parts.username else ""
        self.url = f"postgresql://{user}127.0.0.1:{port}{parts.path}{'?' if parts.query else ''}{parts.query}"
        self.mode = "pass"
        self.connections = 0
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._dying: set[socket.socket] = set()
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Cut every connection."""
        self.mode, before = "cut", self.mode
        self._waker.send(b"!")
        while self._pairs:
            pass
        self.mode = before

    def close(self) -> None:
        self.mode = "end"
        with suppress(OSError):  # it has seen it already
            self._waker.send(b"!")
        self._thread.join()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while self.mode != "end":
                for key, _ in selector.select():
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif key.fileobj is self._wake:
                        self._wake.recv(16)
                    elif key.fileobj in self._pairs and self.mode != "freeze":
                        self._pass_on(selector, key.fileobj, key.data)  # type: ignore[arg-type]
                    elif self.mode == "freeze" and key.fileobj in self._pairs:
                        selector.unregister(key.fileobj)
                if self.mode == "cut":
                    for one in list(self._pairs):
                        self._end(selector, one)
            for one in list(self._pairs):
                self._end(selector, one)
        for each in (self._listener, self._wake, self._waker):
            each.close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._target)
        for one, other, side in ((client, server, "client"), (server, client, "server")):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[one] = other
            selector.register(one, selectors.EVENT_READ, side)
        self.connections += 1

    def _pass_on(self, selector: selectors.BaseSelector, one: socket.socket, side: str) -> None:
        other = self._pairs[one]
        try:
            said = one.recv(1 << 20)
        except OSError:
            said = b""
        if not said:
            return self._end(selector, one)
        if side == "client" and self.mode in {"lose", "drop"} and (b"\0commit\0" in said or b"COMMIT\0" in said):
            mode, self.mode = self.mode, "pass"
            if mode == "drop":
                return self._end(selector, one)
            self._dying.add(other)
        if side == "server" and one in self._dying:  # it has answered, so it has committed
            return self._end(selector, one)
        with suppress(OSError):
            other.sendall(said)

    def _end(self, selector: selectors.BaseSelector, one: socket.socket) -> None:
        for each in (one, self._pairs.pop(one, None)):
            if each is not None:
                self._pairs.pop(each, None)
                self._dying.discard(each)
                with suppress(KeyError, ValueError):
                    selector.unregister(each)
                each.close()
