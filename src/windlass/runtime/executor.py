"""The executor: starts handlers where they belong and turns what happens to them into outcomes.

It never waits for the store: outcomes go to the worker's settler through `done`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from windlass.core.errors import LeaseLost
from windlass.core.job import Cancelled, ErrorInfo, Failed, Held, Lost, Outcome, Released, Succeeded, Token
from windlass.core.machine import decide
from windlass.runtime.context import Context, current_run
from windlass.runtime.process import end_fork
from windlass.runtime.process_slot import NoSlot
from windlass.runtime.registry import Mode, Registry
from windlass.runtime.run import Run, aside
from windlass.runtime.slots import now_ns
from windlass.runtime.threads import Call, Threads
from windlass.runtime.timers import Timers
from windlass.runtime.verdict import describe, failure, unbindable, unstorable

if TYPE_CHECKING:
    from windlass.ports.store import Opened
    from windlass.runtime.link import Link

log = logging.getLogger("windlass.worker")

EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""A coroutine stepped outside a Task breaks asyncio.timeout and TaskGroup; a Task started eagerly does not."""


SWEEP = 1.0
"""Seconds that it takes a cancel to reach handlers through the tasks that they wait for."""


class Executor:
    """Runs up to `concurrency` jobs at once. All methods but the thread bodies belong to the event loop."""

    def __init__(
        self,
        registry: Registry,
        opened: Opened,
        link: Link,
        concurrency: int,
        worker_id: str,
        done: Callable[[Run, Outcome], None],
        settled: Callable[[Run], None],
        report: Callable[[Run, Any], None],
    ) -> None:
        self._registry = registry
        self._opened = opened
        self._link = link
        self._worker_id = worker_id
        self._done = done
        self._settled = settled
        self._report = report
        self.resources: dict[type, Any] = {}
        self.running: dict[str, Run] = {}
        self.free = concurrency
        """How many more jobs could start now."""
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._main = asyncio.current_task()
        """The worker's own."""
        self._swept_until = 0.0
        self._threads = Threads(concurrency, self._loop, self._in_thread, self._thread_ended)
        self._timers = Timers(self._loop, self._time_out)

    def start(self, held: Held) -> None:
        """Start one job; `done` (or `settled`) is called on the loop when it ends, perhaps before this returns."""
        taskdef = self._registry.tasks[held.task]
        run = Run(held, taskdef, -1, self._opened, self._report)
        self.free -= 1
        self.running[held.id] = run
        if taskdef.mode is Mode.PROCESS:  # the child binds the payload and injects its own resources
            run.task = self._loop.create_task(self._in_process(run))
            run.task.add_done_callback(lambda task: self._unborn(run, task))
            return
        try:
            self._begin(run)  # already now: binding runs user code (the constructors of annotated types) too
        except ValueError as error:  # an id that is none: a row that somebody made by hand
            self._end(run, Failed(describe(error), permanent=True, reason="id"))
            return
        try:
            call = taskdef.bind(held.payload, held.version)
            if taskdef.resources or taskdef.context is not None:
                self._inject(run, call)
        except BaseException as error:
            self._end(run, unbindable(error))
            return
        if taskdef.mode is Mode.ASYNC:
            # Not by `loop.create_task`, which makes up a name for each.
            task = asyncio.Task(self._in_loop(run, call), loop=self._loop, name=held.id, **EAGER)
            run.task = None if task.done() else task
            if not EAGER:
                task.add_done_callback(lambda task: self._unborn(run, task))
        else:
            self._threads.submit(run, call)

    def _begin(self, run: Run, pid: int = 0) -> None:
        """From here on its handler runs: mark it in the table, and have its time count."""
        policy, hard = run.meta.policy, 0
        if policy.timeout is not None:
            self._timers.add(run, policy.timeout)
            hard = now_ns() + round((policy.timeout + policy.grace) * 1e9)
        held, table = run.held, self._link.table
        run.slot = table.take()
        table.begin(run.slot, held.id, held.fence, hard, pid, exclusive=run.taskdef.exclusive)

    def _inject(self, run: Run, call: Call) -> None:
        taskdef, (args, kwargs) = run.taskdef, call
        for name, kind in taskdef.resources.items():
            kwargs[name] = self.resources[kind]
        if isinstance(taskdef.context, str):
            kwargs[taskdef.context] = Context(run)
        elif taskdef.context is not None:
            args.insert(taskdef.context, Context(run))

    # --- on the loop -----------------------------------------------------------------------------------------------

    async def _in_loop(self, run: Run, call: Call) -> None:
        current_run.set(run)
        try:
            value = await run.taskdef.handler(*call[0], **call[1])
            if os.getpid() != self._pid:
                end_fork()
            outcome = self._success(run, value)
        except asyncio.CancelledError as error:
            outcome = self._stopped(run, error)
        except GeneratorExit as error:
            if not _stepped(run):
                raise  # nobody raised it: the loop is gone, and this coroutine is being collected
            if os.getpid() != self._pid:
                end_fork(error)
            outcome = _told(run) or failure(run.taskdef, error)
        except BaseException as error:  # a handler may give up with SystemExit or its own kind, not the worker with it
            if os.getpid() != self._pid:
                end_fork(error)
            outcome = _told(run) or failure(run.taskdef, error)
        kept = outcome if run.session is None else await self._commit_aside(run, outcome)
        if kept is not None:
            self._end(run, kept)

    def _unborn(self, run: Run, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step runs nothing of its coroutine, not even an `except`."""
        if task.cancelled():
            self._end(run, _told(run) or Released("cancelled before it began"))

    async def _commit_aside(self, run: Run, outcome: Outcome) -> Outcome | None:
        """`_commit` in a thread, as it may wait for the disk, or for readers; too late to be cancelled."""
        committing = aside(self._loop, lambda: self._commit(run, outcome))
        while not committing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(committing)
        return committing.result()

    def _success(self, run: Run, value: Any) -> Outcome:
        if run.cancel_requested:  # it was told before it returned: a cancellation is final, whatever it made of it
            return Cancelled()
        if value is None and not run.children:
            return _NOTHING
        try:
            return Succeeded(run.taskdef.encode(value), tuple(run.children))
        except Exception as error:
            return unstorable(error)

    def _commit(self, run: Run, outcome: Outcome) -> Outcome | None:
        """End the handler's own transaction; None when the job's completion was committed with it."""
        if not isinstance(outcome, Succeeded):
            try:
                run.abandon_session()
            except BaseException:
                log.exception("its transaction could not be rolled back", extra={"job": run.held.id})
            return outcome
        try:
            transition = decide(run.held, run.meta.policy, outcome, 0.0)
            run.complete_in_session(self._opened.store.settle(self._worker_id, [transition]))
        except LeaseLost:
            log.warning("taken over before its transaction ended; nothing was kept", extra={"job": run.held.id})
        except BaseException as error:
            # Not committed, so the job failed like any other, and its own writes are gone with it; where that is not
            # certain, the settle of this failure finds the receipt and is answered `already`.
            return Failed(describe(error))
        self._loop.call_soon_threadsafe(self._committed, run)
        return None

    def _committed(self, run: Run) -> None:
        self._release(run)
        self._settled(run)

    # --- in a thread -----------------------------------------------------------------------------------------------

    def _thread_ended(self, run: Run, outcome: Outcome | None) -> None:
        if outcome is not None:
            self._end(run, outcome)

    def _in_thread(self, run: Run, call: Call) -> Outcome | None:
        """Run a plain handler; called by a thread of the pool. None: its completion is committed already."""
        current_run.set(run)
        try:
            value = run.taskdef.handler(*call[0], **call[1])
            if os.getpid() != self._pid:
                end_fork()
            outcome = self._success(run, value)
        except BaseException as error:
            if os.getpid() != self._pid:
                end_fork(error)
            outcome = _told(run) or failure(run.taskdef, error)
        return self._commit(run, outcome) if run.session is not None else outcome

    # --- in a child process ----------------------------------------------------------------------------------------

    async def _in_process(self, run: Run) -> None:
        slot, healthy, outcome = None, False, None
        try:
            slot = await self._link.process_slot()
            self._begin(run, slot.pid)
            outcome = await slot.run(run)
            healthy = slot.healthy
        except asyncio.CancelledError as error:
            outcome = self._stopped(run, error)
        except NoSlot as error:
            outcome = Released(str(error))
        except Exception as error:
            outcome = Failed(describe(error))
        finally:
            if slot is not None:
                self._link.release_slot(slot, healthy)
        self._end(run, outcome)

    # --- ends and interruptions ------------------------------------------------------------------------------------

    def _end(self, run: Run, outcome: Outcome) -> None:
        self._release(run)
        self._done(run, outcome)

    def _release(self, run: Run) -> None:
        if run.slot >= 0:
            self._link.table.ended(run.slot)
        self.free += 1
        self.running.pop(run.held.id, None)
        self._timers.clear(run)

    def _time_out(self, run: Run) -> None:
        run.timed_out = True
        self._interrupt(run)

    def cancel(self, job: str) -> None:
        """A cancellation was asked for: stop the handler if it can be stopped, tell it otherwise. Every beat says so
        again; a handler that cleans up must not be interrupted in that as well."""
        run = self.running.get(job)
        if run is not None and not run.cancel_requested:
            run.cancel_requested = True
            self._interrupt(run)

    def lose(self, token: Token) -> None:
        """The token is no longer this worker's: stop its run, whose outcome will be refused."""
        run = self.running.get(token.id)
        if run is not None and run.held.fence == token.fence:
            self._hand_back(run, "lost")

    def release_all(self, reason: str) -> None:
        """Stop every handler that can be stopped; their jobs are handed back uncharged."""
        for run in list(self.running.values()):
            self._hand_back(run, reason)

    def _hand_back(self, run: Run, reason: str) -> None:
        if not run.released:
            run.released = reason
            self._interrupt(run)

    def swept(self) -> None:
        """A job cancelled every task of the loop, this worker's own among them: whoever is stopped within a moment is
        its victim, or itself."""
        self._swept_until = self._loop.time() + SWEEP

    def _stopped(self, run: Run, error: BaseException) -> Outcome:
        told, main = _told(run), self._main
        swept = self._loop.time() < self._swept_until or (main is not None and main.cancelling() > 0)
        if told is None and swept:
            # As with a death: which of them did it will show when each runs alone.
            alone = len(self.running) == 1
            return Lost(started=True, alone=alone, detail="every task of its worker was cancelled by a job")
        return told or Failed(describe(error), reason="cancelled by its own code")

    def _interrupt(self, run: Run) -> None:
        run.stop_flag = True
        if run.task is not None:
            run.task.cancel()

    def close(self) -> None:
        """Let the idle threads go."""
        self._timers.close()
        self._threads.close()


_NOTHING = Succeeded()


def _stepped(run: Run) -> bool:
    """Whether the caller runs in the task of this run."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.get_name() == run.held.id


def _told(run: Run) -> Outcome | None:
    """Why this run was interrupted, if it was. A cancel outranks a time-out, which outranks the worker's own stop."""
    if run.cancel_requested:
        return Cancelled()
    if run.timed_out:
        limit = run.meta.policy.timeout
        return Failed(ErrorInfo("TimeoutError", f"ran longer than its timeout of {limit:g} s"), reason="timeout")
    return Released(run.released) if run.released else None
