"""`windlass dev`: everything that writing tasks takes, in one terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import click

from windlass.cli.common import answers
from windlass.cli.output import Output
from windlass.cli.worker import check_target, supervise
from windlass.config import current_directory
from windlass.core.errors import ConfigError

END_WITHIN = 15.0
"""Seconds that the API gets to end, beyond its own grace."""


@click.command()
@click.argument("target", metavar="FILE|MODULE:APP")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="Of the API; else a free one."
)
@click.option("--concurrency", type=int, metavar="N", help="Jobs that the worker runs at a time.")
@click.option("--queues", metavar="a,b:3", help="All of the application's unless said.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="What is worth a line.")
@click.option("--postgres", is_flag=True, help="On a PostgreSQL server of its own, kept in ./windlass-postgres.")
@click.option("--redis", is_flag=True, help="On a Redis server of its own, kept in ./windlass-redis.")
@answers
def dev(
    target: str,
    port: int,
    concurrency: int | None,
    queues: str | None,
    log_level: str | None,
    postgres: bool,
    redis: bool,
    as_json: bool,
) -> int:
    """Run one worker and the API of FILE.py or MODULE:APP, and restart both when a source file is saved.

    The store is made if it is not there. Saving a file gives running jobs 5 seconds, and so does Ctrl-C, which ends
    everything; what is cut short runs again with the next worker.

    With --postgres or --redis the store is a real server, which is started here and ends with this command; its jobs
    are there again the next time. Other terminals reach it by the URL in windlass-postgres/url, or windlass-redis/url.
    """
    if postgres and redis:
        raise click.UsageError("--postgres and --redis: a store lies on one of them")
    check_target(target)
    server = _server("postgres" if postgres else "redis", as_json) if postgres or redis else contextlib.nullcontext()
    with server, _api(target, port, as_json=as_json):
        return supervise(
            target,
            processes=1,
            concurrency=concurrency,
            queues=queues,
            stop_timeout="5s",
            log_level=log_level,
            log_json=as_json or None,
            reload=True,
        )


@contextlib.contextmanager
def _server(which: str, as_json: bool) -> Iterator[None]:
    """Whatever is started here finds the server as the store that its environment names."""
    from windlass.cli.private_postgres import Postgres
    from windlass.cli.private_redis import Redis
    from windlass.cli.private_server import Server, private_server

    kind: type[Server] = Postgres if which == "postgres" else Redis
    before = os.environ.get("WINDLASS_URL")
    with private_server(kind, current_directory()) as (url, place):
        os.environ["WINDLASS_URL"] = url
        Output(as_json=as_json).notice(f"{kind.title} runs; in other terminals: export WINDLASS_URL=$(cat {place}/url)")
        try:
            yield
        finally:
            os.environ.pop("WINDLASS_URL")
            if before is not None:
                os.environ["WINDLASS_URL"] = before


@contextlib.contextmanager
def _api(target: str, port: int, *, as_json: bool) -> Iterator[None]:
    """The API in a process of its own: this one, the supervisor, must not import the application."""
    from windlass.web.server import listen

    try:
        sock = listen("127.0.0.1", port)
    except ConfigError:  # another `dev` has it; developing goes on
        sock = listen("127.0.0.1", 0)
    with sock:
        command = [sys.executable, "-m", "windlass", "serve", target, "--fd", str(sock.fileno())]
        # Blocked until the child is ready to ignore it: a Ctrl-C while it boots is for this process alone.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            child = subprocess.Popen(
                [*command, "--parent", str(os.getpid()), *(["--json"] if as_json else [])],
                pass_fds=[sock.fileno()],
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(END_WITHIN)
        child.kill()
