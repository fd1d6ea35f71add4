"""Schedules on Redis: read, decided here, and written if nothing has changed since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from windlass.ports import agenda
from windlass.ports.plan import Steps, plan
from windlass.ports.store import DueSchedules, Fired, Schedule, ScheduleChange, ScheduleChanged, Scheduled, Tick
from windlass.stores.redis.asking import Field, all_of, ask, put, some_of
from windlass.stores.redis.given import given

FLOOR = ""
"""Under this name, which no schedule has: the greatest revision of one that was deleted."""

_decode = msgspec.json.Decoder(Scheduled).decode


def text_of(scheduled: Scheduled) -> str:
    """As it is kept."""
    return msgspec.json.encode(scheduled).decode()


def read_schedules() -> Steps[tuple[dict[str, Scheduled], dict[str, str], int]]:
    """All of them, as they are and as they are kept, and the time."""
    texts, now = yield from all_of("schedules")
    return {name: _decode(text) for name, text in texts.items() if name != FLOOR}, texts, now


class Scheduling:
    """The operations on schedules."""

    @plan(write=False)
    def schedules(self, names: Sequence[str] | None = None) -> Steps[list[Schedule]]:
        """See Store.schedules."""
        known, _, _ = yield from read_schedules()
        return [known[name].said for name in sorted(known) if names is None or name in names]

    @plan(write=False)
    def due(self, limit: int) -> Steps[DueSchedules]:
        """See Store.due."""
        known, _, now = yield from read_schedules()
        waiting = [each.said for each in known.values() if not each.said.paused]
        line = sorted((said.next_at, said.name, said) for said in waiting if said.next_at is not None)
        found = [said for at, _, said in line if at <= now]
        return DueSchedules(now, found[:limit], next((at for at, _, _ in line if at > now), None))

    @plan
    def change_schedules(self, changes: Sequence[ScheduleChange]) -> Steps[list[ScheduleChanged]]:
        """See Store.change_schedules."""
        names = [FLOOR, *dict.fromkeys(change.name for change in changes)]
        while True:
            texts, now = yield from some_of("schedules", names)
            known = {name: _decode(text) for name, text in zip(names[1:], texts[1:], strict=True) if text is not None}
            floor, answers = int(texts[0] or 0), []
            for change in changes:
                before = known.pop(change.name, None)
                word, after = agenda.changed(before, change, floor, now)
                if after is not None:
                    known[change.name] = after
                elif before is not None:
                    floor = max(floor, before.said.revision)
                answers.append(ScheduleChanged(word, after.said if after else None))
            kept: list[str | None] = [str(floor) if floor else None]
            kept += [text_of(known[name]) if name in known else None for name in names[1:]]
            fields: list[Field] = list(zip(names, texts, kept, strict=True))
            if texts == kept or (yield from put("schedules", fields)):
                return answers

    # --- ticks -------------------------------------------------------------------------------------------------------

    @plan(hint=True)
    def fire(self, ticks: Sequence[Tick]) -> Steps[list[Fired]]:
        """See Store.fire."""
        answers: list[Fired] = []
        for some in agenda.apart(ticks):
            while (fired := (yield from self._fire(some))) is None:
                pass
            answers += fired
        return answers

    def _fire(self, ticks: Sequence[Tick]) -> Steps[list[Fired] | None]:
        """None: something has changed while it was decided, so it must be looked at again."""
        texts, _ = yield from some_of("schedules", [tick.schedule for tick in ticks])
        known = [None if text is None else _decode(text) for text in texts]
        asked = [
            (tick.schedule, each.previous if each else (), tick.job.id if tick.job else None)
            for tick, each in zip(ticks, known, strict=True)
        ]
        now, facts = yield from ask("tick", (asked,))
        answers, fire, places = [Fired.STALE] * len(ticks), [], []
        for place, (tick, each, text) in enumerate(zip(ticks, known, texts, strict=True)):
            text_now, left, before = facts[place]
            if text_now != text:
                return None
            if each is None:
                continue
            refused = agenda.refused(each.said, tick, now)
            if tick.manual and before is not None:
                refused = Fired(before)
            if refused is not None:
                answers[place] = refused
                continue
            fire.append(_asked(tick, each, text, left))
            places.append(place)
        if fire:
            words = yield from ask("fire", (fire,))
            if words is None:
                return None
            for place, word in zip(places, words, strict=True):
                answers[place] = Fired(word)
        return answers


def _asked(tick: Tick, known: Scheduled, text: str | None, left: list[str]) -> tuple[Any, ...]:
    """As fire.lua takes it."""
    skip = tick.overlap == "skip" and bool(left)
    if tick.job is None:
        return (tick.schedule, text, left, known.previous, False, False, None, None, text_of(agenda.moved(known, tick)))
    kept = [text_of(agenda.ticked(known, tick, left, job)) for job in (tick.job.id, None)]
    return (tick.schedule, text, left, known.previous, tick.overlap == "cancel-previous", skip, given(tick.job), *kept)
