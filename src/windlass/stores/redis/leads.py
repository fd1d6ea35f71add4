"""Leads on Redis: read, decided here, and written if nothing has changed since."""

from __future__ import annotations

import msgspec

from windlass.core.lead import Lead, after_set_back, grant
from windlass.ports.plan import Steps, plan
from windlass.ports.store import Leadership
from windlass.stores.redis.asking import Field, all_of, put, some_of

TERMS = "terms"
"""Beside the leads, whose names begin with an n: the greatest term that was forgotten."""


class Leading:
    """The operations `lead` and `resign`."""

    @plan
    def lead(self, name: str, holder: str, ttl: int, slots: int = 1) -> Steps[Leadership]:
        """See Store.lead."""
        field = "n" + name
        while True:
            (kept, terms), now = yield from some_of("leads", [field, TERMS])
            leads = _leads(kept)
            cut = {lead.slot: lead for lead in after_set_back(leads, now)}
            leads = [cut.get(lead.slot, lead) for lead in leads]
            owner, term, leading, slot = grant(leads, holder, now, slots, int(terms or 0))
            if leading:
                leads = [lead for lead in leads if lead.slot != slot] + [Lead(slot, holder, term, now + ttl, ttl)]
            fields: list[Field] = [(field, kept, _text(leads)), (TERMS, terms, terms)]
            if not (leading or cut) or (yield from put("leads", fields)):
                return Leadership(owner, term, leading)

    @plan
    def resign(self, name: str, holder: str) -> Steps[None]:
        """See Store.resign."""
        field = "n" + name
        while True:
            (kept,), now = yield from some_of("leads", [field])
            leads = [
                lead._replace(until=min(lead.until, now)) if lead.holder == holder else lead for lead in _leads(kept)
            ]
            if kept is None or (yield from put("leads", [(field, kept, _text(leads))])):
                return

    def _forgettable(self, age: int) -> Steps[list[Field]]:
        """What a prune is to write: locks have names without number, and their terms must go on growing all the
        same."""
        kept, now = yield from all_of("leads")
        terms = kept.pop(TERMS, None)
        fields, greatest = [], int(terms or 0)
        for name, text in kept.items():
            leads = _leads(text)
            left = [lead for lead in leads if lead.until >= now - age]
            if len(left) < len(leads):
                greatest = max(greatest, *(lead.term for lead in leads))
                fields.append((name, text, _text(left) if left else None))
        return [*fields, (TERMS, terms, str(greatest))] if fields else []

    def _greatest_term(self) -> Steps[int]:
        kept, _ = yield from all_of("leads")
        terms = int(kept.pop(TERMS, "0"))
        return max([terms, *(lead.term for text in kept.values() for lead in _leads(text))])


def _leads(kept: str | None) -> list[Lead]:
    return [] if kept is None else msgspec.json.decode(kept, type=list[Lead])


def _text(leads: list[Lead]) -> str:
    return msgspec.json.encode(leads).decode()
