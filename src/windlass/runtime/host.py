"""The machine, as a supervisor uses it: the loop, the threads and the children that it is given. A simulation hands in
another; signals, waits and orphans are in `process`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from windlass.runtime import process, slots
from windlass.runtime.loop import Loop
from windlass.runtime.messages import Boot, Channel, SlotReady, ToSupervisor, pair
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
    channel: Channel[SlotReady]


class Host:
    """This machine."""

    def loop(self) -> Loop:
        """A loop for the calling thread."""
        return Loop()

    def ticker(self, name: str, step: Step, end: Callable[[], object] | None = None) -> Ticker:
        """What turns a duty that waits for the store; see ThreadTicker."""
        return ThreadTicker(name, step, end)

    def start_worker(self, command: Sequence[str], boot: Boot) -> WorkerChild:
        """Start a worker with `boot`, to which the descriptors that it inherits are added."""
        ours, theirs = pair()
        table_fd = slots.create()
        mark = secrets.token_hex(8)
        try:
            fds = (theirs.fileno(), table_fd)
            pid = _spawn(command, msgspec.structs.replace(boot, channel=fds[0], table=fds[1]), mark, fds)
            table = SlotTable(table_fd)
        finally:
            theirs.close()
            os.close(table_fd)
        ours.setblocking(False)
        return WorkerChild(pid, mark, Channel(ours, ToSupervisor), table)

    def start_slot(self, command: Sequence[str], boot: Boot) -> SlotChild:
        """Start a process slot."""
        ours, theirs = pair()
        mark = secrets.token_hex(8)
        try:
            slot = msgspec.structs.replace(boot, role="slot", channel=theirs.fileno())
            pid = _spawn(command, slot, mark, (theirs.fileno(),))
        finally:
            theirs.close()
        ours.setblocking(False)
        return SlotChild(pid, mark, Channel(ours, SlotReady))


def _spawn(command: Sequence[str], boot: Boot, mark: str, fds: Sequence[int]) -> int:
    boot = msgspec.structs.replace(boot, parent=os.getpid())
    return process.spawn([*command, msgspec.json.encode(boot).decode()], mark, fds)


HOST = Host()
