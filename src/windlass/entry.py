"""Where the children of a supervisor begin: `python -m windlass.entry BOOT` loads the application and becomes a worker,
or a process slot. The supervisor itself never comes here: it must not run user code.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING

import msgspec

from windlass.core.errors import WindlassError
from windlass.loading import load_app, load_app_file
from windlass.runtime import logs, process
from windlass.runtime.link import PipeLink, first_words
from windlass.runtime.logs import Log
from windlass.runtime.loop import ignore_but_pass_on, is_ignored
from windlass.runtime.messages import Boot, Broken, Channel, Ready, ToSlot, ToWorker
from windlass.runtime.registry import Mode, Registry
from windlass.runtime.slots import SlotTable

if TYPE_CHECKING:
    from windlass.app import Windlass
    from windlass.config import Settings

log = Log("entry")


def main(argument: str) -> int:
    """Be what the supervisor started this process for; answers the exit status."""
    boot = msgspec.json.decode(argument, type=Boot)
    process.die_with_parent(boot.parent)
    # Ctrl-C reaches the whole terminal group; who stops, and when, is the supervisor's to say. They were blocked until
    # now, since a handler cannot be set before Python runs.
    ignore_but_pass_on(*(number for number in process.TERMINAL_SIGNALS if not is_ignored(number)))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, process.TERMINAL_SIGNALS)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    logs.setup(boot.log_level, as_json=boot.log_json)
    sock = socket.socket(fileno=boot.channel)
    os.set_inheritable(boot.channel, False)
    return _slot(boot, Channel(sock, ToSlot)) if boot.role == "slot" else _worker(boot, Channel(sock, ToWorker))


def _worker(boot: Boot, channel: Channel[ToWorker]) -> int:
    table = SlotTable(boot.table)
    os.close(boot.table)
    loaded = _load(boot, channel)
    if loaded is None:
        return 1
    app, registry = loaded
    queues = _queues(boot, app.settings, registry)
    concurrency = boot.concurrency or app.settings.concurrency
    channel.send(_ready(app, registry, queues, concurrency))
    told = first_words(channel)
    if told is None:
        return 0
    go, lock_fd, early = told
    link = PipeLink(channel, table, go.worker_id, lock_fd, early)
    try:
        asyncio.run(_work(app, registry, link, queues, concurrency, suspects=boot.quarantine))
    except Exception as error:
        channel.send(Broken(f"{type(error).__name__}: {error}", traceback.format_exc()))
        return 1
    finally:
        app.close()
    return 0


async def _work(
    app: Windlass,
    registry: Registry,
    link: PipeLink,
    queues: list[tuple[str, float | None]],
    concurrency: int,
    *,
    suspects: bool,
) -> None:
    from windlass.runtime.worker import Worker

    await Worker(
        registry, app.opened, link, concurrency=concurrency, queues=queues, suspects=suspects
    ).run()


def _slot(boot: Boot, channel: Channel[ToSlot]) -> int:
    from windlass.runtime.process_slot import serve

    loaded = _load(boot, channel)
    if loaded is None:
        return 1
    app, registry = loaded
    try:
        serve(channel, registry, lambda: app.opened)
    finally:
        app.close()
    return 0


def _load(boot: Boot, channel: Channel[ToWorker] | Channel[ToSlot]) -> tuple[Windlass, Registry] | None:
    """The application and what it registered; None after the supervisor was told why not."""
    try:
        app = load_app_file(boot.target) if boot.target.endswith(".py") else load_app(boot.target)
        return app, app.registry
    except WindlassError as error:  # says itself what to do; our own traceback would only hide it
        channel.send(Broken(str(error)))
    except BaseException as error:  # also an application that calls sys.exit
        channel.send(Broken(f"{type(error).__name__}: {error}", traceback.format_exc()))
    return None


def _ready(
    app: Windlass, registry: Registry, queues: list[tuple[str, float | None]], concurrency: int
) -> Ready:
    settings = app.settings
    return Ready(
        url=settings.url,
        options={"durability": settings.durability} if settings.url.startswith("sqlite") else {},
        hold=settings.hold,
        queues=tuple(queue for queue, _ in queues),
        tasks=tuple(sorted(t.name if t.version == 1 else f"{t.name}@{t.version}" for t in registry.tasks.values())),
        concurrency=concurrency,
        processes=any(task.mode is Mode.PROCESS for task in registry.tasks.values()),
        stall_timeout=settings.stall_timeout,
        rules=settings.prune_rules(),
        files=tuple(_sources()),
    )


def _queues(boot: Boot, settings: Settings, registry: Registry) -> list[tuple[str, float | None]]:
    """(queue, weight or None), from the command line, the settings, or what the tasks name."""
    named = boot.queues.split(",") if boot.queues else settings.queues or registry.queues
    found = []
    for text in (each.strip() for each in named):
        queue, mark, weight = text.rpartition(":")
        found.append((queue, float(weight)) if mark else (text, None))
    return found


def _sources() -> list[str]:
    """Files of modules that are the application's own: not the interpreter's, not installed, not Windlass."""
    ours = os.path.dirname(__file__)
    foreign = (sys.prefix, sys.base_prefix, ours)
    found = []
    for module in list(sys.modules.values()):
        with contextlib.suppress(Exception):
            path = os.path.abspath(module.__file__ or "")
            if path.endswith(".py") and not path.startswith(foreign):
                found.append(path)
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
