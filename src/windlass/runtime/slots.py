"""The slot table: what a worker does at this moment, in memory that its supervisor reads without asking.

A blocked event loop or a C call that holds the GIL cannot answer; so the worker writes down beforehand what the
supervisor may need: which jobs have *begun* (prefetched ones are not accused when it dies), when each must be killed,
how many tokens it holds, when its loop last turned. One writer (the worker), one reader (its supervisor), no lock: an
entry's fence is written last and cleared first, so a half-written entry reads as empty.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from typing import NamedTuple

from windlass.runtime.bounds import CONCURRENCY_MOST

CAPACITY = 2 * CONCURRENCY_MOST + 1_024
"""Entries of one worker at most: of what runs, and of what has ended and is not settled, which may be as much again
and what the settler takes besides. The pages of entries that are never used are never allocated."""

EXCLUSIVE, ENDED = 1, 2
STALLED = 5.0
"""Seconds after which a loop that has not turned is said to be stalled."""

_MAGIC = 0x57534C54
_HEAD = struct.Struct("<II")  # magic, high: one past the highest slot ever used, so that a scan is short
_HELD = struct.Struct("<QQ")
_U64 = struct.Struct("<Q")
_ENTRY = struct.Struct("<16sQQIIQ")  # job id, started, hard deadline, pid, flags, fence (0: empty)
_AT_HELD, _AT_BUSY, _AT_TURN, _AT_UNSETTLED, _AT_DRAINING = 16, 32, 40, 48, 56
_AT_ENTRIES = 64
# The same entries, addressed as words of 8 and 4 bytes: what is written twice a job is one assignment each.
_ENTRY_WORDS, _FIRST_FENCE = _ENTRY.size // 8, (_AT_ENTRIES + _ENTRY.size) // 8 - 1
_ENTRY_HALVES, _FIRST_FLAGS = _ENTRY.size // 4, (_AT_ENTRIES + _ENTRY.size) // 4 - 3


class Entry(NamedTuple):
    """A job whose handler has begun."""

    slot: int
    job_id: str
    fence: int
    started: int
    """Nanoseconds of `now_ns`, as the deadline."""
    hard_deadline: int
    """0: none."""
    pid: int
    """The process slot that runs it, 0 for the worker's own process."""
    exclusive: bool
    """Must be dead before the worker's lease ends."""
    ended: bool = False
    """Its handler has ended, and its outcome is not settled."""


now_ns = time.monotonic_ns
"""The clock of every instant in the table: one machine, and a suspended one does not use up anybody's time."""


