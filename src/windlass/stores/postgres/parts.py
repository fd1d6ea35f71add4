"""Parts of `jobs` and `ended`: what completed long ago goes by the part, and is not deleted row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.json import decode

from windlass.core.job import State
from windlass.core.placement import job_id
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.ports.store import Pruned, PruneRules
from windlass.stores.sql.operator import Operator
from windlass.stores.sql.text import as_json

PARTS, KEPT, REST = 8, 14, 15
"""How many parts there are, in turn; the part of what stays; and the bits of a job's number that tell its part, which
are also the number of the default: migrations/001_first.sql."""
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
WALK, KEEP = 50_000, 500
"""Jobs of a part that are looked at, and that are moved out of it at the most, in one transaction."""
MOSTLY, OTHERS = 4, 200_000
"""A part goes as a whole if no more than a quarter as many of its jobs stay as go, and no more than so many: moving one
is dearer than deleting one."""
SETTLED = 60_000_000
"""Microseconds from the last such move until the part is truncated, which nobody's snapshot keeps: whoever has one from
before the move, as a dump that is just beginning, has locked the part by then, or would miss what was moved."""
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


@dataclass
class Emptying:
    """How far a part has come. Each step is a transaction of its own, and may fail after it is noted here: so the last
    one, `part_empty`, looks for what would be missing. Whoever takes over begins anew."""

    before: int
    """What had completed by then is old."""
    looked_at: int = 0
    """Up to where old jobs that have rows elsewhere were removed."""
    known: int | None = None
    """The last number that an enqueue may have used which was under way then."""
    revived: int = 0
    """How many revivals there had been."""
    walked: int = 0
    """Up to where all was looked at."""
    all_seen: bool = False
    old: int = 0
    others: list[int] = field(default_factory=list)
    """What stays."""
    moved: int = 0
    """How many of these were moved."""

    @property
    def keeps(self) -> bool:
        return self.all_seen and self.moved < len(self.others)


class Parts(Operator):
    """The operation `prune`, by the part where that is worth it."""

    def __init__(self) -> None:
        self.worth = WORTH
        self._emptying: dict[Part, Emptying] = {}
        self._mixed: set[Part] = set()
        """Parts in which too many other jobs were found: these go row by row."""
        self._left_alone: dict[int, int] = {}
        """Until when."""
        self._resize_at = 0

    @property
    def keeping(self) -> bool:
        """Whether the next thing to do is `keep`."""
        return any(each.keeps for each in self._emptying.values())

    @plan
    def keep(self) -> Steps[Pruned]:
        """Move some jobs, which stay, out of a part that is to go; for who has all moves and all endings to himself."""
        now = (yield NOW)[0][0]
        part = next((part for part, each in self._emptying.items() if each.keeps), None)
        if part is None:
            return Pruned(done=False)
        state = self._emptying.pop(part)
        self._left_alone[part.number] = now + REPOSE
        some = state.others[state.moved : state.moved + KEEP]
        moved = (yield Statement("part_keep", (part.number, as_json(some))))[0][0]
        if moved:
            # Whoever lay where nothing looked, as some row put in by hand, lies in line from now on.
            yield Statement("strays_home", (as_json([seq & ~REST | KEPT for seq in some[:moved]]),))
            yield Statement("mark_put", ("kept", now))
            state.moved += moved
            self._emptying[part] = state
            del self._left_alone[part.number]
        return Pruned(done=False)

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
        self._emptying = {part: each for part, each in self._emptying.items() if part in going}
        return [part for part in going if part not in self._mixed]

    def _empty(self, part: Part, before: int, now: int, limit: int) -> Steps[Pruned]:
        """One step of it: remove old jobs that have rows elsewhere; wait for everybody who may be putting something in;
        look at all that is there; `keep` what is not old; truncate."""
        # Also if this fails in a way that nobody foresaw: what else is to be pruned does not wait for it.
        self._left_alone[part.number] = now + REPOSE
        state = self._emptying.pop(part, None) or Emptying(before)
        if state.known is None:
            removed, again_at = yield from self._loosen(part, state, limit, now)
        elif not state.all_seen:
            removed, again_at = yield from self._walk(part, state)
        else:
            removed, again_at = yield from self._truncate(part, state, now)
        if again_at is not None:
            self._emptying[part] = state
            self._left_alone[part.number] = again_at
        return Pruned(removed, done=False)

    def _loosen(self, part: Part, state: Emptying, limit: int, now: int) -> Steps[tuple[int, int | None]]:
        bound = yield Statement("part_bound", (part.number, state.looked_at, limit, state.before))
        if bound:
            old = [seq for seq, goes in bound if goes]
            free = yield from self._unlocked(old)
            yield from self._forget([seq for seq in old if seq in free])
            if len(free) < len(old):  # an enqueue has the key of one in hand
                return len(free), now + REPOSE
            state.looked_at = bound[-1][0]
            return len(old), 0
        state.revived = yield from self._mark("revived")
        state.known = (yield Statement("part_known", (part.number,)))[0][0]
        return 0, now + REPOSE if state.known is None else 0

    def _walk(self, part: Part, state: Emptying) -> Steps[tuple[int, int | None]]:
        given = (part.number, state.walked, state.known, state.before, WALK)
        reached, old, others = (yield Statement("part_walk", given))[0]
        others = decode(others)
        state.walked, state.old = reached, state.old + old
        state.others += others
        state.all_seen = old + len(others) < WALK
        stay = len(state.others)
        if stay > OTHERS or (state.all_seen and stay * MOSTLY > state.old):
            self._mixed.add(part)
            return 0, None
        return 0, 0

    def _truncate(self, part: Part, state: Emptying, now: int) -> Steps[tuple[int, int | None]]:
        settled = (yield from self._mark("kept")) + SETTLED
        if now < settled:
            return 0, settled
        given = (part.number, state.known, state.revived, as_json(state.others))
        emptied = (yield Statement("part_empty", given))[0][0]
        return state.old if emptied else 0, now + REPOSE if emptied is None else None

    def _mark(self, name: str) -> Steps[int]:
        mark = yield Statement("mark_get", (name,))
        return int(mark[0][0]) if mark else 0

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
            if self._resize_at <= now:
                self._resize_at = now + REPOSE
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
