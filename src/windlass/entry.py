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
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from windlass import config
from windlass.core.errors import ConfigError, WindlassError
from windlass.loading import load, own_trace
from windlass.runtime import logs, process
from windlass.runtime.link import PipeLink, first_words
from windlass.runtime.logs import Log
from windlass.runtime.loop import ignore_but_pass_on, is_ignored
from windlass.runtime.messages import Boot, Broken, Channel, Ready, ToSlot, ToWorker
from windlass.runtime.registry import Mode, Registry
from windlass.runtime.slots import SlotTable
from windlass.runtime.verdict import describe

if TYPE_CHECKING:
    from windlass.app import Windlass

Queues = list[tuple[str, float | None]]

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
    try:
        queues, strict = config.served_queues(boot.queues, app.settings, registry.queues)
    except ConfigError as error:
        channel.send(Broken(str(error)))
        return 1
    # Suspects run one at a time, so that a crash is certainly the job's own.
    concurrency = 1 if boot.quarantine else boot.concurrency or app.settings.concurrency
    channel.send(_ready(app, registry, queues, concurrency))
    told = first_words(channel)
    if told is None:
        return 0
    go, lock_fd, early = told
    link = PipeLink(channel, table, go.worker_id, lock_fd, early)
    work = _work(app, registry, link, queues, strict, concurrency, boot.quarantine)
    try:
        _turn(work, lambda error: _break(channel, error))
    except Exception as error:
        channel.send(Broken(f"{type(error).__name__}: {error}", traceback.format_exc()))
        return 1
    finally:
        app.close()
    return 0


def _turn(work: Coroutine[Any, Any, None], broken: Callable[[BaseException], NoReturn]) -> None:
    """Run `work` to its end, though a handler may stop the loop; not by `asyncio.run`, which would then cancel it.
    `broken` ends the process of a loop that cannot turn any more."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(work)
        task.add_done_callback(lambda _: loop.stop())
        while not task.done():
            try:
                loop.run_forever()
            except BaseException as error:
                broken(error)
        task.result()


def _break(channel: Channel[ToWorker], error: BaseException) -> NoReturn:
    """A job has closed the loop's descriptors, or ended the process from a callback. What could still be ended in order
    nobody knows; so die, and have those charged that are marked in the table."""
    with contextlib.suppress(BaseException):
        info = describe(error)
        log.error("a worker's loop broke", problem=f"{info.kind}: {info.message}", trace=info.trace)
        channel.send(Broken(f"its loop broke: {info.kind}: {info.message}", info.trace))
    os._exit(1)


async def _work(
    app: Windlass,
    registry: Registry,
    link: PipeLink,
    queues: Queues,
    strict: bool,
    concurrency: int,
    suspects: bool,
) -> None:
    from windlass.runtime.worker import Worker

    # Its own, not the application's: that one is for handlers to close, when they write `with app:`.
    opened = await asyncio.to_thread(app.engine.lend)
    try:
        worker = Worker(
            registry, opened, link, concurrency=concurrency, queues=queues, suspects=suspects, strict=strict
        )
        worker.sturdy = True
        await worker.run()
    finally:
        await asyncio.to_thread(app.engine.give_back, opened)


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
        app = load(boot.target)
        return app, app.registry
    except WindlassError as error:  # says itself what to do; our own traceback would only hide it
        cause = error.__cause__
        trace = "" if cause is None else own_trace(cause)
        channel.send(Broken(str(error), trace, source_files(cause or error)))
    except BaseException as error:
        channel.send(Broken(f"{type(error).__name__}: {error}", traceback.format_exc(), source_files(error)))
    return None


def _ready(app: Windlass, registry: Registry, queues: Queues, concurrency: int) -> Ready:
    settings = app.settings
    return Ready(
        url=settings.url,
        options={"durability": settings.durability} if settings.url.startswith("sqlite") else {},
        hold=settings.hold,
        queues=tuple(queue for queue, _ in queues),
        tasks=registry.labels(),
        concurrency=concurrency,
        processes=any(task.mode is Mode.PROCESS for task in registry.tasks.values()),
        stall_timeout=settings.stall_timeout,
        rules=settings.prune_rules(),
        outbox=settings.outbox,
        files=source_files(),
        where=config.located(settings.url),
        unused=registry.unused(queue for queue, _ in queues),
        schedules=app.defined,
    )


def source_files(error: BaseException | None = None) -> tuple[str, ...]:
    """Files that are the application's own: not the interpreter's, not installed, not Windlass. Those that an error
    went through are named too, for the module that it stopped was never loaded."""
    ours = os.path.dirname(__file__)
    foreign = (sys.prefix, sys.base_prefix, ours)
    names = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    names += [frame.filename for frame in traceback.extract_tb(error.__traceback__)] if error else []
    names += [error.filename] if isinstance(error, SyntaxError) else []
    paths = {os.path.abspath(name) for name in names if isinstance(name, str) and name.endswith(".py")}
    return tuple(sorted(path for path in paths if not path.startswith(foreign)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
