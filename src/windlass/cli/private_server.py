"""A server of one project's own, for `windlass dev --postgres` or `--redis`: on this machine, for this user, kept
beside the project, and ended with the last `dev` that uses it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import secrets
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from windlass.cli.exits import UNAVAILABLE, Refused
from windlass.core.errors import ConfigError, StoreError

START_WITHIN = 30.0
GONE_WITHIN = 5.0
END_WITHIN = 10.0
LOOK = 0.02
"""Seconds between two looks whether it has come up, or ended."""


@contextlib.contextmanager
def private_server(kind: type[Server], directory: str) -> Iterator[tuple[str, Path]]:
    """The URL of a server whose data lie in a folder of `directory`, and that folder. One that an earlier `dev` left
    behind is used again; whoever is the last to use it ends it. Raises ConfigError where there is none to start."""
    if importlib.util.find_spec(kind.driver) is None:
        raise ConfigError(
            f"--{kind.option}: {kind.driver} is missing; `pip install 'windlass[dev-{kind.option}]'` brings all of it"
        )
    server = kind(directory)
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
    """The server in one folder. What is particular to PostgreSQL and to Redis is theirs to say."""

    option: ClassVar[str]
    title: ClassVar[str]
    driver: ClassVar[str]

    def __init__(self, directory: str) -> None:
        """Raises ConfigError where there is none to start."""
        self.place = place_of(directory, f"windlass-{self.option}", self.option)
        self.data = self.place / "data"
        self._process: subprocess.Popen[bytes] | None = None
        # Not in our session: a Ctrl-C is for us, who end it when the workers have ended. And not in our environment.
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        self.run: dict[str, Any] = {"cwd": self.place, "env": environment, "start_new_session": True}
        """How its programs are run."""

    # --- what each says -------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Make what it needs, where that is not there; raises ConfigError for what it cannot use."""
        raise NotImplementedError

    def command(self, port: int) -> list[str]:
        """What starts it on that port."""
        raise NotImplementedError

    def address(self, password: str, port: int) -> str:
        """The URL of the store on it."""
        raise NotImplementedError

    def known_pid(self) -> int:
        """Of the server that ran on these data last, as it wrote it down; raises OSError, ValueError."""
        raise NotImplementedError

    signals: ClassVar[tuple[signal.Signals, ...]]
    """By which it ends: at first with a word to its clients, then without."""

    # --- one life -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else starts or ends it meanwhile."""
        with self.place.joinpath("lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def start(self) -> str:
        """Make it if it is not there, start it if it does not run, and answer its URL."""
        self.make()
        url = self._url()
        if self._pid() is not None:
            if url and _answers(url):
                return url
            self.end()  # left behind, and of no use
        port = _port(url, self.option)
        url = self._write_url(port)
        began, process = time.monotonic(), self._launch(port)
        while not _answers(url):
            lasted = time.monotonic() - began
            if process.poll() is not None and lasted < GONE_WITHIN:
                process = self._launch(port)  # processes of one that was killed are still there, for a moment
            elif process.poll() is not None or lasted > START_WITHIN:
                self.end()
                raise Refused(f"--{self.option}: the server did not start: {self._last_words()}", UNAVAILABLE)
            time.sleep(LOOK)
        return url

    def _launch(self, port: int) -> subprocess.Popen[bytes]:
        with self.place.joinpath("log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(port), stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.run
            )
        return self._process

    def end(self) -> None:
        """End it, by its pid."""
        for number in self.signals:
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
            pid = self.known_pid()
            os.kill(pid, 0)
            proc = Path(f"/proc/{pid}/cmdline")
            ours = not Path("/proc/self").exists() or os.fsencode(self.data) in proc.read_bytes()
        except (OSError, ValueError):
            return None
        return pid if ours else None

    def password(self) -> str:
        """Which nobody else can read, made when it is asked for first."""
        path = self.place / "password"
        if not path.exists() or not path.read_text():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(24))
        return path.read_text()

    def _url(self) -> str:
        """By which it was reached last."""
        with contextlib.suppress(FileNotFoundError):
            return (self.place / "url").read_text().strip()
        return ""

    def _write_url(self, port: int) -> str:
        url = self.address(self.password(), port)
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


def _port(url: str, option: str) -> int:
    """The one that it had, or a free one: who has its URL in another terminal goes on."""
    before = url.rpartition(":")[2].partition("/")[0]
    for wanted in (int(before) if before.isdecimal() else 0, 0):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does, right after the last one
            free.bind(("127.0.0.1", wanted))
            return int(free.getsockname()[1])
    raise ConfigError(f"--{option}: there is no free port on 127.0.0.1")


def place_of(directory: str, folder: str, option: str) -> Path:
    """The folder of the data: beside the project, or where nobody can enter that and we are root, in /var/tmp."""
    place = Path(directory).resolve() / folder
    if os.getuid() == 0 and not all(parent.stat().st_mode & stat.S_IXOTH for parent in place.parents):
        digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
        place = Path("/var/tmp") / f"{folder}-{digest}"  # noqa: S108 - it must outlive a restart, and is checked below
    place.mkdir(mode=0o755 if os.getuid() == 0 else 0o700, exist_ok=True)
    if place.lstat().st_uid != os.getuid():
        raise ConfigError(f"--{option}: {place} is somebody else's; move it away")
    (place / ".gitignore").write_text("*\n")  # a database is nobody's source
    return place
