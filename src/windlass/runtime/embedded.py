"""A worker inside the user's own process: `windlass worker --processes 0`, or a thread of a small web application.

It beats from a thread of its own and holds its own kernel lock, so the death of the process is noticed as any other.
What it cannot promise, having no parent that runs no user code:

- no hard limits: a handler that ignores its timeout goes on; tasks with `executor="process"` are left to others;
- a C call that keeps the GIL for longer than the hold stops the beat too, and where leases judge the jobs may be taken;
- nobody sees the process die: its jobs are recovered by the next one to start, or by another supervisor, and all that
  it held are suspects, run alone first;
- after a fork nothing runs in the child until `start` is called there; it then registers anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

from windlass.core.errors import CapabilityMissing, StoreError, StoreReplaced, WindlassError
from windlass.ports.store import BeatAnswer, Death, Listener, Opened, PruneRules, ScheduleChange, WorkerReport
from windlass.runtime import lockfile
from windlass.runtime.beat import Beat, Round
from windlass.runtime.judge import Judge
from windlass.runtime.keeper import Keeper
from windlass.runtime.link import Told
from windlass.runtime.logs import Log
from windlass.runtime.loop import hostname
from windlass.runtime.maintainer import Maintainer
from windlass.runtime.member import new_id
from windlass.runtime.poller import Poller
from windlass.runtime.process_slot import SlotClient
from windlass.runtime.registry import Mode, Registry
from windlass.runtime.relay import Relay
from windlass.runtime.scheduler import Scheduler
from windlass.runtime.slots import SlotTable, now_ns
from windlass.runtime.worker import Worker

QUIET = 0.2
"""Seconds between two looks for suspects that are left."""
START_TIMEOUT = 30.0

log = Log("embedded")


class EmbeddedLink:
    """A Link whose other end is this same process."""

    def __init__(self, worker_id: str, up: Callable[[], object] = lambda: None) -> None:
        """`up` is called when the worker has come up."""
        self.worker_id = worker_id
        self._up = up
        self.table = SlotTable()
        self.worker: Told | None = None
        self._wanted = False
        self._missed = True

    def attach(self, worker: Told) -> None:
        """See Link."""
        self.worker = worker
        # Once its loop has turned: then the store is to know that its start hooks have returned.
        asyncio.get_running_loop().call_soon(self._up)

    def hint(self) -> None:
        """The store may have changed."""
        if self._wanted and self.worker is not None:
            self._wanted = self._missed = False
            self.worker.wake()
        else:
            self._missed = True

    def want_wake(self, wanted: bool) -> None:
        """See Link."""
        self._wanted = wanted
        if wanted and self._missed:
            self.hint()

    async def process_slot(self) -> SlotClient:
        """See Link."""
        _refuse_process()

    def release_slot(self, slot: SlotClient, healthy: bool) -> None:
        """See Link."""
        _refuse_process()

    def stopped(self) -> None:
        """See Link."""

    def close(self) -> None:
        """See Link."""
        self.table.close()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How an embedded worker works; durations in seconds."""

    hold: float = 15.0
    concurrency: int = 20
    queues: tuple[tuple[str, float | None], ...] = (("default", None),)
    strict: bool = False
    rules: PruneRules = PruneRules()
    open_outbox: Callable[[], Opened] | None = None
    """Of the application, if it has one."""
    schedules: tuple[ScheduleChange, ...] = ()


