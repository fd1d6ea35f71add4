"""`windlass worker`: a supervisor and its workers."""

from __future__ import annotations

import os

import click

from windlass.cli.common import answers
from windlass.core.duration import seconds
from windlass.core.errors import ConfigError


@click.command()
@click.argument("target", metavar="MODULE:APP")
@click.option("--processes", type=int, metavar="N", help="Worker processes; one for each core unless configured.")
@click.option("--concurrency", type=int, metavar="N", help="Jobs that one process runs at a time.")
@click.option("--queues", metavar="a,b:3", help="Queues in strict order, or with weights; all of the application's.")
@click.option("--stop-timeout", metavar="TIME", help="How long running jobs may go on after the first SIGTERM.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="What is worth a line.")
@answers
def worker(
    target: str,
    processes: int | None,
    concurrency: int | None,
    queues: str | None,
    stop_timeout: str | None,
    log_level: str | None,
    as_json: bool,
) -> int:
    """Run the jobs of MODULE:APP (or of a FILE.py) until told to stop.

    SIGTERM or Ctrl-C: claim no more, let running jobs finish, hand the others back. A second one: at once. With
    --json the log is JSON lines. Exits with 0 after a clean stop, 1 if something had to be killed for it, 2 if the
    application could not be loaded.
    """
    return supervise(
        target,
        processes=processes,
        concurrency=concurrency,
        queues=queues,
        stop_timeout=stop_timeout,
        log_level=log_level,
        log_json=as_json or None,
    )


def supervise(
    target: str,
    *,
    processes: int | None = None,
    concurrency: int | None = None,
    queues: str | None = None,
    stop_timeout: str | None = None,
    log_level: str | None = None,
    log_json: bool | None = None,
    reload: bool = False,
) -> int:
    """Run a Supervisor on what was said here, else in the settings; answers its exit code."""
    from windlass import config
    from windlass.runtime.supervisor import Supervisor
    from windlass.stores import open as open_store

    settings = config.load({})
    given = settings.processes if processes is None else processes
    formats = {"json": True, "text": False}
    return Supervisor(
        target,
        open_store,
        processes=_cores() if given is None else given,
        concurrency=concurrency,
        queues=queues,
        stop_timeout=settings.stop_timeout if stop_timeout is None else _duration(stop_timeout, "--stop-timeout"),
        reload=reload,
        log_level=log_level or settings.log_level,
        log_json=formats.get(settings.log_format) if log_json is None else log_json,
    ).run()


def _cores() -> int:
    """Those that this process may use: a container often has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _duration(text: str, option: str) -> float:
    try:
        return seconds(text, option)
    except ValueError as error:
        raise ConfigError(str(error)) from None
