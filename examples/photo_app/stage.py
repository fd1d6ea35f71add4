"""What the demonstration stands on: processes that are always ended, requests, remarks that are counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

REPOSITORY = Path(__file__).parent.parent.parent
PATIENCE = 60.0  # seconds for anything to happen
T = TypeVar("T")


class Trouble(Exception):
    """The demonstration cannot go on."""


class Answer(NamedTuple):
    """Of the web application to one request."""

    status: int
    headers: Message
    json: Any


class Stage:
    """What runs, what was seen, and whether it was right."""

    def __init__(self, output: Path, environment: Mapping[str, str]) -> None:
        self.output = output
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        self.began = time.monotonic()
        self.wrong: list[str] = []
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.web = ""

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def check(self, right: bool, text: str) -> None:
        """Say what was found; what is wrong is remembered for the end."""
        if not right:
            self.wrong.append(text)
        self.say(f"{'ok   ' if right else 'WRONG'}  {text}")

    def start(self, name: str, *command: str | Path, fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to `<name>.log`; `fds` are descriptors that it inherits."""
        with open(self.output / f"{name}.log", "wb") as log:
            self.running[name] = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C on the terminal is for the demonstration alone, which then ends the others in order.
                start_new_session=True,
                pass_fds=fds,
            )
        return self.running[name]

    def stop(self) -> None:
        """End everything that was started, the last first: gently, and if need be not."""
        while self.running:
            name, process = self.running.popitem()
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                self.check(right=False, text=f"{name} did not end within 20 s of being told to")
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def until(self, what: str, look: Callable[[], T | None], patience: float = PATIENCE) -> T:
        """Look until there is something to see."""
        deadline = time.monotonic() + patience
        while (seen := look()) is None:
            for name, process in self.running.items():
                if process.poll() is not None:
                    raise Trouble(f"{name} ended with {process.returncode}:{self.last_words(name)}")
            if time.monotonic() > deadline:
                raise Trouble(f"waited {patience:.0f} s for {what}")
            time.sleep(0.05)
        return seen

    def last_words(self, name: str) -> str:
        lines = (self.output / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return "\n  ".join(["", *lines[-15:]])

    def request(self, path: str, content: bytes | None = None, **query: str | int) -> Answer:
        """GET, or POST with a body, to the web application; no answer at all is Trouble."""
        address = f"{self.web}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            with urllib.request.urlopen(urllib.request.Request(address, content), timeout=30) as answer:
                return Answer(answer.status, answer.headers, json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, {"error": error.read().decode(errors="replace")})
        except OSError as error:
            raise Trouble(f"{address}: {error}{self.last_words('web')}") from error
