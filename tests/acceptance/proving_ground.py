"""The application of the acceptance tests: handlers that write down what they do, and some that kill their worker."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from windlass import Context, Discard, Snooze, Windlass, provided
from windlass.testing import ledger

LEDGER = os.environ["LEDGER"]

app = Windlass()


def note(ctx: Context, what: str, text: str = "") -> None:
    ledger.write(LEDGER, what, ctx.id, ctx.token.fence, ctx.attempt, text)


@app.task
async def good(ctx: Context, seconds: float = 0.0) -> int:
    note(ctx, "start")
    await asyncio.sleep(seconds)
    note(ctx, "end")
    return os.getpid()


@app.task
async def close_app() -> str:
    with app:
        await good.aenqueue()
    await asyncio.sleep(0)
    app.close()
    return "closed"


@app.task
def good_thread(ctx: Context, seconds: float = 0.0) -> int:
    note(ctx, "start")
    time.sleep(seconds)
    note(ctx, "end")
    return os.getpid()


@app.task(executor="process")
def good_process(ctx: Context, seconds: float = 0.0) -> int:
    note(ctx, "start")
    ctx.progress(1, 2, "half")
    kept = ctx.once("pid", os.getpid)
    time.sleep(seconds)
    note(ctx, "end", str(kept))
    return os.getpid()


@app.task
def wait_for(ctx: Context, gate: str, again: bool = False) -> str:
    """Run until the gate (a file whose name ends in this run's number) is there; then end, or ask for another run."""
    note(ctx, "start")
    runs = sum(line.what == "start" and line.job == ctx.id for line in ledger.read_path(LEDGER))
    while not os.path.exists(f"{gate}-{runs}"):
        time.sleep(0.01)
    note(ctx, "end", str(runs))
    if again and runs < 3:
        raise RuntimeError("once more")
    return f"run {runs}"


@app.task
def with_child(ctx: Context, path: str, seconds: float) -> None:
    """A job whose own child outlives its worker, as an ffmpeg does."""
    note(ctx, "start", "busy" if os.path.exists(path) else "free")
    subprocess.run(["sh", "-c", f"touch {path}; sleep {seconds}; rm {path}"], check=True)
    note(ctx, "end")


@app.task(executor="process")
async def in_slot(ctx: Context, what: str) -> object:
    """All that a Context can do, in a child process."""
    note(ctx, "start")
    match what:
        case "report":
            ctx.progress(1, 2, "half")
            ctx.log("from the child", "warning")
            kept = await ctx.aonce("pid", own_pid)
            if ctx.attempt == 1:
                raise RuntimeError("again")
            return [kept, ctx.once("other", lambda: "first"), os.getpid()]
        case "child":
            return ctx.enqueue(good)
        case "transaction" | "undone":
            ctx.transaction().execute("CREATE TABLE IF NOT EXISTS mine (note TEXT)")
            ctx.transaction().execute("INSERT INTO mine VALUES (?)", (what,))
            if what == "undone":
                raise Discard("not this one")
            ctx.enqueue(good)
            return "written"
        case "unstorable":
            return object()
        case "resource":
            return "see `shared`"
        case "exit":
            raise SystemExit(3)
    raise Snooze("0.1s") if len([x for x in ledger.read_path(LEDGER) if x.job == ctx.id]) == 1 else Discard("enough")


async def own_pid() -> int:
    return os.getpid()


class Shared:
    """What a start hook provides."""

    pid = 0


@app.on_worker_start
def make_shared() -> Iterator[Shared]:
    made = Shared()
    made.pid = os.getpid()
    yield made
    ledger.write(LEDGER, "hook ended", "")


@app.task(executor="process")
def with_resource(shared: Shared = provided()) -> list[int]:
    return [shared.pid, os.getpid()]


@app.task
def leave_orphan(ctx: Context) -> None:
    subprocess.run(["sh", "-c", "sleep 0.2 & exit 0"], check=True)


@app.task(exclusive=True)
def only_one(ctx: Context, seconds: float) -> None:
    """Shows every 10 ms that it runs."""
    note(ctx, "start")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        note(ctx, "alive")
        time.sleep(0.01)
    note(ctx, "end")


# --- poison ----------------------------------------------------------------------------------------------------------


@app.task
def segfault(ctx: Context) -> None:
    note(ctx, "start")
    ctypes.string_at(0)


@app.task
async def suicide(ctx: Context) -> None:
    note(ctx, "start")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def glutton(ctx: Context) -> None:
    """Past a memory limit, as a library that aborts when an allocation fails."""
    note(ctx, "start")
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
    hoard = []
    try:
        while True:
            hoard.append(bytearray(8 << 20))
    except MemoryError:
        os.abort()


@app.task
def gil_hog(ctx: Context) -> None:
    """A C call that keeps the GIL: no timeout, no signal and no other thread of the worker can do anything about it."""
    note(ctx, "start")
    ctypes.PyDLL(None).sleep(600)


class Fatal(str):
    """Kills whoever decodes it."""

    __slots__ = ()

    def __new__(cls, text: str) -> Fatal:
        os.abort()


class Endless(str):
    """Keeps whoever decodes it."""

    __slots__ = ()

    def __new__(cls, text: str) -> Endless:
        ctypes.PyDLL(None).sleep(600)
        raise AssertionError


class Exiting(str):
    """Ends the interpreter that decodes it."""

    __slots__ = ()

    def __new__(cls, text: str) -> Exiting:
        raise SystemExit(3)


@app.task
async def fatal_payload(text: Fatal) -> None:
    raise AssertionError


@app.task
def endless_payload(text: Endless) -> None:
    raise AssertionError


@app.task
async def exiting_payload(text: Exiting) -> None:
    raise AssertionError


@app.task(executor="process")
def fatal_payload_process(text: Fatal) -> None:
    raise AssertionError


@app.task
async def afterwards(ctx: Context) -> None:
    """Has gone well when its worker dies of it."""
    note(ctx, "start")
    asyncio.get_running_loop().call_soon(os._exit, 1)


@app.task
async def cancel_all(ctx: Context) -> None:
    """Cancels its neighbours and its worker too."""
    note(ctx, "start")
    for each in asyncio.all_tasks():
        each.cancel()
    await asyncio.sleep(600)


@app.task
async def stop_loop(ctx: Context) -> None:
    """A loop that was stopped goes on, so all this comes to is a failure."""
    note(ctx, "start")
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    raise RuntimeError("the loop goes on")


@app.task
def close_all(ctx: Context) -> None:
    note(ctx, "start")
    os.closerange(3, 256)


@app.task
async def close_all_async(ctx: Context) -> None:
    note(ctx, "start")
    os.closerange(3, 256)


class Abort(BaseException):
    """What no `except Exception` catches."""


@app.task
async def abort(ctx: Context) -> None:
    note(ctx, "start")
    raise Abort


@app.task(executor="process")
def segfault_process(ctx: Context) -> None:
    note(ctx, "start")
    ctypes.string_at(0)


@app.task(executor="process")
def gil_hog_process(ctx: Context) -> None:
    note(ctx, "start")
    ctypes.PyDLL(None).sleep(600)


# --- lost answers ----------------------------------------------------------------------------------------------------


def lose_answers(every: int) -> None:
    """Let the store do what it is asked, and tell this worker nothing about it: of every so many claims that got jobs."""
    from windlass.core.errors import OutcomeUnknown
    from windlass.ports.store import Claimed
    from windlass.stores.sqlite import shell

    run, granting = shell.Shell.run, itertools.count(1)

    def forgetful(self: Any, plan: Any, timeout: float | None = None) -> Any:
        answer = run(self, plan, timeout)
        claimed = [each for each in answer if isinstance(each, Claimed)] if isinstance(answer, list) else []
        if claimed and claimed[0].jobs and next(granting) % every == 0:
            ledger.write(LEDGER, "lost", "", note=str(len(claimed[0].jobs)))
            raise OutcomeUnknown("the answer was lost (by the test)")
        return answer

    shell.Shell.run = forgetful  # type: ignore[method-assign]


if os.environ.get("LOSE_ANSWERS"):
    lose_answers(int(os.environ["LOSE_ANSWERS"]))
