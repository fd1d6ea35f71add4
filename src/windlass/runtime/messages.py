"""What a supervisor and its workers say to each other: JSON lines over a socket pair, descriptors beside them.

A `Channel` never blocks on a peer that does not read (a stopped worker must not stop its supervisor); what does not
fit into the socket waits in a queue and is flushed later.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections import deque
from typing import Any, Generic, Literal, TypeVar, get_args

import msgspec

from windlass.core.job import Held, LogLine, Outcome, Progress
from windlass.ports.store import PruneRules, ScheduleChange

T = TypeVar("T")

FDS_MAX = 8
CHUNK = 65_536


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is started with, as its one argument; nothing secret, for every user can read it."""

    role: Literal["worker", "slot"]
    target: str
    parent: int = 0
    channel: int = -1
    """Descriptor of its end of the socket pair."""
    table: int = -1
    """Descriptor of its slot table."""
    concurrency: int | None = None
    queues: str | None = None
    quarantine: bool = False
    log_level: str = "info"
    log_json: bool | None = None


# --- supervisor -> worker --------------------------------------------------------------------------------------------


class Go(msgspec.Struct, tag="go", frozen=True):
    """Registered in the store: begin to claim. Brings the descriptor of the worker's lock file if `lock`."""

    worker_id: str
    lock: bool = False


class Wake(msgspec.Struct, tag="wake", frozen=True):
    """There may be jobs. Said once, until the worker says again that it wants it."""


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """Claim no more, hand back what has not begun, finish what has within `deadline` seconds."""

    deadline: float
    reason: str


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """These jobs are asked to cancel."""

    ids: tuple[str, ...]


class Quarantine(msgspec.Struct, tag="quarantine", frozen=True):
    """From now on run suspects only, one at a time; said to an idle worker, which is there sooner than a new one."""


class Taken(msgspec.Struct, tag="taken", frozen=True):
    """Taken over: stop what runs, settle nothing, exit."""


class Reconcile(msgspec.Struct, tag="reconcile", frozen=True):
    """The store counts other tokens than you do."""


class Slot(msgspec.Struct, tag="slot", frozen=True):
    """A warm process slot; brings the descriptor of its socket."""

    pid: int


class SlotGone(msgspec.Struct, tag="slot_gone", frozen=True):
    """A process slot is dead, and so is whatever it had started. `reason` is empty for a crash of its own."""

    pid: int
    reason: str
    detail: str


class NoSlots(msgspec.Struct, tag="no_slots", frozen=True):
    """Process slots do not start: hand one job back that waits for one."""

    reason: str


# --- worker -> supervisor --------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, tag="ready", frozen=True, kw_only=True):
    """The application is loaded. `url` may hold a password: it stays on this socket and is never logged."""

    url: str
    hold: float
    """Seconds that its lease lasts."""
    queues: tuple[str, ...]
    tasks: tuple[str, ...]
    concurrency: int
    processes: bool = False
    """Some task runs in a process slot, so one is kept warm."""
    stall_timeout: float | None = None
    options: dict[str, str] = {}
    """What the store is opened with, beside its URL."""
    rules: PruneRules = PruneRules()
    outbox: str | None = None
    """The URL of the application's outbox, if it has one; as secret as `url`."""
    files: tuple[str, ...] = ()
    """The application's source files, to watch for changes."""
    where: str = ""
    """Which store it is, as it may be shown and logged."""
    unused: dict[str, str] = {}
    """Queues that were asked for and that no task names, each with what may have been meant, or nothing."""
    schedules: tuple[ScheduleChange, ...] = ()
    """Those that its code defines."""


class Want(msgspec.Struct, tag="want", frozen=True):
    """Whether a hint is of use: the worker has free slots."""

    wanted: bool


class NeedSlot(msgspec.Struct, tag="need_slot", frozen=True):
    """A job waits for a process slot."""


class SlotDone(msgspec.Struct, tag="slot_done", frozen=True):
    """The worker has no more use for a process slot."""

    pid: int


class Stopped(msgspec.Struct, tag="stopped", frozen=True):
    """Drained: it holds nothing and is about to exit."""


class Broken(msgspec.Struct, tag="broken", frozen=True):
    """It cannot work at all, and says why before it exits."""

    reason: str
    detail: str = ""
    files: tuple[str, ...] = ()
    """As of Ready: what to change so that it may work."""


# --- worker <-> process slot -----------------------------------------------------------------------------------------


