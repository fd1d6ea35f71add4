"""The worker: keeps its slots full, in one direction: claim, run, decide, settle.

Its heart is the turn: one transaction that reports, settles what has ended and claims what there is room for. While
a turn is under way handlers run and end, and what ended is the next turn's batch: so batches adapt by themselves, an
idle worker settles at once and a busy one in hundreds, without a timer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from windlass.core.errors import OutcomeUnknown, StoreError
from windlass.core.job import Cancelled, Held, LogLine, Meta, Outcome, Progress, Released, Token, Transition
from windlass.core.machine import decide, parked_for
from windlass.ports.plan import Plan, chain
from windlass.ports.store import Claimed, ClaimRequest, Opened, Quota
from windlass.runtime.executor import Executor
from windlass.runtime.hooks import Hooks
from windlass.runtime.registry import Registry
from windlass.runtime.run import Run, _decode_meta
from windlass.runtime.settler import BATCH, Holdings, Settler, retriable, stale, unsettleable
from windlass.runtime.slots import now_ns
from windlass.runtime.weights import Weights

if TYPE_CHECKING:
    from windlass.runtime.link import Link

log = logging.getLogger("windlass.worker")

AHEAD = 0.1
"""Jobs are claimed for the slots that will be free within this many seconds at the pace seen. 100 slots with jobs of
0.1 s refill at once; a slot with a job of 10 s takes nothing that another worker could start."""
POLL = 1.0
"""A worker looks by itself this often; its keeper's hints are what it normally lives by."""
BURST = 64
"""Jobs started before the event loop gets to turn."""
RETRY_FIRST, RETRY_MOST = 0.05, 1.0


