"""One page at work: its directory, its interpreter, its shell, and the workers and servers that it started."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

import windlass
from tests.docs.pages import HOME, PORT, SERVERS, Block, Command, Ids, commands, difference

PATIENCE = 20.0
"""Seconds that a command may take, or that a server may take to say what the page shows."""


BEATS = 5.0
"""Seconds within which what workers are at is in the store."""
LOOKS = re.compile(r"windlass (jobs why|workers) ?")


class Server:
    """A command that goes on running."""

    def __init__(self, line: str, directory: Path, environment: dict[str, str]) -> None:
        self.line = line
        self._log = directory / f".server-{time.monotonic_ns()}"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                ["bash", "-c", line], cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._read = 0

    def shows(self, wanted: str, ids: Ids) -> None:
        """Wait until what it says begins with what is shown."""
        deadline = time.monotonic() + PATIENCE
        while wanted.strip() and not ids.match(wanted, self.said(), prefix=True):
            gone = self.process.poll()
            assert gone is None and time.monotonic() < deadline, (
                f"`{self.line}` does not say so ({gone=}):\n{difference(wanted, self.said())}"
            )
            time.sleep(0.01)
        self._read = len(self._log.read_text()) if wanted.strip() else 0

    def said(self) -> str:
        return self._log.read_text()[self._read :]

    def end(self, number: signal.Signals) -> int:
        """Stop it and answer its exit status."""
        self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise


class Session:
    """Runs the blocks of one page in order."""

    def __init__(self, page: Path, directory: Path) -> None:
        self.page = page
        self.directory = directory / "page"
        self.directory.mkdir()
        self.ids = Ids({PORT: free_port(), HOME: str(self.directory.resolve())})
        self.servers: list[Server] = []
        self._printed: str | None = None
        self._environment = environment(directory)
        self._python: subprocess.Popen[str] | None = None

    def run(self, block: Block) -> None:
        """Run or parse one block; raises AssertionError where the page is wrong."""
        printed, self._printed = self._printed, None
        match block.language:
            case "python" | "toml" | "ini" | "json" if block.file is not None:
                self._write(block)
            case "python":
                self._printed = self._execute(block)
            case "text" if printed is not None:
                assert self.ids.match(block.text, printed), difference(block.text, printed)
            case "console":
                for command in commands(block):
                    self._command(command)

    def close(self, *, clean: bool) -> None:
        """End everything; `clean` insists that it ends well."""
        for server in self.servers:
            status = server.end(signal.SIGTERM)
            ours = "windlass worker" in server.line
            assert not clean or not ours or status == 0, f"`{server.line}` ended with {status}:\n{server.said()}"
        if self._python is not None:
            self._python.communicate()

    def _write(self, block: Block) -> None:
        assert block.file is not None
        name, more = block.file
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text() if more else "") + self.ids.put(block.text))

    def _execute(self, block: Block) -> str:
        if self._python is None:
            self._python = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("interpreter.py"))],
                cwd=self.directory, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        asked = {"code": self.ids.put(block.text), "line": block.line, "page": self.page.name}
        assert self._python.stdin is not None and self._python.stdout is not None
        print(json.dumps(asked), file=self._python.stdin, flush=True)
        answer = json.loads(self._python.stdout.readline())
        assert answer["problem"] is None, f"line {block.line}: {answer['said']}{answer['problem']}"
        said: str = answer["said"]
        return said

    def _command(self, command: Command) -> None:
        line = self.ids.put(command.line)
        if SERVERS.match(line) and " --help" not in line:
            self._serve(line, command.shown)
            return
        done = self._run(line)
        # A worker says with its next beat what it is at: who looks sooner looks again.
        deadline = time.monotonic() + BEATS
        while LOOKS.match(line) and not self.ids.match(command.shown, done.stdout) and time.monotonic() < deadline:
            done = self._run(line)
        assert done.returncode == 0, f"`{line}` failed with {done.returncode}:\n{done.stdout}"
        assert self.ids.match(command.shown, done.stdout), f"`{line}`:\n{difference(command.shown, done.stdout)}"

    def _run(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], cwd=self.directory, env=self._environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def _serve(self, line: str, shown: str) -> None:
        first, stops, last = f"\n{shown}".partition("\n^C\n")
        server = Server(line, self.directory, self._environment)
        self.servers.append(server)
        server.shows(first, self.ids)
        if stops:
            self.servers.remove(server)
            status = server.end(signal.SIGINT)
            assert status == 0, f"`{line}` ended with {status} after ^C:\n{server.said()}"
            assert self.ids.match(last, server.said()), difference(last, server.said())


@contextmanager
def session(page: Path, directory: Path) -> Iterator[Session]:
    """A Session that is closed whatever happens."""
    one = Session(page, directory)
    try:
        yield one
    except BaseException:
        one.close(clean=False)
        raise
    one.close(clean=True)


def environment(directory: Path) -> dict[str, str]:
    """The user's, without settings of Windlass, and with `windlass` and `python` those that run this test."""
    bin = directory / "bin"
    bin.mkdir()
    for name, program in (("windlass", "-m windlass "), ("python", ""), ("uvicorn", "-m uvicorn ")):
        script = bin / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {program}"$@"\n')
        script.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WINDLASS_", "PYTEST_"))}
    return kept | {
        "PATH": f"{bin}{os.pathsep}{kept.get('PATH', '')}",
        "PYTHONDONTWRITEBYTECODE": "1",  # a page changes its tasks.py twice within a second
        "PYTHONPATH": str(Path(windlass.__file__).parent.parent),  # the very one under test, installed or not
        "PYTHONUNBUFFERED": "1",
        "WINDLASS_LOG_FORMAT": "text",  # as at a terminal
        # Installed before it had one, Windlass still has its pytest plugin here.
        **({} if entry_points(group="pytest11", name="windlass") else {"PYTEST_PLUGINS": "windlass.testing.pytest_plugin"}),
    }


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
