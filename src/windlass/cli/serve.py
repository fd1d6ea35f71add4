"""`windlass serve`: the HTTP API of an application."""

from __future__ import annotations

import click

from windlass.cli.common import answers
from windlass.core.errors import ConfigError

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
@answers
def serve(target: str, host: str, port: int, as_json: bool) -> int:
    """Set up the application, its log and its server."""
    from windlass import config
    from windlass.cli.common import load
    from windlass.cli.output import Output
    from windlass.runtime import logs
    from windlass.web.guard import is_loopback
    from windlass.web.server import run

    if not is_loopback(f"//[{host}]" if ":" in host else f"//{host}"):
        raise ConfigError(
            f"--host: {host!r} can be reached from other machines, and the API has no login yet; use 127.0.0.1 and put "
            "a proxy that asks for one before it"
        )
    app = load(target)
    settings = config.load({})
    formats = {"json": True, "text": False}
    logs.setup(settings.log_level, as_json=as_json or formats.get(settings.log_format))
    out = Output(as_json=as_json)

    def listening(url: str) -> None:
        if as_json:
            out.document({"url": url})
        out.say(f"serving on {url} (Ctrl-C ends it)")

    return run(app, host, port, listening)