class Embedded:
    """Runs jobs in this process, on a loop in a thread (`start`, `stop`) or on the caller's (`run`, `ask_to_stop`)."""

    def __init__(
        self,
        registry: Registry,
        open_store: Callable[[], Opened],
        settings: Settings | None = None,
        close_store: Callable[[Opened], object] = lambda _: None,
    ) -> None:
        """`open_store` answers the store with its schema, one for each process that asks; `close_store` is given it
        when the worker has ended."""
        self._settings = settings or Settings()
        left_out = sorted(name for name, task in registry.tasks.items() if task.mode is Mode.PROCESS)
        if left_out:
            log.warning("an embedded worker leaves these tasks to other workers", tasks=", ".join(left_out))
        for queue, meant in registry.unused(name for name, _ in self._settings.queues).items():
            perhaps = {"perhaps": meant} if meant else {}
            log.warning("no task of the application uses this queue", queue=queue, **perhaps)
        kept = {name: task for name, task in registry.tasks.items() if task.mode is not Mode.PROCESS}
        self._registry = msgspec.structs.replace(registry, tasks=kept)
        self._open_store = open_store
        self._close_store = close_store
        self._supervisor = new_id("e")
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._link: EmbeddedLink | None = None
        self._lock: lockfile.WorkerLock | None = None
        self._stop: tuple[float, str] | None = None
        self._suspects = True
        """Some may be left by a process that died; they run alone, before anything else."""
        self._quarantine = False
        """The session under way runs suspects."""
        self._registered: asyncio.Event | None = None
        self._mismatches = 0
        self._problem: StoreReplaced | None = None
        os.register_at_fork(after_in_child=self._forked)

    # --- in a thread -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start in a thread of this process, and return once the worker may claim. Does nothing if it runs already.
        Raises what its start raised, or StoreUnavailable's kin after 30 s."""
        if self.running:
            return
        up = threading.Event()
        failure: list[BaseException] = []

        def work() -> None:
            try:
                asyncio.run(self.run(up.set))
            except BaseException as error:  # raised again where it was asked for
                failure.append(error)
                if up.is_set():
                    log.error("the embedded worker failed", problem=repr(error))
            finally:
                up.set()

        self._thread = threading.Thread(target=work, name="windlass-embedded", daemon=True)
        self._thread.start()
        if not up.wait(START_TIMEOUT):
            raise WindlassError(f"the embedded worker could not register within {START_TIMEOUT:g} s")
        if failure:
            raise failure[0]

    @property
    def running(self) -> bool:
        """Whether it runs, in this very process."""
        return self._pid == os.getpid() and self._loop is not None

    def stop(self, timeout: float = 30.0) -> bool:
        """Claim no more, let running jobs finish for `timeout` seconds, hand the others back; from any thread. False if
        it had not ended a second after that (a handler that cannot be stopped)."""
        loop, thread = self._loop, self._thread
        if self.running and loop is not None:
            loop.call_soon_threadsafe(self.ask_to_stop, timeout)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout + 1.0)
            return not thread.is_alive()
        return True

    # --- on a loop ---------------------------------------------------------------------------------------------------

    async def run(self, up: Callable[[], object] = lambda: None) -> None:
        """Work on the running loop until asked to stop; `up` is called when the first worker is registered. Raises
        StoreReplaced if the store's file was deleted or replaced meanwhile, which ends the worker at once."""
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._stop = self._problem = None
        self._registered = asyncio.Event()
        opened = await asyncio.to_thread(self._open_store)
        try:
            await self._serve(opened, up)
        finally:
            self._loop = None
            await asyncio.to_thread(self._close_store, opened)
        if self._problem is not None:
            raise self._problem

    async def _serve(self, opened: Opened, up: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        beat = Beat(opened, self._settings.hold, self._post, self._beaten)
        keeper = Keeper(self._post, self._settings.hold / 6)
        courier = Keeper(self._post, self._settings.hold / 6)
        listener = opened.shell.listen()
        loop.add_reader(listener.fileno(), self._hinted, listener)
        try:
            beat.start()
            keeper.start()
            keeper.add(Judge(opened, opened.run_directory(), self._settings.hold, self._own, self._post_suspected))
            keeper.add(Maintainer(opened, self._supervisor, self._settings.rules, self._post_suspected))
            keeper.add(Scheduler(opened, self._supervisor, self._settings.schedules))
            keeper.add(Poller(opened, lambda: self._post(lambda: self._hinted(None)), self._post_replaced))
            if self._settings.open_outbox is not None:
                courier.start()
                courier.add(Relay(opened, self._settings.open_outbox, self._supervisor))
            while self._stop is None:
                await self._session(opened, beat, up)
        finally:
            self._loop = None
            loop.remove_reader(listener.fileno())
            listener.close()
            await asyncio.to_thread(beat.stop)
            if self._settings.open_outbox is not None:
                await asyncio.to_thread(courier.stop, self._settings.hold)
            await asyncio.to_thread(keeper.stop, self._settings.hold)

    def ask_to_stop(self, deadline: float = 30.0, reason: str = "stopping") -> None:
        """Stop as a supervisor's worker would; on the loop. `run` then returns."""
        self._stop = (deadline, reason)
        if self._registered is not None:
            self._registered.set()
        if self._link is not None and self._link.worker is not None:
            self._link.worker.stop(deadline, reason)

    def _post(self, call: Callable[[], object]) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed meanwhile: nobody waits for the call any more
                loop.call_soon_threadsafe(call)

    def _post_replaced(self, problem: StoreReplaced) -> None:
        def replaced() -> None:
            self._problem = problem
            self.ask_to_stop(0.0, str(problem))

        self._post(replaced)

    def _own(self) -> list[str]:
        link = self._link
        return [link.worker_id] if link is not None else []

    def _post_suspected(self, queues: Sequence[str] | None = None) -> None:
        self._post(lambda: self._suspected(queues))

    async def _session(self, opened: Opened, beat: Beat, up: Callable[[], object]) -> None:
        """One worker, under one id, until it is stopped, taken over, or has to make way for suspects."""
        assert self._registered is not None
        suspects, self._suspects = self._suspects and await self._any_suspects(opened), False
        self._quarantine = suspects
        link = self._link = EmbeddedLink(new_id("w"), beat.now)
        directory = opened.run_directory()
        if directory is not None:
            self._lock = lockfile.create(directory, link.worker_id)
        self._registered.clear()
        beat.add(link.worker_id, lambda: self._report(link, quarantine=suspects))
        watching = None
        try:
            await self._registered.wait()
            up()
            worker = Worker(
                self._registry,
                opened,
                link,
                concurrency=1 if suspects else self._settings.concurrency,
                queues=self._settings.queues,
                suspects=suspects,
                strict=self._settings.strict,
            )
            if suspects:
                watching = asyncio.create_task(self._until_no_suspects(opened, link))
            if self._stop is None:
                await worker.run()
        finally:
            if watching is not None:
                watching.cancel()
            beat.remove(link.worker_id)
            self._link = None
            await asyncio.to_thread(self._leave, opened, link.worker_id)
            link.close()

    def _leave(self, opened: Opened, worker_id: str) -> None:
        """Say that this worker is no more; it holds nothing, or nothing that is its own."""
        with contextlib.suppress(StoreError):
            death = Death(worker=worker_id, observed=True, explained=True, stopped=True, detail="stopped")
            opened.shell.run(opened.store.reap([death]))
        if self._lock is not None:
            self._lock.remove()
            self._lock = None

    async def _until_no_suspects(self, opened: Opened, link: EmbeddedLink) -> None:
        while link.table.held()[0] or await self._any_suspects(opened):  # noqa: ASYNC110 - a store sets no events
            await asyncio.sleep(QUIET)
        if link.worker is not None:
            link.worker.stop(30.0, "no suspects left")

    async def _any_suspects(self, opened: Opened) -> bool:
        with contextlib.suppress(StoreError):
            return self._serves((await opened.async_shell().run(opened.store.promote(1))).suspects)
        return True

    def _serves(self, queues: Sequence[str]) -> bool:
        return any(queue in queues for queue, _ in self._settings.queues)

    def _suspected(self, queues: Sequence[str] | None) -> None:
        """Make way: what may have killed a process must not run beside others."""
        if self._suspects or self._stop is not None or (queues is not None and not self._serves(queues)):
            return
        link = self._link
        if link is not None and link.worker is not None and not self._quarantine:
            self._suspects = True
            link.worker.stop(30.0, "suspects run alone first")

    # --- beats and hints ---------------------------------------------------------------------------------------------

    def _report(self, link: EmbeddedLink, *, quarantine: bool) -> WorkerReport:
        held, held_hash = link.table.held()
        state = "draining" if link.table.draining else "quarantine" if quarantine else link.table.condition
        return WorkerReport(
            id=link.worker_id,
            supervisor=self._supervisor,
            host=hostname(),
            pid=os.getpid(),
            hold=round(self._settings.hold * 1e6),
            queues=tuple(queue for queue, _ in self._settings.queues),
            tasks=self._registry.labels(),
            slots=self._settings.concurrency,
            busy=link.table.busy,
            held=held,
            held_hash=held_hash,
            state=state,
        )

    def _beaten(self, beat: Round) -> None:
        link = self._link
        for answer in beat.answers:
            if link is not None and answer.id == link.worker_id:
                self._answered(link, answer)
        for entry in link.table.executing() if link is not None else ():
            if 0 < entry.hard_deadline < now_ns():
                log.error("a job is past its hard limit; only a supervisor could kill it", job=entry.job_id)

    def _answered(self, link: EmbeddedLink, answer: BeatAnswer) -> None:
        if self._registered is not None:
            self._registered.set()
        worker = link.worker
        if worker is None:
            return
        if answer.taken:
            worker.taken()
        if answer.cancel:
            worker.cancel(answer.cancel)
        self._mismatches = self._mismatches + 1 if answer.mismatch else 0
        if self._mismatches >= 2:
            worker.reconcile()

    def _hinted(self, listener: Listener | None) -> None:
        if listener is not None:
            listener.drain()
        if self._link is not None:
            self._link.hint()

    def _forked(self) -> None:
        """In a child: the lock is the parent's alone, and none of its threads came along."""
        if self._lock is not None:
            self._lock.close()
        self._lock = self._link = self._loop = self._thread = None
        self._suspects = True


def _refuse_process() -> NoReturn:
    raise CapabilityMissing('process: an embedded worker cannot run executor="process"; use `windlass worker`')
