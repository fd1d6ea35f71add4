"""uvicorn around the API: the socket, the signals, and an end that does not wait for those who wait."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from windlass.core.errors import ConfigError
from windlass.web import create_asgi
from windlass.web.connection import protocol
from windlass.web.waiter import Waiter

if TYPE_CHECKING:
    from windlass import Windlass

BACKLOG = 2048
LOOK_EVERY = 5
"""Ticks, of a tenth of a second each."""
GRACE = 10
"""Seconds that requests under way get at the end."""


class _Server(uvicorn.Server):
    def __init__(self, settings: uvicorn.Config, waiter: Waiter, enough: Callable[[], bool]) -> None:
        super().__init__(settings)
        self._waiter = waiter
        self._enough = enough

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        return await super().on_tick(counter) or (counter % LOOK_EVERY == 0 and self._enough())

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's own, which ends by killing its process with the signal that it has just obeyed."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer whoever waits for a job before waiting for all answers to be sent."""
        self._waiter.stop()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; raises ConfigError for a port that is taken or an address that is not this machine's."""
    # The protocol is named because asyncio sets TCP_NODELAY only on sockets that name it; without, every answer to a
    # client that keeps its connection waits 40 ms for a delayed acknowledgement.
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(f"--port: {host} port {port} cannot be served: {error.strerror or error}") from None
    return sock


def run(
    app: Windlass,
    sock: socket.socket,
    listening: Callable[[str], object],
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Serve on `sock` until SIGINT or SIGTERM, or until `enough` says so; `listening` is told the address first."""
    web = create_asgi(app)
    host, port = sock.getsockname()[:2]
    listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    settings = uvicorn.Config(
        web,
        log_config=None,  # ours is set up already
        access_log=False,
        http=protocol(),
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    _Server(settings, web.state.waiter, enough).run(sockets=[sock])
