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
NARROWEST, WIDEST = 60_000, 31 * 86_400_000
"""Milliseconds."""
WORTH = 8 * 1024 * 1024
"""Bytes of a part, below which its rows are deleted one by one, each at its time."""
STAY_MOST, STAY_BYTES = 5_000, 32 * 1024 * 1024
"""Jobs that may stay in a part that is emptied, and what they may weigh: they are put back while everybody waits."""
EARLY, LATE = 4, 8
"""Completed jobs wait for their part by up to a quarter of the time for which they are kept, and where the part cannot
be emptied, for an eighth more; then they go one by one."""
REPOSE = 10_000_000
"""Microseconds until a part that could not be emptied is tried again."""
PATIENCE = "50ms"
"""How long the parts are waited for: whoever wants one meanwhile stands behind."""
DAY = 86_400_000


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
        self._looked_at: dict[int, int] = {}
        """Of a part that is being emptied: up to where jobs that have rows elsewhere were removed."""
        self._known: dict[int, int] = {}
        """Of such a part: the last number that an enqueue before may have used."""
        self._left_alone: dict[int, int] = {}
        """Until when."""

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
        for number, emptied, width in (yield Statement("parts_worth", (self.worth,))):
            part = part_at(number, width * 1_000, keep, now)
            if emptied < part.full_at and part.over_at - keep // EARLY <= now < part.over_at + keep // LATE:
                going.append(part)
        return going

    def _empty(self, part: Part, before: int, now: int, limit: int) -> Steps[Pruned]:
        """One step of it, in a transaction of its own: jobs that have rows elsewhere; everybody who may be putting
        something into it; the rest."""
        number = part.number
        known = self._known.get(number)
        if known is None:
            behind = self._looked_at.get(number, 0)
            bound = yield Statement("part_bound", (number, behind, limit, before))
            if bound:
                old = [seq for seq, goes in bound if goes]
                yield from self._forget(old)
                self._looked_at[number] = bound[-1][0]
                return Pruned(len(old), done=False)
            known = (yield Statement("part_known", (number,)))[0][0]
            if known is not None:
                self._known[number] = known
                return Pruned(done=False)
        gone = None
        if known is not None:
            gone = (yield Statement("part_empty", (number, known, before, STAY_MOST, STAY_BYTES)))[0][0]
        self._known.pop(number, None)
        self._looked_at.pop(number, None)
        if gone is None:
            self._left_alone[number] = now + REPOSE
            return Pruned(done=False)
        yield Statement("mark_put", (f"emptied:{number}", part.full_at))
        return Pruned(gone, done=False)

    @plan
    def _resize(self, rules: PruneRules) -> Steps[bool]:
        """Let each part take in new jobs for as long as suits the time for which they are kept. Two applications that
        say different times do no harm, but have their jobs deleted one by one."""
        if rules.completed is None:
            return False
        wanted = min(max(rules.completed // SHARE // 1_000, NARROWEST), WIDEST)
        width = (yield Statement("parts_width"))[0][0]
        if abs(wanted - width) * EARLY > width:
            now = (yield NOW)[0][0] // 1_000
            yield Statement("wait_at_most", (PATIENCE,))
            yield Statement("parts_lock")
            yield Statement("parts_resize", (wanted, now, job_id(now + DAY, bytes(8))))
        return False


def part_at(number: int, width: int, keep: int, now: int) -> Part:
    """A part, in the last of its turns that has begun."""
    turn = now // width
    full_at = (turn - (turn - number) % PARTS + 1) * width
    return Part(number, full_at, full_at + keep)
