"""The settler: finished outcomes wait here for the worker's next turn, so that user code never waits for a commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windlass.core.errors import StoreError, StoreUnavailable
from windlass.core.job import ErrorInfo, Settled, Token, Transition
from windlass.core.machine import bury
from windlass.ports.store import token_hash
from windlass.runtime.slots import now_ns

if TYPE_CHECKING:
    from windlass.runtime.slots import SlotTable

BATCH = 256
BYTES = 1 << 20
"""What one turn settles at most: at 11 us a job, 256 hold the store's lock for under 5 ms."""

UNSETTLED = 2 * BATCH
UNSETTLED_BYTES = 8 << 20
"""No slot is refilled past these: they bound what runs again when the machine dies."""


class Holdings:
    """The tokens that this worker believes to hold, as the beat reports them."""

    def __init__(self, table: SlotTable) -> None:
        self._table = table
        self._fences: dict[str, int] = {}
        self._hash = 0

    def take(self, tokens: Sequence[Token]) -> None:
        """Granted."""
        for token in tokens:
            self._fences[token.id] = token.fence
            self._hash ^= token_hash(token)
        self._table.set_held(len(self._fences), self._hash)

    def drop(self, job: str) -> None:
        """Settled, or lost; call `publish` after a batch of them."""
        fence = self._fences.pop(job, None)
        if fence is not None:
            self._hash ^= token_hash(Token(job, fence))

    def publish(self) -> None:
        """Show the beat what is held now."""
        self._table.set_held(len(self._fences), self._hash)

    def fence(self, job: str) -> int | None:
        """The fence under which `job` is held, if it is."""
        return self._fences.get(job)

    def jobs(self) -> set[str]:
        """Ids of all that is held."""
        return set(self._fences)

    def __len__(self) -> int:
        return len(self._fences)


class Settler:
    """A buffer of transitions, in the order in which their jobs ended."""

    def __init__(self, table: SlotTable) -> None:
        self._table = table
        self._waiting: deque[Transition] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, transition: Transition) -> None:
        """Keep it for the next turn."""
        if not self._waiting:
            self._table.unsettled_since = now_ns()
        self._waiting.append(transition)
        self._bytes += _size(transition)

    @property
    def full(self) -> bool:
        """Whether so much waits that no further job may start."""
        return len(self._waiting) >= UNSETTLED or self._bytes >= UNSETTLED_BYTES

    def batch(self) -> list[Transition]:
        """The oldest ones, within the bounds of one transaction; they stay until `settled`."""
        found: list[Transition] = []
        size = 0
        for each in self._waiting:
            size += _size(each)
            if found and (len(found) >= BATCH or size > BYTES):
                break
            found.append(each)
        return found

    def settled(self, count: int) -> None:
        """The oldest `count` have been answered."""
        for _ in range(count):
            self._bytes -= _size(self._waiting.popleft())
        self._table.unsettled_since = now_ns() if self._waiting else 0

    def replace_first(self, transition: Transition) -> None:
        """Put another transition in the place of the oldest one."""
        self._bytes += _size(transition) - _size(self._waiting[0])
        self._waiting[0] = transition


def retriable(error: StoreError) -> bool:
    """Whether the same turn may succeed later, rather than fail on a row of its own."""
    return isinstance(error, StoreUnavailable) or type(error).__name__ == "OutcomeUnknown"


def unsettleable(transition: Transition, error: StoreError) -> Transition:
    """What is settled instead when the store refuses this very row: one bad row must not stop the others (I23)."""
    reason = ErrorInfo(type(error).__name__, str(error)[:2_000])
    return bury(Token(transition.id, transition.fence), "failed", "unsettleable", reason, transition.result_ttl)


def stale(answers: Sequence[Settled]) -> int:
    """How many of these writes came too late."""
    return sum(answer in {Settled.STALE, Settled.GONE} for answer in answers)


def _size(t: Transition) -> int:
    size = 200 + len(t.result or "") + len(t.error or "")
    return size + sum(len(child.payload) + len(child.meta) for child in t.children) if t.children else size
