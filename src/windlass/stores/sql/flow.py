"""Flow control: who may run beside whom. Nothing here is asked for the sake of a job without limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from windlass.core import flow
from windlass.core.flow import Limits
from windlass.core.job import KeyLimit
from windlass.core.unique import unique_of
from windlass.ports.plan import Statement, Steps
from windlass.stores.sql.text import as_json


class Placed(Protocol):
    """A job in `ready`, as much as moving it takes."""

    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def meta(self) -> str: ...
    @property
    def suspect(self) -> bool: ...
    @property
    def queue(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def seq(self) -> int: ...


P = TypeVar("P", bound=Placed)


class Kept(NamedTuple):
    """A job that a limit keeps back."""

    row: Placed
    limits: Limits
    full: KeyLimit


class Given(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run keeps until its end."""

    keys: tuple[str, ...] = ()
    """Of its limits."""
    owns: bool = False
    """Whether its job owns a unique key."""


class Flow:
    """What the operations ask about limits."""

    def _queue_room(self, queue: str, limit: int | None) -> Steps[int | None]:
        """How many more of a queue may start; None where nobody has set a limit, -1 where that cannot be told now."""
        if limit is None:
            return None
        return max(0, limit - int((yield Statement("queue_held", (queue, limit)))[0][0]))

    def _admit(self, line: Sequence[P], room: int) -> Steps[tuple[list[P], list[Kept], bool]]:
        """Of jobs in their order: those to let in, and those that a limit keeps back; and whether there are others
        about which somebody else is deciding just now."""
        asking = [flow.limits_of(row.meta) for row in line]
        keys = flow.keys_of(asking)
        if not keys:
            return list(line[:room]), [], False
        running = yield from self._running(keys)
        found: list[P] = []
        kept: list[Kept] = []
        # An answer ends where the room does: what stands behind was not looked at.
        for row, limits, full in zip(line, asking, flow.admit(asking, running, room), strict=False):
            if full is None:
                found.append(row)
            else:
                kept.append(Kept(row, limits, full))
        return found, kept, False

    def _running(self, keys: Sequence[str]) -> Steps[dict[str, int]]:
        return dict((yield Statement("permits_count", (as_json(keys),))))

    def _note(self, rows: Sequence[Placed]) -> Steps[None]:
        """Write down, with jobs that were just granted, what the end of their runs has to give up."""
        keys = {row.id: tuple(flow.keys_of((flow.limits_of(row.meta),))) for row in rows}
        found = {row.id: Given(keys[row.id], owns=bool(unique_of(row.meta))) for row in rows}
        found = {id: given for id, given in found.items() if given.keys or given.owns}
        yield Statement("held_flow", many=[(as_json(given), id) for id, given in found.items()])
        yield Statement("permit_insert", many=[(key, id) for id, given in found.items() for key in given.keys])

    def _keep_back(self, kept: Sequence[Kept]) -> Steps[bool]:
        """Block what a limit keeps back; answers whether that gave others a turn."""
        rows = [(int(k.row.suspect), k.row.queue, k.row.rank, k.row.seq) for k in kept]
        yield Statement("ready_remove", many=rows)
        blocked = [(k.full.key, *row, k.full.most) for k, row in zip(kept, rows, strict=True)]
        yield Statement("blocked_insert", many=blocked)
        return (yield from self._unblock(flow.passed_on((k.limits, k.full) for k in kept)))

    def _unblock(self, freed: Mapping[str, int | None]) -> Steps[bool]:
        """Let back into line whoever has a turn under these keys; answers whether anybody has."""
        waited = [r[0] for r in (yield Statement("blocked_under", (as_json(list(freed)),)))] if freed else []
        running = (yield from self._running(waited)) if waited else {}
        moved = False
        for key in waited:
            for lane in (0, 1):
                for queue, most in (yield Statement("blocked_lines", (key, lane))):
                    count = flow.turns(freed[key], most, running.get(key, 0))
                    if count:
                        back = yield Statement("blocked_first", (key, lane, queue, most, count))
                        yield Statement("ready_insert", many=back)
                        yield Statement("blocked_remove", many=back)
                        moved = True
        return moved

    def _sweep(self, limit: int) -> Steps[None]:
        """Whoever had a turn may have been cancelled instead of claimed, so every key is looked at now and then: about
        `limit` at a time, from where the last sweep stopped."""
        mark = yield Statement("mark_text", ("sweep",))
        start = mark[0][0] if mark else ""
        keys = [row[0] for row in (yield Statement("blocked_keys", (start, limit)))]
        yield from self._unblock(dict.fromkeys(keys))
        stop = keys[-1] if len(keys) == limit else ""
        if stop != start:
            yield Statement("mark_text_put", ("sweep", stop))