class SlotReady(msgspec.Struct, tag="slot_ready", frozen=True):
    """The child has loaded the application (said to the supervisor, before the socket is handed on)."""


class Adopt(msgspec.Struct, tag="adopt", frozen=True):
    """You work for this worker now; brings the descriptor of its lock file if `lock`."""

    worker_id: str
    lock: bool = False


class Run(msgspec.Struct, tag="run", frozen=True):
    """Run this job."""

    held: Held


class OnceAnswer(msgspec.Struct, tag="once_answer", frozen=True):
    """What the store keeps; `lost` when the job was taken over, `problem` when the store failed."""

    value: str | None
    lost: bool = False
    problem: str = ""


class SlotProgress(msgspec.Struct, tag="slot_progress", frozen=True):
    """`ctx.progress` in the child."""

    progress: Progress


class SlotLog(msgspec.Struct, tag="slot_log", frozen=True):
    """`ctx.log` in the child."""

    line: LogLine


class OnceAsk(msgspec.Struct, tag="once_ask", frozen=True):
    """`ctx.once` in the child: read (None) or write."""

    name: str
    value: str | None


class Ended(msgspec.Struct, tag="ended", frozen=True):
    """The handler ended. Outcomes carry no tag of their own, so `kind` names the class, one of OUTCOMES."""

    kind: str
    outcome: msgspec.Raw


OUTCOMES: dict[str, type[Outcome]] = {kind.__name__: kind for kind in get_args(Outcome)}

ToWorker = Go | Wake | Stop | Cancel | Quarantine | Taken | Reconcile | Slot | SlotGone | NoSlots
ToSupervisor = Ready | Want | NeedSlot | SlotDone | Stopped | Broken
ToSlot = Adopt | Run | OnceAnswer
FromBootingSlot = SlotReady | Broken
FromSlot = SlotReady | SlotProgress | SlotLog | OnceAsk | Ended


class Channel(Generic[T]):
    """One end of a socket pair. `incoming` is the union of messages that the other end may send."""

    def __init__(self, sock: socket.socket, incoming: Any) -> None:
        self.sock = sock
        self.closed = False
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(incoming)
        self._encode = msgspec.json.Encoder().encode
        self._in = bytearray()
        self._fds: deque[int] = deque()
        self._out: deque[tuple[bytes, int]] = deque()

    def fileno(self) -> int:
        """For a selector."""
        return self.sock.fileno()

    def send(self, message: msgspec.Struct, fd: int = -1) -> None:
        """Send, or queue what the socket has no room for. `fd` rides along; it stays the caller's to close."""
        if not self.closed:
            self._out.append((self._encode(message) + b"\n", os.dup(fd) if fd >= 0 else -1))
            self.flush()

    def flush(self) -> None:
        """Send as much as the socket takes now."""
        while self._out and not self.closed:
            data, fd = self._out.popleft()
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
            try:
                sent = self.sock.sendmsg([data], ancillary)
            except BlockingIOError:
                self._out.appendleft((data, fd))
                return
            except OSError:  # the peer is gone; its end is noticed by reading
                self._drop(fd)
                return
            self._drop(fd)
            if sent < len(data):
                self._out.appendleft((data[sent:], -1))

    @property
    def pending(self) -> bool:
        """Whether something waits for room in the socket."""
        return bool(self._out)

    def receive(self) -> list[T]:
        """Every whole message that has arrived; waits for one only if the socket blocks. At the end of the stream
        `closed` turns True. Raises msgspec.DecodeError (its MsgspecError) if the peer talks nonsense."""
        room = socket.CMSG_SPACE(FDS_MAX * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self.sock.recvmsg(CHUNK, room, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            data, ancillary = b"", []
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(raw[: len(raw) - len(raw) % fds.itemsize])
                for fd in fds:
                    os.set_inheritable(fd, False)
                self._fds.extend(fds)
        if not data:
            self.closed = True
            return []
        self._in += data
        *lines, rest = self._in.split(b"\n")
        self._in = bytearray(rest)
        return [self._decoder.decode(line) for line in lines]

    def take_fd(self) -> int:
        """The descriptor that came with the message at hand; it is the caller's to close."""
        return self._fds.popleft()

    def close(self) -> None:
        """Close the socket, and descriptors that nobody took or that were never sent."""
        self.closed = True
        for fd in [*self._fds, *(fd for _, fd in self._out)]:
            self._drop(fd)
        self._fds.clear()
        self._out.clear()
        self.sock.close()

    @staticmethod
    def _drop(fd: int) -> None:
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; neither is inherited unless asked for."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
