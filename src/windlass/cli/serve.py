"""`windlass serve`: the HTTP API of an application."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from windlass.cli.common import answers
from windlass.cli.exits import OK
from windlass.core.errors import ConfigError, WindlassError

if TYPE_CHECKING:
    import socket

    from windlass import Windlass
    from windlass.cli.output import Output

HELP = """Serve the HTTP API of MODULE:APP (or of a FILE.py) until told to stop.

\b
POST /api/v1/jobs            {"task": ..., "args": [...], "kwargs": {...}, ...}
                             202 and the job's address
GET  /api/v1/jobs/ID         state, progress, result or error;
                             `Prefer: wait=10` waits for its end
POST /api/v1/jobs/ID/cancel  cancel it
GET  /api/v1/jobs            the list: ?state=dead&queue=mail&limit=50
GET  /healthz                200 while the store answers
"""


@click.command(help=HELP)
@click.argument("target", metavar="MODULE:APP")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address: there is no login yet.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--fd", type=int, hidden=True, help="A socket that listens already.")
@click.option("--parent", type=int, hidden=True, help="End with this process; begin anew when a source file changes.")
@click.option("--again", is_flag=True, hidden=True, help="It has been said where.")
@answers
def serve(target: str, host: str, port: int, fd: int | None, parent: int | None, again: bool, as_json: bool) -> int:
    """Set up the socket, the log and the application."""
    from windlass import config
    from windlass.cli.output import Output
    from windlass.runtime import logs
    from windlass.web.guard import is_loopback
    from windlass.web.server import listen

    if not is_loopback(f"//[{host}]" if ":" in host else f"//{host}"):
        raise ConfigError(
            f"--host: {host!r} can be reached from other machines, and the API has no login yet; use 127.0.0.1 and put "
            "a proxy that asks for one before it"
        )
    settings = config.load({})
    formats = {"json": True, "text": False}
    logs.setup(settings.log_level, as_json=as_json or formats.get(settings.log_format))
    out = Output(as_json=as_json)
    if fd is not None and parent is not None:
        return _anew(target, _inherited(fd), parent, out, again=again)
    with listen(host, port) as sock:
        _serve(target, sock, out)
    return OK


def _serve(target: str, sock: socket.socket, out: Output) -> None:
    from windlass.loading import load
    from windlass.runtime.shared import must_be_shared
    from windlass.web.server import run

    app = load(target)
    app.engine.bare()  # a URL that can never work is refused here, not with every request
    if not app.client.workers():  # an embedded one may serve a store of this very process
        must_be_shared(app.opened)

    def listening(url: str) -> None:
        if out.as_json:
            out.document({"url": url, "store": _place(app)})
        out.say(f"serving on {url}, store {_place(app)} (Ctrl-C ends it)")

    run(app, sock, listening)


def _place(app: Windlass) -> str:
    from windlass.config import located

    return located(app.settings.url)


def _inherited(fd: int) -> socket.socket:
    import socket

    return socket.socket(fileno=fd, proto=socket.IPPROTO_TCP)


def _anew(target: str, sock: socket.socket, parent: int, out: Output, *, again: bool) -> int:
    """For `windlass dev`: serve; when a source file was written, become a fresh process on the same socket.

    The socket stays open across, so a request that comes meanwhile waits instead of being refused.
    """
    import signal

    from windlass.cli.sample import command
    from windlass.entry import source_files
    from windlass.loading import load
    from windlass.runtime import process
    from windlass.runtime.reload import EVERY, Sources
    from windlass.web.server import run

    process.die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for `dev`, which ends this process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    began, sources = time.time_ns(), Sources()
    changed: list[str] = []
    said = [again]

    def stale() -> bool:
        changed.extend(sources.changed())
        return bool(changed)

    def listening(url: str) -> None:
        if said[0]:
            return
        said[0], sample = True, command(app, target)
        if os.environ.get("WINDLASS_URL", app.settings.url) != app.settings.url:
            out.notice("the application names its store in its code; WINDLASS_URL, --postgres and --redis do not count")
        if out.as_json:
            out.document({"url": url, "store": _place(app), "try": sample})
        out.say(f"API on {url}/api/v1/jobs")
        out.say(f"store {_place(app)}")
        if sample:
            out.say(f"try: {sample}")

    try:
        app = load(target)
    except WindlassError as error:  # the workers have said what is wrong; it will be mended
        sources.watch(source_files(error.__cause__ or error), began)
        while not stale():
            time.sleep(EVERY)
    else:
        sources.watch(source_files(), began)
        run(app, sock.dup(), listening, stale)  # uvicorn closes what it was given
    if changed:
        os.set_inheritable(sock.fileno(), True)
        arguments = [*sys.argv[1:], *(["--again"] if said[0] and not again else [])]
        os.execv(sys.executable, [sys.executable, "-m", "windlass", *arguments])  # noqa: S606 - this very command
    return OK
