"""Hints between processes of one machine: an empty datagram to every listener of a store. Losing one costs latency."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket

from windlass.core.errors import StoreUnavailable

DIRECTORY = "-run"
"""`windlass.db-run/` beside `windlass.db` holds the sockets of the listeners and the lock files of the workers."""


class HintListener:
    """A datagram socket in the store's run directory."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, f"hint-{secrets.token_hex(4)}.sock")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            with ShortPath(directory) as prefix:
                self._socket.bind(prefix + os.path.basename(self._path))
        except OSError as error:
            self._socket.close()
            raise StoreUnavailable(f"the run directory {directory} cannot be used: {error}") from error

    def fileno(self) -> int:
        """See ports.store.Listener."""
        return self._socket.fileno()

    def drain(self) -> None:
        """See ports.store.Listener."""
        try:
            while self._socket.recv(16):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """See ports.store.Listener."""
        self._socket.close()
        if os.path.exists(self._path):
            os.unlink(self._path)


class Hints:
    """Sends to every listener; the list is read again when the directory changed."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._stamp = -1
        self._names: list[str] = []
        self._socket: socket.socket | None = None

    def listen(self) -> HintListener:
        """Start to listen."""
        return HintListener(self._directory)

    def send(self) -> None:
        """Tell every listener; never fails, never blocks."""
        with contextlib.suppress(OSError):  # no directory, no listener; no descriptor left for a socket
            self._send()

    def _send(self) -> None:
        stamp = os.stat(self._directory).st_mtime_ns
        if stamp != self._stamp:
            self._names = [n for n in os.listdir(self._directory) if n.startswith("hint-")]
            self._stamp = stamp
        if not self._names:
            return
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with ShortPath(self._directory) as prefix:
            for name in self._names:
                try:
                    self._socket.sendto(b"!", prefix + name)
                except ConnectionRefusedError:
                    _forget(os.path.join(self._directory, name))  # its listener died without unlinking it
                except OSError:
                    pass  # a full or vanished socket: its owner polls

    def close(self) -> None:
        """Close the sending socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class ShortPath:
    """A prefix for names in `directory` that fits the 108 bytes of a socket address, however deep it lies."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fd = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self._directory)) < 80:
            return self._directory + "/"
        self._fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/"

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _forget(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
