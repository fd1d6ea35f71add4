"""Who has a lead: at most as many as there are slots, each in a term greater than all before, and no less than the time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from windlass.core.lead import Lead, grant

asks = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 5), st.integers(1, 3), st.booleans()), max_size=30
)


@given(asks, st.integers(0, 3))
def test_any_history(asks: list[tuple[str, int, int, bool]], before: int) -> None:
    leads: dict[int, Lead] = {}
    now, highest, had = 0, before, {}
    for holder, later, slots, gives_up in asks:
        now += later
        live = {lead.holder: lead for lead in leads.values() if lead.until > now}
        verdict = grant(list(leads.values()), holder, now, slots, before)
        if holder in live:
            assert (verdict.leading, verdict.term) == (True, live[holder].term)
        elif verdict.leading:
            assert len(live) < slots
            assert verdict.term > highest
            assert verdict.term >= now
            assert verdict.slot not in {lead.slot for lead in live.values()}
            highest = verdict.term
        else:
            assert len(live) >= slots
            assert verdict.holder == min(live.values(), key=lambda lead: (lead.until, lead.slot)).holder
        if verdict.leading:
            had[holder] = verdict.term
            leads[verdict.slot] = Lead(verdict.slot, holder, verdict.term, now if gives_up else now + 3)
