"""`windlass worker`: a supervisor and its workers."""

from __future__ import annotations

import os
import select
import sys
import time

import click

from windlass.cli.common import answers
from windlass.cli.exits import FAILED, OK
from windlass.core.duration import seconds
from windlass.core.errors import ConfigError, StoreReplaced
from windlass.runtime.bounds import PROCESSES_MOST

STOP_TIMEOUT = "How long running jobs may go on after the first SIGTERM; 30s unless configured."
WATCH = 0.5
"""Seconds between two looks whether the embedded worker is still there."""


@click.command()
@click.argument("target", metavar="MODULE:APP")
@click.option("--processes", type=int, metavar="N", help="Worker processes; one a core. 0 works in this very one.")
@click.option("--concurrency", type=int, metavar="N", help="Jobs that one process runs at a time.")
@click.option("--queues", metavar="a,b:3", help="Queues in strict order, or with weights; all of the application's.")
@click.option("--stop-timeout", metavar="TIME", help=STOP_TIMEOUT)
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
    application could not be loaded, or its store not be used.
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

    check_target(target)
    if queues is not None:
        config.named_queues(queues, "--queues")
    settings = config.load({})
    stop = settings.stop_timeout if stop_timeout is None else _duration(stop_timeout, "--stop-timeout")
    level = log_level or settings.log_level
    as_json = {"json": True, "text": False}.get(settings.log_format) if log_json is None else log_json
    if processes is None:
        processes = _cores() if settings.processes is None else settings.processes
    if not 0 <= processes <= PROCESSES_MOST:
        raise ConfigError(f"--processes: {processes} must be within 0..{PROCESSES_MOST}")
    if processes == 0:
        return _embedded(target, concurrency, queues, stop, level, log_json=as_json)
    supervisor = Supervisor(
        target,
        open_store,
        processes=processes,
        concurrency=concurrency,
        queues=queues,
        stop_timeout=stop,
        reload=reload,
        log_level=level,
        log_json=as_json,
    )
    code = supervisor.run()
    if supervisor.problem:
        raise (StoreReplaced if supervisor.replaced else ConfigError)(supervisor.problem)
    return code


def check_target(target: str) -> None:
    """Refuse what is plainly not there, without running any of the user's code: a supervisor must not.

    Its workers find out the rest, each by itself, in their log.
    """
    from importlib.util import find_spec

    from windlass.loading import refuse_half_a_file

    name = target.partition(":")[0]
    if target.endswith(".py"):
        if not os.path.isfile(target):
            raise ConfigError(f"app: there is no file {target!r}")
        return
    refuse_half_a_file(target)
    package = name.partition(".")[0]
    if not package.isidentifier():
        raise ConfigError(f'app: {target!r} must be "module:attribute", for instance "shop.jobs:app", or a file')
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    if find_spec(package) is None:
        raise ConfigError(f"app: there is no module {package!r} in {here} or on Python's path")


def _embedded(
    target: str,
    concurrency: int | None,
    queues: str | None,
    stop: float,
    level: str,
    *,
    log_json: bool | None,
) -> int:
    """`--processes 0`: one worker in this very process, for machines too small for two."""
    import signal
    import threading

    from windlass.config import located
    from windlass.loading import load
    from windlass.runtime import logs
    from windlass.runtime.logs import Log
    from windlass.runtime.supervisor import SAME_SIGNAL

    logs.setup(level, as_json=log_json)
    heard, told = os.pipe()  # a handler may do little; writing to a pipe is safe wherever it interrupts
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.write(told, b"!"))
    with load(target) as app:
        if "durable" not in app.engine.bare().store.capabilities:
            logs.Log("worker").warning("no other process can enqueue in this store", url=app.settings.url)
        embedded = app.run_embedded(concurrency=concurrency, queues=queues)
        Log("worker").info("worker runs", pid=os.getpid(), store=located(app.settings.url))
        while not select.select([heard], [], [], WATCH)[0]:
            if not embedded.running:  # it has said why; a process without its worker must not look alive
                return FAILED
        os.read(heard, 1)
        clean: list[bool] = []
        patient = threading.Thread(target=lambda: clean.append(embedded.stop(stop)), daemon=True)
        patient.start()
        first = time.monotonic()
        while patient.is_alive():
            again = select.select([heard], [], [], 0.05)[0] and os.read(heard, 1)
            if again and time.monotonic() - first > SAME_SIGNAL:
                clean.append(embedded.stop(0.0))  # a second signal ends patience
                break
        if not any(clean):
            # A handler that does not end keeps its thread, and Python would wait for it. Another worker will find the
            # lock of this one free, and run its jobs.
            sys.stderr.flush()
            os._exit(FAILED)
    os.close(heard)
    os.close(told)
    return OK


def _cores() -> int:
    """Those that this process may use: a container often has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _duration(text: str, option: str) -> float:
    try:
        return seconds(text, option)
    except ValueError as error:
        raise ConfigError(str(error)) from None