class Worker:
    """Runs jobs of one application in this process until it is stopped.

    `link` connects it to whoever beats for it and may end it. All methods belong to the loop of `run`.
    """

    def __init__(
        self,
        registry: Registry,
        opened: Opened,
        link: Link,
        *,
        concurrency: int = 100,
        queues: Sequence[tuple[str, float | None]] = (("default", None),),
        suspects: bool = False,
        strict: bool = False,
    ) -> None:
        self._registry = registry
        self._opened = opened
        self._store = opened.store
        self._link = link
        self._concurrency = concurrency
        self._weights = Weights(queues, strict=strict)
        self._suspects = suspects
        self._buffer: deque[Held] = deque()
        self._exclude: dict[tuple[str, int], None] = {}
        self._progress: dict[Token, Progress] = {}
        self._lines: list[tuple[Token, LogLine]] = []
        self._settler = Settler(link.table)
        self._holdings = Holdings(link.table)
        self._seq = 0
        self._recover_from: int | None = None
        self._dry = False
        self._limited = False
        """A queue was at its limit at the last claim."""
        self._hints = 0
        self._stopping = ""
        self._lost = False
        self._reconcile = False
        self._latest: Run | None = None
        """The run that ended last, until the slots are filled again."""
        self._duration: float | None = None
        """Seconds that a job lasts: a moving average over one of each turn of the loop, about twenty of them."""

    async def run(self) -> None:
        """Work until stopped; returns once everything it held is settled or lost."""
        self._loop = asyncio.get_running_loop()
        self._shell = self._opened.async_shell()
        self._stirred = asyncio.Event()
        self._executor = Executor(
            self._registry,
            self._opened,
            self._link,
            self._concurrency,
            self._link.worker_id,
            self._done,
            self._committed,
            self._report,
        )
        hooks = Hooks(self._registry)
        self._executor.resources = await hooks.start()
        self._link.attach(self)
        self._tick()
        try:
            await self._work()
        finally:
            self._ticking.cancel()
            self._executor.close()
            await hooks.stop()
        self._link.stopped()

    # --- what its keeper tells it ----------------------------------------------------------------------------------

    def wake(self) -> None:
        """There may be jobs."""
        self._hints += 1
        self._dry = False
        self._stirred.set()

    def stop(self, deadline: float, reason: str) -> None:
        """Claim no more, hand back what has not begun, and what has not ended within `deadline` seconds."""
        if not self._stopping:
            self._stopping = reason or "worker stopping"
            self._link.table.draining = True
            while self._buffer:
                self._settle(self._buffer.popleft(), Released(self._stopping))
        self._loop.call_later(max(0.0, deadline), self._executor.release_all, self._stopping)
        self._stirred.set()

    def cancel(self, ids: Sequence[str]) -> None:
        """These jobs are asked to cancel."""
        asked = set(ids)
        for held in [h for h in self._buffer if h.id in asked]:
            self._buffer.remove(held)
            self._settle(held, Cancelled())
        for job in asked:
            self._executor.cancel(job)
        self._stirred.set()

    def taken(self) -> None:
        """Another has taken over: nothing that this worker still holds is its own."""
        log.warning("this worker was taken over; it stops what it runs and settles nothing")
        self._lost = True
        self._stopping = self._stopping or "taken over"
        self._buffer.clear()
        self._executor.release_all("taken over")
        self._stirred.set()

    def quarantine(self) -> None:
        """From now on run suspects only, one at a time, and nothing beside them."""
        self._suspects = True
        self.wake()

    def reconcile(self) -> None:
        """The store counts other tokens."""
        self._reconcile = True
        self._stirred.set()

    # --- what its handlers tell it -----------------------------------------------------------------------------------

    def _done(self, run: Run, outcome: Outcome) -> None:
        if isinstance(outcome, Released) and not self._stopping:
            outcome = Released(outcome.reason, delay=1.0)
        self._settler.add(decide(run.held, run.meta.policy, outcome, random.random()))
        self._made_way(run.meta)
        self._ended(run)

    def _made_way(self, meta: Meta) -> None:
        """The end of this run may let another job in, which no hint will tell: ask, in the turn that settles it."""
        if self._limited or meta.limits or meta.unique is not None:
            self._hints += 1
            self._dry = False

    def _committed(self, run: Run) -> None:
        self._holdings.drop([run.held.id])
        self._made_way(run.meta)
        self._ended(run)

    def _ended(self, run: Run) -> None:
        # However many end in one turn of the loop, their slots are filled once.
        if self._latest is None:
            self._loop.call_soon(self._refill)
        self._latest = run

    def _refill(self) -> None:
        if self._latest is not None:
            self._count(self._latest)
            self._latest = None
        self._fill()
        self._stirred.set()

    def _settle(self, held: Held, outcome: Outcome) -> None:
        meta = _decode_meta(held.meta)
        self._settler.add(decide(held, meta.policy, outcome, random.random()))
        self._made_way(meta)
        self._stirred.set()

    def _report(self, run: Run, what: Progress | LogLine) -> None:
        # Called from any thread: a dict store and a list append are atomic, and the event is set on the loop.
        if isinstance(what, Progress):
            self._progress[run.held.token] = what
        else:
            self._lines.append((run.held.token, what))
        self._loop.call_soon_threadsafe(self._stirred.set)

    # --- slots -------------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start prefetched jobs in free slots; one that ends inside its start has freed its slot again."""
        started = 0
        while self._buffer and self._executor.free and not self._settler.full and not self._stopping:
            if started >= BURST:
                self._loop.call_soon(self._fill)
                break
            started += 1
            self._begin(self._buffer.popleft())
        self._link.table.busy = len(self._executor.running)

    def _begin(self, held: Held) -> None:
        if self._registry.can_run(held.task, held.version):
            self._executor.start(held)
            return
        self._exclude[held.task, held.version] = None
        known = held.task in self._registry.tasks
        reason = "unknown_version" if known else "unknown_task"
        log.warning("cannot run %s version %d: handed back", held.task, held.version, extra={"job": held.id})
        self._settle(held, Released(reason, parked_for(held.started_at - held.created_at)))

    def _room(self) -> int:
        """How many jobs to claim now: for the free slots, and for those that will be free soon."""
        if self._dry or self._stopping or self._settler.full:
            return 0
        if self._suspects:  # alone, so that a crash is certainly its own
            return 0 if self._executor.running or self._buffer else 1
        free = self._executor.free - len(self._buffer)
        ahead = self._ahead()
        room = min(BATCH, free + ahead)
        # Half empty before it is filled again, or each job that ends would be a transaction of its own.
        return room if room > 0 and (free > 0 or room * 2 >= ahead) else 0

    # --- turns -------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        failures = 0
        while not self._finished():
            try:
                await self._turn()
                failures = 0
            except StoreError as error:
                failures += 1
                await self._failed(error, failures)
            await self._rest()

    def _finished(self) -> bool:
        if self._lost:
            return not any(run.task for run in self._executor.running.values())
        return bool(self._stopping) and not self._executor.running and not self._settler and not self._lines

    async def _rest(self) -> None:
        """Wait until there is something to do."""
        if self._due_turn():
            await asyncio.sleep(0)
            return
        if self._dry:
            self._link.want_wake(not self._stopping and self._executor.free > 0)
        self._stirred.clear()
        if not self._due_turn() and not self._finished():
            await self._stirred.wait()

    def _due_turn(self) -> bool:
        if self._lost:
            return False
        reports = self._progress or self._lines
        return bool(self._settler or reports or self._reconcile or self._recover_from is not None or self._room())

    async def _turn(self) -> None:
        if self._lost:
            return
        if self._recover_from is not None:
            await self._recover(self._recover_from)
        if self._reconcile:
            await self._reconcile_now()
        batch = self._settler.batch()
        room = self._room()
        plans: list[Plan[Any]] = []
        reports = self._take_reports()
        if reports is not None:
            plans.append(self._store.report(*reports))
        if batch:
            plans.append(self._store.settle(self._link.worker_id, batch))
        hints = self._hints
        if room:
            self._seq += 1
            plans.append(self._store.claim(self._link.worker_id, self._seq, self._request(room)))
        if not plans:
            return
        try:
            answers = await self._shell.run(chain(*plans))
        except StoreError:
            if room:
                self._recover_from = self._seq
            raise
        if room:
            self._granted(answers.pop(), hints)
        if batch:
            self._answered(batch, answers.pop())
        self._fill()

    def _request(self, room: int) -> ClaimRequest:
        quotas = tuple(Quota(queue, most) for queue, most in self._weights.share(room))
        return ClaimRequest(room, quotas, tuple(self._exclude), self._suspects)

    def _granted(self, claimed: Claimed, hints: int) -> None:
        if not claimed.alive:
            self.taken()
            return
        self._holdings.take(claimed.jobs)  # type: ignore[arg-type]  # a Held is a token, and more
        if self._stopping:
            for held in claimed.jobs:
                self._settle(held, Released(self._stopping))
            return
        self._buffer.extend(claimed.jobs)
        # A hint that came while the claim was under way may be of a job that it did not see.
        self._dry = not claimed.more and hints == self._hints
        self._limited = claimed.limited
        if self._dry and claimed.next_due is not None:
            self._loop.call_later(min(claimed.next_due / 1e6 + 0.0005, 3_600.0), self.wake)

    def _answered(self, batch: Sequence[Transition], answers: Sequence[Any]) -> None:
        self._settler.settled(len(batch))
        self._holdings.drop(t.id for t in batch)
        if late := stale(answers):
            log.warning("%d of %d outcomes came too late: their jobs were taken over", late, len(batch))
        if any(t.children for t in batch):
            self._opened.shell.hint()
            self.wake()
        waits = [t.after for t in batch if not t.state.terminal]
        if waits:
            self._loop.call_later(min(min(waits) / 1e6 + 0.0005, 3_600.0), self.wake)

    def _take_reports(self) -> tuple[list[tuple[Token, Progress]], list[tuple[Token, LogLine]]] | None:
        if not (self._progress or self._lines):
            return None
        progress, self._progress = self._progress, {}
        lines, self._lines = self._lines, []
        return list(progress.items()), lines

    # --- trouble -----------------------------------------------------------------------------------------------------

    async def _failed(self, error: StoreError, failures: int) -> None:
        if retriable(error):
            if failures == 1:
                log.warning("the store did not answer, trying again: %s", error)
        elif len(self._settler) > 0:
            await self._settle_one_by_one()
            return
        else:
            log.error("the store refused a turn: %s", error)
        wait = min(RETRY_MOST, RETRY_FIRST * 2 ** min(failures, 10))
        await asyncio.sleep(wait * (0.5 + random.random() / 2))

    async def _settle_one_by_one(self) -> None:
        """The store refused a batch for a reason of its own: find the guilty row, so that it fails alone."""
        for transition in self._settler.batch():
            plan = self._store.settle(self._link.worker_id, [transition])
            try:
                answers = await self._shell.run(plan)
            except OutcomeUnknown:
                return
            except StoreError as error:
                if retriable(error) or transition.reason == "unsettleable":
                    return
                log.error("the store refuses this outcome: %s", error, extra={"job": transition.id})
                self._settler.replace_first(unsettleable(transition, error))
                return
            self._answered([transition], answers)

    async def _recover(self, seq: int) -> None:
        """The answer to a claim was lost: what it granted is ours, and nobody else would ever run it."""
        granted = await self._shell.run(self._store.recover(self._link.worker_id, seq))
        self._recover_from = None
        fresh = [held for held in granted if self._holdings.fence(held.id) != held.fence]
        self._granted(Claimed(fresh, more=True), self._hints)
        self._fill()

    async def _reconcile_now(self) -> None:
        """Between two turns the two sides must agree; hand back what only the store knows, stop what only we do."""
        self._reconcile = False
        theirs = {t.id: t for t in await self._shell.run(self._store.held(self._link.worker_id))}
        ours = self._holdings.jobs()
        for job in ours - theirs.keys():
            log.warning("no longer ours", extra={"job": job})
            self._buffer = deque(h for h in self._buffer if h.id != job)
            self._executor.lose(job)
            self._holdings.drop([job])
        strange = [t for t in theirs.values() if t.id not in ours]
        if strange:
            from windlass.core.machine import release

            plan = self._store.settle(self._link.worker_id, [release(t, "reconciled") for t in strange])
            await self._shell.run(plan)

    # --- pace --------------------------------------------------------------------------------------------------------

    def _ahead(self) -> int:
        """How many jobs the slots will ask for within AHEAD seconds, going by how long jobs have lasted of late."""
        if self._suspects or self._duration is None:
            return 0
        return min(BATCH, int(self._concurrency * AHEAD / max(self._duration, 0.0001)))

    def _count(self, run: Run) -> None:
        lasted = self._loop.time() - run.started
        self._duration = lasted if self._duration is None else self._duration + (lasted - self._duration) * 0.05

    def _tick(self) -> None:
        """Show that the loop turns; and look for jobs now and then, whatever became of the hints."""
        self._link.table.turned = now_ns()
        self._dry = False
        self._stirred.set()
        self._ticking = self._loop.call_later(POLL, self._tick)
