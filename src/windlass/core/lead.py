"""Leads, decided: who has a name now, in which of its slots and in which term. A lock is a lead of its caller's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Lead(NamedTuple):
    """One slot of a name: who had it last, and until when."""

    slot: int
    holder: str
    term: int
    until: int
    ttl: int = 0
    """For how long it was asked last; 0 if that is not known."""


class Verdict(NamedTuple):
    """Who has a slot, and whether it is the one who asked."""

    holder: str
    term: int
    leading: bool
    slot: int


def after_set_back(leads: Sequence[Lead], now: int) -> list[Lead]:
    """Those that end later than they were ever given for, since the clock was set back, as they should be: a living
    holder renews within its ttl, and has until then; a dead one keeps the name no longer than that."""
    return [lead._replace(until=now + lead.ttl) for lead in leads if 0 < lead.ttl < lead.until - now]


def grant(leads: Sequence[Lead], holder: str, now: int, slots: int, before: int) -> Verdict:
    """What `holder` is answered that asks for one of `slots` of a name with these `leads`; `before` is the greatest
    term that was forgotten. Who is refused learns of the one that ends first.

    A term is the time, as fences are: what a store has lost with its last commits, it does not know that it gave."""
    live = [lead for lead in leads if lead.until > now]
    for lead in live:
        if lead.holder == holder:
            return Verdict(holder, lead.term, True, lead.slot)
    if len(live) >= slots:
        first = min(live, key=lambda lead: (lead.until, lead.slot))
        return Verdict(first.holder, first.term, False, first.slot)
    taken = {lead.slot for lead in live}
    slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
    return Verdict(holder, max([now, before + 1, *(lead.term + 1 for lead in leads)]), True, slot)
