"""The worker: keeps its slots full, in one direction: claim, run, decide, settle.

Its heart is the turn: one transaction that reports, settles what has ended and claims what there is room for. While
a turn is under way handlers run and end, and what ended is the next turn's batch: so batches adapt by themselves, an
idle worker settles at once and a busy one in hundreds, without a timer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from windlass.core.errors import ChildConflict, OutcomeUnknown, StoreError
from windlass.core.job import (
    Cancelled,
    Expired,
    Held,
    LogLine,
    Meta,
    Outcome,
    Progress,
    Released,
    Token,
    Transition,
)
from windlass.core.machine import decide, parked_for
from windlass.ports.plan import Plan, chain
from windlass.ports.store import Claimed, ClaimRequest, Opened, Quota
from windlass.runtime.executor import Executor
from windlass.runtime.hooks import Hooks
from windlass.runtime.letters import Letters
from windlass.runtime.registry import Registry
from windlass.runtime.run import Run, _decode_meta
from windlass.runtime.settler import BATCH, Holdings, Settler, retriable, stale, unsettleable
from windlass.runtime.slots import now_ns
from windlass.runtime.weights import Weights

if TYPE_CHECKING:
    from windlass.runtime.link import Link

log = logging.getLogger("windlass.worker")

AHEAD = 0.1
"""Jobs are claimed for the slots that will be free within this many seconds, going by how many were within the last.
100 slots with jobs of 0.1 s refill at once; a slot with a job of 10 s asks for nothing that another could start."""
AHEAD_MOST = 0.5
"""Seconds that jobs claimed ahead wait for a slot at most: a job before them lasts longer than those before it, and
another worker may be idle."""
POLL = 1.0
"""A worker looks by itself this often; its keeper's hints are what it normally lives by."""
BURST = 64
"""Jobs started before the event loop gets to turn."""
RETRY_FIRST, RETRY_MOST = 0.05, 1.0
EXCLUDED_MOST = 256
"""Tasks that it cannot run, of which a claim looks past the latest: every claim carries their names."""
LINES_MOST = 10_000
"""Log lines that wait for a store that is away."""
REFUSED = 3
"""Times that the store refuses a turn before each outcome is settled alone, to find the guilty one."""


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
        self.sturdy = False
        """Nobody has a right to cancel its task: what does is a handler that cancels whatever it finds."""
        self._buffer: deque[Held] = deque()
        self._moved = 0.0
        """When the buffer was last filled or drawn from."""
        self._waiting: asyncio.TimerHandle | None = None
        self._expiries: dict[str, float] = {}
        """When jobs in the buffer expire, on the loop's clock."""
        self._exclude: dict[tuple[str, int], None] = {}
        self._progress: dict[Token, Progress] = {}
        self._lines: list[tuple[Token, LogLine]] = []
        self._stirring = False
        """A report's wake-up is under way."""
        self._settler = Settler(link.table)
        self._letters = Letters()
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
        self._ends = 0
        """Runs that ended since the slots were last filled."""
        self._pace = 0.0
        """Runs that ended within the last AHEAD seconds: a sum that fades."""
        self._paced = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Work until stopped; returns once everything it held is settled or lost."""
        self._pid = os.getpid()
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
            for timer in (self._ticking, self._waiting, self._alarm):
                if timer is not None:
                    timer.cancel()
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
            self._hand_back(self._stopping)
        self._loop.call_later(max(0.0, deadline), self._executor.release_all, self._stopping)
        self._stirred.set()

    def cancel(self, ids: Sequence[str]) -> None:
        """These jobs are asked to cancel."""
        asked = set(ids)
        for held in [h for h in self._buffer if h.id in asked]:
            self._buffer.remove(held)
            self._settle(held, Cancelled())
        for job in ids:
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
        transition = decide(run.held, run.meta.policy, outcome, random.random())
        self._letters.expect(transition, run.held.task)
        self._settler.add(transition, run.slot)
        self._made_way(run.meta)
        self._ended()

    def _made_way(self, meta: Meta) -> None:
        """The end of this run may let another job in, which no hint will tell: ask, in the turn that settles it."""
        if self._limited or meta.limits or meta.unique is not None:
            self._hints += 1
            self._dry = False

    def _committed(self, run: Run) -> None:
        if run.slot >= 0:
            self._link.table.end(run.slot)
        self._holdings.drop([run.held])
        self._made_way(run.meta)
        self._ended()

    def _ended(self) -> None:
        # However many end in one turn of the loop, their slots are filled once.
        if not self._ends:
            self._loop.call_soon(self._refill)
        self._ends += 1

    def _refill(self) -> None:
        self._fade()
        self._pace += self._ends
        self._ends = 0
        self._fill()
        self._stirred.set()

    def _settle(self, held: Held, outcome: Outcome) -> None:
        meta = _meta(held)
        self._settler.add(decide(held, meta.policy, outcome, random.random()))
        self._made_way(meta)
        self._stirred.set()

    def _hand_back(self, reason: str) -> None:
        """Give up all that was claimed ahead."""
        while self._buffer:
            self._settle(self._buffer.popleft(), Released(reason))

    def _report(self, run: Run, what: Progress | LogLine) -> None:
        # Called from any thread: a dict store and a list append are atomic, and the event is set on the loop.
        if isinstance(what, Progress):
            self._progress[run.held.token] = what
        else:
            self._lines.append((run.held.token, what))
        # One wake-up for however many reports before the loop turns: a handler that never waits may make millions.
        if not self._stirring:
            self._stirring = True
            self._loop.call_soon_threadsafe(self._stir)

    def _stir(self) -> None:
        self._stirring = False
        self._stirred.set()

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
        if started:
            self._moved = self._loop.time()
        if not self._buffer:
            self._expiries.clear()
        if self._buffer and self._waiting is None:
            self._waiting = self._loop.call_later(AHEAD_MOST, self._waited)
        self._link.table.busy = len(self._executor.running)

    def _waited(self) -> None:
        """What was claimed ahead of a slot that does not get free is another worker's to run."""
        self._waiting = None
        left = self._moved + AHEAD_MOST - self._loop.time()
        if self._buffer and left > 0:
            self._waiting = self._loop.call_later(left, self._waited)
        elif self._buffer and not self._executor.free:
            self._hand_back("claimed ahead of a slot that did not get free")

    def _begin(self, held: Held) -> None:
        if held.expires_at is not None and self._loop.time() >= self._expiries.pop(held.id, math.inf):
            self._settle(held, Expired())
        elif not self._registry.can_run(held.task, held.version):
            self._exclude[held.task, held.version] = None
            if len(self._exclude) > EXCLUDED_MOST:
                del self._exclude[next(iter(self._exclude))]
            known = held.task in self._registry.tasks
            self._park(held, "unknown_version" if known else "unknown_task")
        elif not _readable(held):
            self._park(held, "unknown_version")
        else:
            self._executor.start(held)

    def _park(self, held: Held, reason: str) -> None:
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
                try:
                    await self._turn()
                    failures = 0
                except StoreError as error:
                    failures += 1
                    await self._failed(error, failures)
                await self._rest()
            except asyncio.CancelledError:
                if not self.sturdy:
                    raise
                self._endure()

    def _endure(self) -> None:
        """One job has cancelled every task there is. That is as a crash to the others; but the worker goes on."""
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()
        log.error("a job cancelled every task of its worker; which one is found out by running them alone")
        self._executor.swept()

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
        hints, asked = self._hints, self._loop.time()
        if room:
            self._seq += 1
            plans.append(self._store.claim(self._link.worker_id, self._seq, self._request(room)))
        if not plans:
            return
        try:
            answers = await self._shell.run(chain(*plans))
        except (StoreError, asyncio.CancelledError):
            if room:
                self._recover_from = self._seq
            if reports is not None:
                self._keep_reports(*reports)
            raise
        claimed = answers.pop() if room else None
        # In this order: a job that was settled may be in the claim again, under a new token.
        if batch:
            self._answered(batch, answers.pop())
        if claimed is not None:
            self._granted(claimed, hints, asked)
        self._fill()

    def _request(self, room: int) -> ClaimRequest:
        quotas = tuple(Quota(queue, most) for queue, most in self._weights.share(room))
        return ClaimRequest(room, quotas, tuple(self._exclude), self._suspects)

    def _granted(self, claimed: Claimed, hints: int, asked: float) -> None:
        """`asked` is the instant before the claim was sent."""
        if not claimed.alive:
            self.taken()
            return
        self._holdings.take(claimed.jobs)
        if self._stopping:
            for held in claimed.jobs:
                self._settle(held, Released(self._stopping))
            return
        self._buffer.extend(claimed.jobs)
        self._moved = self._loop.time()
        for held in claimed.jobs:
            if held.expires_at is not None:
                self._expiries[held.id] = asked + (held.expires_at - held.started_at) / 1e6
        # A hint that came while the claim was under way may be of a job that it did not see.
        self._dry = not claimed.more and hints == self._hints
        self._limited = claimed.limited
        if self._dry and claimed.next_due is not None:
            self._wake_in(claimed.next_due)

    def _answered(self, batch: Sequence[Transition], answers: Sequence[Any]) -> None:
        self._settler.settled(len(batch))
        self._holdings.drop(batch)
        self._letters.tell(batch, answers, self._loop.time())
        if late := stale(answers):
            log.warning("%d of %d outcomes came too late: their jobs were taken over", late, len(batch))
        if any(t.children for t in batch):
            self._opened.shell.hint()
            self.wake()
        waits = [t.after for t in batch if not t.state.terminal]
        if waits:
            self._wake_in(min(waits))

    def _wake_in(self, micros: int) -> None:
        """Look again when the next job comes due; one timer, for the earliest."""
        at = self._loop.time() + min(micros / 1e6 + 0.0005, 3_600.0)
        alarm = self._alarm
        if alarm is not None and self._loop.time() < alarm.when() <= at:
            return
        if alarm is not None:
            alarm.cancel()
        self._alarm = self._loop.call_at(at, self.wake)

    def _take_reports(self) -> tuple[list[tuple[Token, Progress]], list[tuple[Token, LogLine]]] | None:
        if not (self._progress or self._lines):
            return None
        progress, self._progress = self._progress, {}
        lines, self._lines = self._lines, []
        return list(progress.items()), lines

    def _keep_reports(self, progress: list[tuple[Token, Progress]], lines: list[tuple[Token, LogLine]]) -> None:
        """Their turn failed: for the next one, behind which no later progress may stand back."""
        self._progress = dict(progress) | self._progress
        self._lines = (lines + self._lines)[-LINES_MOST:]

    # --- trouble -----------------------------------------------------------------------------------------------------

    async def _failed(self, error: StoreError, failures: int) -> None:
        if retriable(error):
            self._settler.excuse()
            if failures == 1:
                log.warning("the store did not answer, trying again: %s", error)
        elif len(self._settler) > 0 and (failures >= REFUSED or isinstance(error, ChildConflict)):
            await self._settle_one_by_one()
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
        asked = self._loop.time()
        granted = await self._shell.run(self._store.recover(self._link.worker_id, seq))
        self._recover_from = None
        fresh = [held for held in granted if self._holdings.fence(held.id) != held.fence]
        self._granted(Claimed(fresh, more=True), self._hints, asked)
        self._fill()

    async def _reconcile_now(self) -> None:
        """Between two turns the two sides must agree; hand back what only the store knows, stop what only we do."""
        self._reconcile = False
        theirs: set[Token] = {*await self._shell.run(self._store.held(self._link.worker_id))}
        ours = self._holdings.tokens()
        gone, strange = in_order(ours - theirs), in_order(theirs - ours)
        for token in gone:
            log.warning("no longer ours", extra={"job": token.id})
            self._buffer = deque(h for h in self._buffer if h.token != token)
            self._executor.lose(token)
        self._holdings.drop(gone)
        if strange:
            from windlass.core.machine import release

            plan = self._store.settle(self._link.worker_id, [release(t, "reconciled") for t in strange])
            await self._shell.run(plan)

    # --- pace --------------------------------------------------------------------------------------------------------

    def _ahead(self) -> int:
        """How many jobs the slots will ask for within AHEAD seconds, if the next are like those that ended of late."""
        self._fade()
        return min(BATCH, int(self._pace))

    def _fade(self) -> None:
        now = self._loop.time()
        self._pace *= math.exp((self._paced - now) / AHEAD)
        self._paced = now

    def _tick(self) -> None:
        """Show that the loop turns; and look for jobs now and then, whatever became of the hints."""
        if os.getpid() != self._pid:
            os._exit(1)  # a coroutine forked and waits in its child, where nothing that it waits for is its own
        self._link.table.turned = now_ns()
        self._dry = False
        self._stirred.set()
        self._ticking = self._loop.call_later(POLL, self._tick)


def _meta(held: Held) -> Meta:
    return _decode_meta(held.meta) if _readable(held) else Meta()


def _readable(held: Held) -> bool:
    """Whether this version of Windlass understands the job's meta (I23, I25): a newer one may have written it."""
    try:
        _decode_meta(held.meta)
    except msgspec.MsgspecError:
        return False
    return True


def in_order(tokens: Iterable[Token]) -> list[Token]:
    """Tokens in one order, whatever the hash seed, so that a simulated life is the same twice."""
    return sorted(tokens, key=lambda token: (token.id, token.fence))
