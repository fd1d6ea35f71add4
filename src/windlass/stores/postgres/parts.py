"""Parts of `jobs` and `ended`: what completed long ago goes by the part, and is not deleted row by row."""

from __future__ import annotations

from typing import NamedTuple

from windlass.core.job import State
from windlass.core.placement import job_id
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.ports.store import Pruned, PruneRules
from windlass.stores.sql.operator import Operator

PARTS, REST = 8, 15
"""How many parts there are, in turn, and the bits of a job's number that tell its part: migrations/001_first.sql."""
SHARE = 5
"""A part takes in new jobs for a fifth of the time for which completed ones are kept: of the eight, one takes in, five
are kept, one is about to go, and one is empty."""
NARROWEST, DAY = 60_000, 86_400_000
"""Milliseconds."""
WORTH = 8 * 1024 * 1024
"""Bytes of a part, below which its rows are deleted one by one, each at its time."""
EARLY, LATE = 4, 8
"""Completed jobs wait for their part by up to a quarter of the time for which they are kept, and where the part cannot
be emptied, for an eighth more; then they go one by one."""
REPOSE = 60_000_000
"""Microseconds until what did not succeed is tried again."""
PATIENCE = "50ms"
"""How long each part is waited for: whoever wants one meanwhile stands behind."""


class Part(NamedTuple):
    """One of them, as it stands. Times are in microseconds."""

    number: int
    full_at: int
    """From when on no new id belongs to it, until its next turn."""
    over_at: int
    """When all that completed by then is old."""


class Parts(Operator):
    """The operation `prune`, by the part where that is worth it."""

    def __init__(self) -> None:
        self.worth = WORTH
        self._looked_at: dict[Part, int] = {}
        """Of a part that is being emptied: up to where jobs that have rows elsewhere were removed."""
        self._known: dict[Part, int] = {}
        """Of such a part: the last number that an enqueue before may have used."""
        self._mixed: set[Part] = set()
        """Parts in which other jobs were found: these go row by row."""
        self._left_alone: dict[int, int] = {}
        """Until when; of all of them, under -1, for another width."""

    @plan
    def prune(self, rules: PruneRules, limit: int) -> Steps[Pruned]:
        """See Store.prune."""
        now = (yield NOW)[0][0]
        parts = yield from self._going(rules.completed, now)
        for part in parts:
            if part.over_at <= now and self._left_alone.get(part.number, 0) <= now:
                return (yield from self._empty(part, now - (rules.completed or 0), now, limit))
        numbers = {part.number for part in parts}
        stays = lambda seq, state: state is State.COMPLETED and seq & REST in numbers
        return (yield from self._prune_slice(rules, limit, now, stays))

    def _going(self, keep: int | None, now: int) -> Steps[list[Part]]:
        """The parts that are, or shortly will be, emptied as a whole."""
        if keep is None:
            return []
        going = []
        for number, width in (yield Statement("parts_worth", (self.worth,))):
            part = part_at(number, width * 1_000, keep, now)
            if part.over_at - keep // EARLY <= now < part.over_at + keep // LATE:
                going.append(part)
        self._mixed.intersection_update(going)
        return [part for part in going if part not in self._mixed]

    def _empty(self, part: Part, before: int, now: int, limit: int) -> Steps[Pruned]:
        """One step of it, in a transaction of its own: jobs that have rows elsewhere; everybody who may be putting
        something into it; the rest."""
        number = part.number
        # Also if this fails in a way that nobody foresaw: what else is to be pruned does not wait for it.
        self._left_alone[number] = now + REPOSE
        known = self._known.pop(part, None)
        if known is not None:
            gone = (yield Statement("part_empty", (number, known, before)))[0][0]
            if gone == -1:
                self._mixed.add(part)
            return Pruned(max(gone or 0, 0), done=False)
        bound = yield Statement("part_bound", (number, self._looked_at.get(part, 0), limit, before))
        if bound:
            old = [seq for seq, goes in bound if goes]
            yield from self._forget(old)
            self._looked_at = {part: bound[-1][0]}
        else:
            self._looked_at = {}
            known = (yield Statement("part_known", (number,)))[0][0]
            self._known = {} if known is None else {part: known}
        if bound or known is not None:
            del self._left_alone[number]
        return Pruned(len(old) if bound else 0, done=False)

    @plan
    def _resize(self, rules: PruneRules) -> Steps[bool]:
        """Let each part take in new jobs for as long as suits the time for which they are kept. Two applications that
        say different times do no harm, but have their jobs deleted one by one."""
        if rules.completed is None:
            return False
        wanted = max(rules.completed // SHARE // 1_000, NARROWEST)
        width = (yield Statement("parts_width"))[0][0]
        if abs(wanted - width) * EARLY > width:
            now = (yield NOW)[0][0]
            if self._left_alone.get(-1, 0) <= now:
                self._left_alone[-1] = now + REPOSE
                yield Statement("wait_at_most", (PATIENCE,))
                yield Statement("parts_lock")
                now //= 1_000
                yield Statement("parts_resize", (wanted, now + DAY, job_id(now + 2 * DAY, bytes(8))))
        return False


def part_at(number: int, width: int, keep: int, now: int) -> Part:
    """A part, in the last of its turns that has begun."""
    turn = now // width
    full_at = (turn - (turn - number) % PARTS + 1) * width
    return Part(number, full_at, full_at + keep)