class SlotTable:
    """A shared-memory table with room for `CAPACITY` jobs, and the worker's vital signs."""

    __slots__ = ("_free", "_halves", "_high", "_map", "_words")

    def __init__(self, fd: int = -1) -> None:
        """Map the table behind `fd` (see `create`), or a private one for a worker that nobody watches."""
        size = _AT_ENTRIES + CAPACITY * _ENTRY.size
        if fd >= 0 and os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        self._map = mmap.mmap(fd, size)
        self._words, self._halves = memoryview(self._map).cast("Q"), memoryview(self._map).cast("I")
        self._high: int = _HEAD.unpack_from(self._map, 0)[1]
        self._free: list[int] = []
        _HEAD.pack_into(self._map, 0, _MAGIC, self._high)

    def close(self) -> None:
        """Unmap."""
        self._words.release()
        self._halves.release()
        self._map.close()

    # --- the worker writes ---------------------------------------------------------------------------------------

    def take(self) -> int:
        """A slot that is nobody's, for `begin`; it is given back by `end`."""
        if self._free:
            return self._free.pop()
        slot = self._high
        self._high = slot + 1
        _HEAD.pack_into(self._map, 0, _MAGIC, self._high)
        return slot

    def begin(
        self, slot: int, job_id: str, fence: int, hard_deadline: int = 0, pid: int = 0, *, exclusive: bool = False
    ) -> None:
        """Note that the handler of a job is about to run in `slot` (0..CAPACITY-1), to be killed at `hard_deadline`
        (nanoseconds of `now_ns`, 0 for never), in the process slot `pid` if not in the worker itself."""
        if slot >= self._high:
            self._high = slot + 1
            _HEAD.pack_into(self._map, 0, _MAGIC, self._high)
        _ENTRY.pack_into(
            self._map,
            _AT_ENTRIES + slot * _ENTRY.size,
            bytes.fromhex(job_id.replace("-", "")),
            now_ns(),
            hard_deadline,
            pid,
            EXCLUSIVE if exclusive else 0,
            fence,
        )

    def ended(self, slot: int) -> None:
        """Note that the handler in `slot` has ended; its outcome is still to be settled. What it left behind (a timer,
        closed descriptors) may yet kill the worker, and must be charged to somebody."""
        self._halves[slot * _ENTRY_HALVES + _FIRST_FLAGS] = ENDED

    def end(self, slot: int) -> None:
        """Note that the job in `slot` is settled; the slot may be taken again."""
        self._words[slot * _ENTRY_WORDS + _FIRST_FENCE] = 0
        self._free.append(slot)

    def set_held(self, count: int, hash: int) -> None:  # noqa: A002  # the word of WorkerReport
        """Note how many tokens are held, and the XOR of their hashes."""
        _HELD.pack_into(self._map, _AT_HELD, count, hash)

    # --- either reads ----------------------------------------------------------------------------------------------

    def executing(self) -> list[Entry]:
        """Every job that has begun and not ended."""
        return [entry for entry in self.begun() if not entry.ended]

    def begun(self) -> list[Entry]:
        """Every job that has begun and is not settled."""
        high = min(_HEAD.unpack_from(self._map, 0)[1], CAPACITY)
        found = []
        for slot in range(high):
            raw, started, deadline, pid, flags, fence = _ENTRY.unpack_from(
                self._map, _AT_ENTRIES + slot * _ENTRY.size
            )
            if fence:
                exclusive, ended = bool(flags & EXCLUSIVE), bool(flags & ENDED)
                found.append(Entry(slot, _text(raw), fence, started, deadline, pid, exclusive, ended))
        return found

    def held(self) -> tuple[int, int]:
        """How many tokens the worker holds, and the XOR of their hashes."""
        count, hash_ = _HELD.unpack_from(self._map, _AT_HELD)
        return count, hash_

    @property
    def busy(self) -> int:
        """How many slots are taken."""
        return self._get(_AT_BUSY)

    @busy.setter
    def busy(self, count: int) -> None:
        _U64.pack_into(self._map, _AT_BUSY, count)

    @property
    def turned(self) -> int:
        """When the event loop last turned, in nanoseconds of `now_ns`; 0 before its first turn."""
        return self._get(_AT_TURN)

    @turned.setter
    def turned(self, instant: int) -> None:
        _U64.pack_into(self._map, _AT_TURN, instant)

    @property
    def silent(self) -> float:
        """For how many seconds the loop has not turned; 0 before its first turn."""
        turned = self.turned
        return (now_ns() - turned) / 1e9 if turned else 0.0

    @property
    def condition(self) -> str:
        """`starting` until the start hooks have returned (the loop is first seen to turn behind them), `stalled` where
        it turns no more, else `running`."""
        if not self.turned:
            return "starting"
        return "stalled" if self.silent >= STALLED else "running"

    @property
    def unsettled_since(self) -> int:
        """Since when the oldest finished outcome has waited to be settled, 0 if none does."""
        return self._get(_AT_UNSETTLED)

    @unsettled_since.setter
    def unsettled_since(self, instant: int) -> None:
        _U64.pack_into(self._map, _AT_UNSETTLED, instant)

    @property
    def draining(self) -> bool:
        """Whether the worker has stopped claiming for good."""
        return self._get(_AT_DRAINING) != 0

    @draining.setter
    def draining(self, flag: bool) -> None:
        _U64.pack_into(self._map, _AT_DRAINING, flag)

    def _get(self, at: int) -> int:
        value: int = _U64.unpack_from(self._map, at)[0]
        return value


def create() -> int:
    """A descriptor of fresh memory for a table, to be inherited by one worker: anonymous where the system has that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("windlass-slots")
    fd, path = tempfile.mkstemp(prefix="windlass-slots-")
    os.unlink(path)
    return fd


def _text(raw: bytes) -> str:
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
