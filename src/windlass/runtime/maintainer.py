"""The maintainer: what must be done somewhere, by one supervisor at a time: promoting what nobody claims, pruning."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from windlass.core.errors import StoreError, StoreUnavailable
from windlass.ports.store import Opened, Pruned, PruneRules
from windlass.runtime.logs import Log
from windlass.runtime.service import Clock, SystemClock

NAME = "maintainer"
TTL = 15.0
"""Seconds that a leader may be silent before another takes its place."""
TICK = 1.0
PROMOTE = 500
PRUNE = 500
"""Rows of one slice, so that no writer waits long behind it."""
PRUNE_EVERY, PRUNE_MOST = 60.0, 3_600.0
"""Seconds from one walk over what has ended to the next; twice as long after each that found nothing to remove, or a
million finished jobs would keep an idle supervisor busy for 4.5 % of a core."""
PRUNE_SHARE = 16e6
"""But not more than a sixteenth of the time (in microseconds) for which jobs are kept: what is kept for an hour stays
for little longer, and a store whose jobs go by the part, as PostgreSQL's, finds it when its time has come."""
SLICE_GAP = 0.01
"""Seconds between two slices of one walk, for other writers: to remove 500 jobs takes about 5 ms."""
WALK_GAP = 0.1
"""The same after a slice in which nothing was old. It has the write lock for a millisecond, and with a gap of 10 ms the
walk over a million finished jobs cost busy workers 13 % of their throughput."""

log = Log("maintainer")


class Maintainer:
    """A Service. Workers promote on their own when they claim; this one serves the queues that nobody serves."""

    name = NAME

    def __init__(
        self,
        opened: Opened,
        holder: str,
        rules: PruneRules,
        suspects: Callable[[Sequence[str]], object],
        clock: Clock | None = None,
    ) -> None:
        """`suspects` is told the queues in which suspects wait, as long as any do."""
        self._opened = opened
        self._holder = holder
        self._rules = rules
        self._suspects = suspects
        self._clock = clock or SystemClock()
        self._leading_until = 0.0
        self._prune_at = 0.0
        self._prune_every = PRUNE_EVERY
        kept = (rules.completed, rules.cancelled, rules.expired, rules.dead)
        self._prune_most = max(PRUNE_EVERY, min([PRUNE_MOST, *(k / PRUNE_SHARE for k in kept if k is not None)]))
        self._removed = False

    def start(self) -> None:
        """See Service."""

    def stop(self) -> None:
        """Let another supervisor lead at once."""
        if self._leading_until > 0:
            self._opened.shell.run(self._opened.store.resign(NAME, self._holder))

    def tick(self) -> float:
        """See Service."""
        if not self._lead():
            return TTL / 3
        promoted = self._opened.shell.run(self._opened.store.promote(PROMOTE))
        if promoted.suspects:
            self._suspects(promoted.suspects)
        if promoted.more or self._chores():
            return SLICE_GAP
        return self._prune() if self._clock.monotonic() >= self._prune_at else TICK

    def _lead(self) -> bool:
        # Renewed at a third of its time, not every tick: an idle store is written to as rarely as can be.
        now = self._clock.monotonic()
        if now < self._leading_until - TTL * 2 / 3:
            return True
        lead = self._opened.shell.run(self._opened.store.lead(NAME, self._holder, round(TTL * 1e6)))
        self._leading_until = now + TTL if lead.leading else 0.0
        return lead.leading

    def _chores(self) -> bool:
        """What this kind of store needs besides; whether it needs more of it at once."""
        more = False
        for chore in self._opened.store.chores(self._rules):
            with contextlib.suppress(StoreUnavailable):  # somebody was in the way: another time
                more = self._opened.shell.run(chore) or more
        return more

    def _prune(self) -> float:
        """One slice; how long to wait until the next."""
        try:
            pruned = self._opened.shell.run(self._opened.store.prune(self._rules, PRUNE))
        except StoreError as problem:
            log.warning("could not prune", problem=problem)
            self._prune_at = self._clock.monotonic() + self._prune_every
            return TICK
        removed = pruned != Pruned(done=pruned.done)
        self._removed = self._removed or removed
        if pruned.done:
            self._prune_every = PRUNE_EVERY if self._removed else min(self._prune_most, self._prune_every * 2)
            self._prune_at = self._clock.monotonic() + self._prune_every
            self._removed = False
            return TICK
        return SLICE_GAP if removed else WALK_GAP
