"""The settler: finished outcomes wait here for the worker's next turn, so that user code never waits for a commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from windlass.core.errors import (
    CapabilityMissing,
    OutcomeUnknown,
    SchemaError,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
)
from windlass.core.job import ErrorInfo, Held, Settled, Token, Transition
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


NOTHING = (0, 0)
Fenced = Token | Held | Transition


class Holdings:
    """The tokens that this worker believes to hold, as the beat reports them."""

    def __init__(self, table: SlotTable) -> None:
        self._table = table
        self._held: dict[str, tuple[int, int]] = {}
        """Id -> fence and hash of the token."""
        self._hash = 0

    def take(self, tokens: Iterable[Fenced]) -> None:
        """Granted; a job that is held already is so by its new token alone."""
        for token in tokens:
            hashed = token_hash(token)
            self._hash ^= self._held.get(token.id, NOTHING)[1] ^ hashed
            self._held[token.id] = (token.fence, hashed)
        self._table.set_held(len(self._held), self._hash)

    def drop(self, tokens: Iterable[Fenced]) -> None:
        """Settled, or lost: these very tokens, for the same job may have been granted anew since."""
        for token in tokens:
            if self.fence(token.id) == token.fence:
                self._hash ^= self._held.pop(token.id)[1]
        self._table.set_held(len(self._held), self._hash)

    def fence(self, job: str) -> int:
        """The fence under which `job` is held, 0 if it is not."""
        return self._held.get(job, NOTHING)[0]

    def tokens(self) -> set[Token]:
        """All that is held."""
        return {Token(job, fence) for job, (fence, _) in self._held.items()}

    def __len__(self) -> int:
        return len(self._held)


class Settler:
    """A buffer of transitions, in the order in which their jobs ended."""

    def __init__(self, table: SlotTable) -> None:
        self._table = table
        self._waiting: deque[tuple[Transition, int, int]] = deque()
        """Transitions, their sizes, and their slots in the table, -1 for what never began."""
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, transition: Transition, slot: int = -1) -> None:
        """Keep it for the next turn; then its slot in the table is given back."""
        if not self._waiting:
            self._table.unsettled_since = now_ns()
        size = _size(transition)
        self._waiting.append((transition, size, slot))
        self._bytes += size

    def excuse(self) -> None:
        """The store has just answered that it will not have them yet: that they wait is not the worker's fault."""
        if self._waiting:
            self._table.unsettled_since = now_ns()

    @property
    def full(self) -> bool:
        """Whether so much waits that no further job may start."""
        return len(self._waiting) >= UNSETTLED or self._bytes >= UNSETTLED_BYTES

    def batch(self) -> list[Transition]:
        """The oldest ones, within the bounds of one transaction; they stay until `settled`."""
        found: list[Transition] = []
        total = 0
        for transition, size, _ in islice(self._waiting, BATCH):
            total += size
            if found and total > BYTES:
                break
            found.append(transition)
        return found

    def settled(self, count: int) -> None:
        """The oldest `count` have been answered."""
        for _ in range(count):
            _, size, slot = self._waiting.popleft()
            self._bytes -= size
            if slot >= 0:
                self._table.end(slot)
        self._table.unsettled_since = now_ns() if self._waiting else 0

    def replace_first(self, transition: Transition) -> None:
        """Put another transition in the place of the oldest one."""
        size = _size(transition)
        _, before, slot = self._waiting[0]
        self._bytes += size - before
        self._waiting[0] = (transition, size, slot)


_NOT_A_ROW = (StoreUnavailable, OutcomeUnknown, StoreCorrupt, SchemaError, CapabilityMissing)


def retriable(error: StoreError) -> bool:
    """Whether the store as a whole is in trouble, so that the same turn may succeed later, rather than one row."""
    return isinstance(error, _NOT_A_ROW)


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
