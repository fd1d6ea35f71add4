"""Any expression that can fire, in the syntax that the oracle knows too."""

from __future__ import annotations

from hypothesis import strategies as st

from windlass.core.cron import Cron
from windlass.core.errors import InvalidSchedule


def fields(low: int, high: int, *more: str) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.integers(1, high - low)
    items = st.one_of(
        number.map(str),
        spans,
        st.tuples(spans, step).map("{0[0]}/{0[1]}".format),
        st.tuples(number, step).map("{0[0]}/{0[1]}".format),
    )
    wide = st.just("*") | step.map("*/{}".format)
    listed = st.lists(items | st.sampled_from(more) if more else items, min_size=1, max_size=3).map(",".join)
    return wide | listed


def can_fire(text: str) -> bool:
    try:
        return bool(Cron.parse(text))
    except InvalidSchedule as refused:
        assert "never" in refused.problem
        return False


EXPRESSION = (
    st.tuples(
        st.just("") | fields(0, 59).map("{} ".format),
        fields(0, 59),
        fields(0, 23),
        st.just("*") | fields(1, 31, "L", "L-1", "L-6"),
        st.just("*") | fields(1, 12, "jan", "oct-nov"),
        st.just("*") | fields(0, 6, "7", "sun", "mon-fri", "sunL", "3L"),
    )
    .map(lambda words: words[0] + " ".join(words[1:]))
    .filter(can_fire)
)
