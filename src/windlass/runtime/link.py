"""The worker's side of its supervisor: what it is told, what it asks for, and that it dies with it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from windlass.runtime import messages
from windlass.runtime.messages import (
    Cancel,
    Channel,
    NeedSlot,
    NoSlots,
    Quarantine,
    Reconcile,
    Slot,
    SlotDone,
    SlotGone,
    Stop,
    Stopped,
    Taken,
    ToWorker,
    Wake,
    Want,
)
from windlass.runtime.process_slot import NoSlot, SlotClient
from windlass.runtime.slots import SlotTable

IDLE_MOST = 60.0
"""Seconds that a process slot may be without a job before it is given back; each holds a whole application."""
FAREWELL = 2.0
"""Seconds that it gets to end by itself."""


class _Idle(NamedTuple):
    slot: SlotClient
    since: float


class Told(Protocol):
    """What a link calls, always on the loop that it was attached on."""

    def wake(self) -> None:
        """There may be jobs."""
        ...

    def stop(self, deadline: float, reason: str) -> None:
        """Claim no more; what runs may go on for `deadline` seconds."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """These jobs are asked to cancel."""
        ...

    def taken(self) -> None:
        """Taken over: nothing that is held is its own any more."""
        ...

    def quarantine(self) -> None:
        """Run suspects only from now on."""
        ...

    def reconcile(self) -> None:
        """The store counts other tokens."""
        ...


class Link(Protocol):
    """Connects a worker to whoever beats for it and may end it."""

    worker_id: str
    table: SlotTable

    def attach(self, worker: Told) -> None:
        """Pass on to `worker` what is said from now on, and what was said before; on the running loop."""
        ...

    async def process_slot(self) -> SlotClient:
        """A warm child; waits for one. Raises NoSlot when told to stop meanwhile, or that none can be started."""
        ...

    def release_slot(self, slot: SlotClient, healthy: bool) -> None:
        """Give it back; one that is not `healthy` is killed."""
        ...

    def want_wake(self, wanted: bool) -> None:
        """Say whether hints are of use. Each `wake` takes the wish back: say it again after having looked."""
        ...

    def stopped(self) -> None:
        """Say that nothing is held any more and the process is about to end."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class PipeLink:
    """The link of a worker that a supervisor started: the socket pair that it inherited."""

    def __init__(
        self, channel: Channel[ToWorker], table: SlotTable, worker_id: str, lock_fd: int, early: Sequence[ToWorker] = ()
    ) -> None:
        """`early` was received together with Go."""
        self.worker_id = worker_id
        self.table = table
        self._channel = channel
        self._lock_fd = lock_fd
        self._early = list(early)
        self._wanted = False
        self._leaving = ""
        self._worker: Told | None = None
        self._slots: dict[int, SlotClient] = {}
        self._idle: list[_Idle] = []
        self._tidying: asyncio.TimerHandle | None = None
        self._waiting: deque[asyncio.Future[SlotClient]] = deque()
        channel.sock.setblocking(False)
        # A forked child (multiprocessing) that outlives the worker must not keep it alive in the eyes of the kernel.
        os.register_at_fork(after_in_child=self._forked)

    def attach(self, worker: Told) -> None:
        """See Link."""
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        early, self._early = self._early, []
        for message in early:
            self._obey(message)
        self._loop.add_reader(self._channel.fileno(), self._readable)

    async def process_slot(self) -> SlotClient:
        """See Link."""
        if self._idle:
            return self._idle.pop().slot
        future: asyncio.Future[SlotClient] = self._loop.create_future()
        if self._leaving:
            self._refuse(future, self._leaving)
            return await future
        self._waiting.append(future)
        self._channel.send(NeedSlot())
        try:
            return await future
        except asyncio.CancelledError:
            # It may have come in the same turn of the loop; then nobody else knows of it.
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release_slot(future.result(), healthy=True)
            raise

    def release_slot(self, slot: SlotClient, healthy: bool) -> None:
        """See Link."""
        if healthy and slot.healthy:
            self._offer(slot)
        else:
            self.retire(slot)

    def retire(self, slot: SlotClient) -> None:
        """Have the supervisor kill it; SlotGone follows."""
        slot.healthy = False
        if self._slots.get(slot.pid) is slot:
            self._channel.send(SlotDone(slot.pid))

    def want_wake(self, wanted: bool) -> None:
        """See Link."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._channel.send(Want(wanted))

    def stopped(self) -> None:
        """See Link."""
        self._channel.send(Stopped())

    def close(self) -> None:
        """See Link."""
        if self._worker is not None:
            self._loop.remove_reader(self._channel.fileno())
        if self._tidying is not None:
            self._tidying.cancel()
        for slot in self._slots.values():
            slot.close()
        self._slots.clear()
        self._channel.close()
        self._drop_lock()

    def _readable(self) -> None:
        for message in self._channel.receive():
            self._obey(message)
        if self._channel.closed:
            # The supervisor is gone; so must we be, before anybody takes our jobs over.
            os.kill(os.getpid(), signal.SIGKILL)
        self._channel.flush()

    def _obey(self, message: ToWorker) -> None:
        worker = self._worker
        assert worker is not None
        match message:
            case Wake():
                self._wanted = False
                worker.wake()
            case Stop(deadline=deadline, reason=reason):
                self._leaving = reason
                while self._waiting:
                    self._refuse(self._waiting.popleft(), reason)
                worker.stop(deadline, reason)
            case Cancel(ids=ids):
                worker.cancel(ids)
            case Quarantine():
                worker.quarantine()
            case Taken():
                worker.taken()
            case Reconcile():
                worker.reconcile()
            case Slot(pid=pid):
                sock = socket.socket(fileno=self._channel.take_fd())
                slot = SlotClient(pid, sock, self.retire, self.worker_id, self._lock_fd)
                self._slots[pid] = slot
                self._offer(slot)
            case SlotGone():
                self._gone(message)
            case NoSlots(reason=reason):
                self._refuse_one(reason)

    def _gone(self, message: SlotGone) -> None:
        slot = self._slots.pop(message.pid, None)
        if slot is not None:
            self._idle = [each for each in self._idle if each.slot is not slot]
            slot.gone(message)

    def _offer(self, slot: SlotClient) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(slot)
                return
        self._idle.append(_Idle(slot, self._loop.time()))
        self._tidy()

    def _tidy(self) -> None:
        """Give back what a burst left idle, the longest first, but keep one warm."""
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        while len(self._idle) > 1 and self._loop.time() >= self._idle[0].since + IDLE_MOST:
            slot = self._idle.pop(0).slot
            slot.healthy = False
            slot.close()  # it ends by itself, and lets go of what its start hooks made
            self._loop.call_later(FAREWELL, self.retire, slot)
        if len(self._idle) > 1 and not self._leaving:
            self._tidying = self._loop.call_at(self._idle[0].since + IDLE_MOST, self._tidy)

    def _refuse_one(self, reason: str) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                self._refuse(future, reason)
                return

    @staticmethod
    def _refuse(future: asyncio.Future[SlotClient], reason: str) -> None:
        if not future.done():
            future.set_exception(NoSlot(reason))

    def _drop_lock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _forked(self) -> None:
        self._drop_lock()
        self._channel.sock.close()


def first_words(channel: Channel[ToWorker]) -> tuple[messages.Go, int, list[ToWorker]] | None:
    """Wait, blocking, to be told to begin: (Go, descriptor of the lock or -1, what was said after it). None when
    told to stop before. Ends the process with its supervisor."""
    said: list[ToWorker] = []
    while True:
        said += channel.receive()
        for at, message in enumerate(said):
            if isinstance(message, messages.Go):
                return message, channel.take_fd() if message.lock else -1, said[at + 1 :]
            if isinstance(message, Stop):
                return None
        if channel.closed:
            os.kill(os.getpid(), signal.SIGKILL)
