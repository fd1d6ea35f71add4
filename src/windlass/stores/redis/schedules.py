"""Schedules on Redis: read, decided here, and written if nothing has changed since."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from windlass.ports.plan import Steps, plan
from windlass.ports.store import (
    PREVIOUS_JOBS,
    DueSchedules,
    Fired,
    Schedule,
    ScheduleChange,
    ScheduleChanged,
    Scheduled,
    Tick,
)
from windlass.stores.memory.schedules import Scheduling as Deciding
from windlass.stores.redis.asking import ask
from windlass.stores.redis.given import given

REVISIONS = ""
"""Under this name, which no schedule has: the greatest revision that was forgotten."""

_decode = msgspec.json.Decoder(Scheduled).decode


def _text(scheduled: Scheduled) -> str:
    return msgspec.json.encode(scheduled).decode()


class Scheduling:
    """The operations on schedules."""

    @plan(write=False)
    def schedules(self, names: Sequence[str] | None = None) -> Steps[list[Schedule]]:
        """See Store.schedules."""
        known, _ = yield from self._all()
        return [known[name].said for name in sorted(known) if names is None or name in names]

    @plan(write=False)
    def due(self, limit: int) -> Steps[DueSchedules]:
        """See Store.due."""
        known, now = yield from self._all()
        waiting = [each.said for each in known.values() if not each.said.paused]
        line = sorted((said.next_at, said.name, said) for said in waiting if said.next_at is not None)
        found = [said for at, _, said in line if at <= now]
        return DueSchedules(now, found[:limit], next((at for at, _, _ in line if at > now), None))

    def _all(self) -> Steps[tuple[dict[str, Scheduled], int]]:
        flat, now = yield from ask("cas_get", ("schedules", None))
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return {name: _decode(text) for name, text in pairs if name != REVISIONS}, now

    @plan
    def change_schedules(self, changes: Sequence[ScheduleChange]) -> Steps[list[ScheduleChanged]]:
        """See Store.change_schedules."""
        answers = []
        for change in changes:
            answers.append((yield from self._change(change)))
        return answers

    def _change(self, change: ScheduleChange) -> Steps[ScheduleChanged]:
        while True:
            text, now = yield from ask("cas_get", ("schedules", change.name))
            revisions, _ = yield from ask("cas_get", ("schedules", REVISIONS))
            deciding = Deciding()
            if text is not None:
                deciding.data.schedules[change.name] = _decode(text)
            deciding.data.revisions[REVISIONS] = int(revisions or 0)
            answer = deciding._change(change, now)  # noqa: SLF001 - the specification decides, until that is core's
            after = deciding.data.schedules.get(change.name)
            greatest = str(deciding.data.revisions[REVISIONS])
            fields: list[tuple[str, str | None, str | None]] = [
                (change.name, text, None if after is None else _text(after))
            ]
            if greatest != (revisions or "0"):
                fields.append((REVISIONS, revisions, greatest))
            if fields[0][1] == fields[0][2] or (yield from ask("cas_put", ("schedules", fields))):
                return answer

    @plan(hint=True)
    def fire(self, ticks: Sequence[Tick]) -> Steps[list[Fired]]:
        """See Store.fire."""
        answers = []
        for tick in ticks:
            answers.append((yield from self._fire(tick)))
        return answers

    def _fire(self, tick: Tick) -> Steps[Fired]:
        while True:
            text, _ = yield from ask("cas_get", ("schedules", tick.schedule))
            if text is None:
                return Fired.STALE
            known = _decode(text)
            asked = (tick.schedule, known.previous, None if tick.job is None else tick.job.id)
            text, now, left, before = yield from ask("tick", asked)
            if text is None or (known := _decode(text)).previous != tuple(asked[1]):
                continue
            answer = yield from self._decide(tick, known, text, now, left, before)
            if answer is not None:
                return answer

    def _decide(
        self, tick: Tick, known: Scheduled, text: str, now: int, left: list[str], before: str | None
    ) -> Steps[Fired | None]:
        """None: it must be looked at again."""
        said = known.said
        if tick.manual:
            if before is not None:
                return Fired(before)
        else:
            refused = Deciding()._refused(said, tick, now)  # noqa: SLF001 - as above
            if refused is not None:
                return refused
            said = replace(said, cursor=tick.to, next_at=tick.next_at)
        if tick.job is None:
            moved = [(tick.schedule, text, _text(replace(known, said=said)))]
            return Fired.MOVED if (yield from ask("cas_put", ("schedules", moved))) else None
        skip = tick.overlap == "skip" and bool(left)
        kept = [_text(_after(known, said, tick, left, fired)) for fired in (True, False)]
        cancel = tick.overlap == "cancel-previous"
        script = (tick.schedule, text, left, known.previous, cancel, skip, given(tick.job), *kept)
        word = yield from ask("fire", script)
        return None if word is None else Fired(word)


def _after(known: Scheduled, said: Schedule, tick: Tick, left: Sequence[str], fired: bool) -> Scheduled:
    assert tick.job is not None
    previous = (*left, tick.job.id) if fired else tuple(left)
    said = replace(
        said,
        last_tick=said.last_tick if tick.manual else tick.to,
        last_outcome=(Fired.FIRED if fired else Fired.SKIPPED).value,
        last_job=tick.job.id if fired else said.last_job,
        fired=said.fired + fired,
        skipped=said.skipped + (not fired),
    )
    return replace(known, said=said, previous=previous[-PREVIOUS_JOBS:])
