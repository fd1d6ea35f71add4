"""The machine, as a supervisor uses it: the loop, the threads and the children that it is given. A simulation hands in
another; signals, waits and orphans are in `process`."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from windlass.runtime import process, slots
from windlass.runtime.loop import Loop
from windlass.runtime.messages import Boot, Channel, FromBootingSlot, ToSupervisor, pair
from windlass.runtime.slots import SlotTable
from windlass.runtime.ticker import Step, ThreadTicker, Ticker


class WorkerChild(NamedTuple):
    """A worker process that was started."""

    pid: int
    mark: str
    """What its descendants carry, so that orphans can be told apart."""
    channel: Channel[ToSupervisor]
    table: SlotTable


class SlotChild(NamedTuple):
    """A process slot that was started."""

    pid: int
    mark: str
    channel: Channel[FromBootingSlot]


class Host:
    """This machine."""

    def loop(self) -> Loop:
        """A loop for the calling thread."""
        return Loop()

    def ticker(self, name: str, step: Step, end: Callable[[], object] | None = None) -> Ticker:
        """What turns a duty that waits for the store; see ThreadTicker."""
        return ThreadTicker(name, step, end)

    def start_worker(self, command: Sequence[str], boot: Boot) -> WorkerChild:
        """Start a worker with `boot`, to which the descriptors that it inherits are added. Raises OSError if the
        system has no process, memory or descriptor left."""
        mark = secrets.token_hex(8)
        with contextlib.ExitStack() as passed, contextlib.ExitStack() as undo:
            ours, theirs = pair()
            undo.callback(ours.close)
            passed.callback(theirs.close)
            table_fd = slots.create()
            passed.callback(os.close, table_fd)
            table = SlotTable(table_fd)
            fds = (theirs.fileno(), table_fd)
            pid = _spawn(command, msgspec.structs.replace(boot, channel=fds[0], table=fds[1]), mark, fds)
            undo.pop_all()
        ours.setblocking(False)
        return WorkerChild(pid, mark, Channel(ours, ToSupervisor), table)

    def start_slot(self, command: Sequence[str], boot: Boot) -> SlotChild:
        """Start a process slot. Raises OSError as `start_worker`."""
        ours, theirs = pair()
        mark = secrets.token_hex(8)
        try:
            slot = msgspec.structs.replace(boot, role="slot", channel=theirs.fileno())
            pid = _spawn(command, slot, mark, (theirs.fileno(),))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return SlotChild(pid, mark, Channel(ours, FromBootingSlot))


def _spawn(command: Sequence[str], boot: Boot, mark: str, fds: Sequence[int]) -> int:
    boot = msgspec.structs.replace(boot, parent=os.getpid())
    return process.spawn([*command, msgspec.json.encode(boot).decode()], mark, fds)


HOST = Host()
