"""What a supervisor and a worker say to each other, without a socket: in order, each message a moment later."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from windlass.testing.simulation.locks import Locks
from windlass.testing.simulation.scheduler import Process


class End:
    """One end; see runtime.messages.Channel, of which it has the same methods."""

    def __init__(self, process: Process, locks: Locks) -> None:
        self.process = process
        self.closed = False
        self._locks = locks
        self._peer: End | None = None
        self._inbox: deque[Any] = deque()
        self._readable: Callable[[], object] | None = None
        process.on_death.append(self.close)

    def connect(self, peer: End) -> None:
        """Make two ends one channel."""
        self._peer, peer._peer = peer, self

    def on_readable(self, call: Callable[[], object]) -> None:
        """Call whenever there is something to read; at once if there is."""
        self._readable = call
        if self._inbox or self._peer is None:
            call()

    def send(self, message: Any, fd: int = -1) -> None:
        """See Channel."""
        peer = self._peer
        if self.closed or peer is None:
            return
        if fd >= 0:
            self._locks.share(fd, peer.process)
        peer.arrive(message)

    def flush(self) -> None:
        """See Channel: nothing ever waits."""

    def receive(self) -> list[Any]:
        """See Channel."""
        if not self._inbox and self._peer is None:
            self.closed = True
        said = list(self._inbox)
        self._inbox.clear()
        return said

    def close(self) -> None:
        """See Channel."""
        self.closed = True
        self._inbox.clear()
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.hear_the_end()

    def arrive(self, message: Any) -> None:
        """The other end has sent this."""
        self._inbox.append(message)
        self._stir()

    def hear_the_end(self) -> None:
        """The other end was closed."""
        self._peer = None
        self._stir()

    def _stir(self) -> None:
        if self._readable is not None and self.process.alive:
            self._readable()
