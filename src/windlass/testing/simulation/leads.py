"""The judge of leads, locks and semaphores: never more holders than slots, each in a larger term than all before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from windlass.testing.simulation.judge import Judge

if TYPE_CHECKING:
    from windlass.ports.store import Leadership
    from windlass.testing.simulation.checker import Checker
    from windlass.testing.simulation.ledger import Commit, Deed


class Lead(NamedTuple):
    """What somebody was given."""

    term: int
    until: int
    ttl: int


class Leads(Judge):
    """See the head of this file."""

    def __init__(self, checker: Checker) -> None:
        super().__init__(checker)
        self._leads: dict[str, dict[str, Lead]] = {}
        self._terms: dict[str, int] = {}
        self._held: dict[str, dict[str, float]] = {}
        """Until when handlers believe to hold a lock."""

    def _on_lead(self, line: Commit, name: str, holder: str, ttl: int, *rest: Any) -> None:
        slots, answer = (rest[0] if len(rest) > 1 else 1), rest[-1]
        leads = self._leads.setdefault(name, {})
        for who, lead in leads.items():  # the clock was set back
            leads[who] = lead._replace(until=min(lead.until, line.at + lead.ttl))
        live = {who: lead for who, lead in leads.items() if lead.until > line.at}
        problem = self._problem(line.at, name, holder, live, slots, answer)
        if problem and not (slots > 1 and self.checker.stepped):  # which slot came back with the clock is not known
            self.checker.broken("leads", line, f"{name}: {problem}, {holder} of {sorted(live)} is answered {answer}")
        if answer.leading:
            if holder not in live:  # it has the slot of one that lapsed, which the clock cannot bring back
                self._leads[name] = leads = live
            leads[holder] = Lead(answer.term, line.at + ttl, ttl)
            self._terms[name] = max(self._terms.get(name, 0), answer.term)

    def _problem(
        self, at: int, name: str, holder: str, live: dict[str, Lead], slots: int, answer: Leadership
    ) -> str:
        if holder in live:
            same = answer.leading and answer.term == live[holder].term
            return "" if same else "a lead is not renewed in its term"
        if answer.leading:
            if len(live) >= slots:
                return f"there are {slots} slots"
            if answer.term < at:
                return "the term is older than the lead"  # and may have been given in what a failover has lost
            return "" if answer.term > self._terms.get(name, 0) else "the term does not grow"
        if len(live) < slots:
            return f"{slots - len(live)} slots are free"
        first = min(lead.until for lead in live.values())
        named = live.get(answer.holder)
        return "" if named and named.until == first and named.term == answer.term else "that is not who ends first"

    def _on_resign(self, line: Commit, name: str, holder: str, _answer: None) -> None:
        lead = self._leads.get(name, {}).get(holder)
        if lead is not None:
            self._leads[name][holder] = lead._replace(until=min(lead.until, line.at))

    def deed(self, deed: Deed) -> None:
        """See Judge: what those believe who hold a lock. Once the clock has jumped only the fences tell."""
        if not deed.what.startswith("lock "):
            return
        name, holder, slots, until = deed.facts
        held = self._held.setdefault(name, {})
        held[holder] = until if deed.what == "lock held" else 0.0
        living = [who for who, end in held.items() if end > deed.when]
        if len(living) > slots and not self.checker.stepped:
            self.checker.broken("leads", deed, f"{name} has {slots} slots, and is held by {living}")
