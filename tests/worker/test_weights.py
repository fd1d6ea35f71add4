"""How room is divided among queues."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.core.sizes import examples
from windlass.runtime.weights import Weights


def test_strict_order_gives_each_queue_all_the_room() -> None:
    assert Weights([("a", None), ("b", 9.0)], strict=True).share(5) == [("a", 5), ("b", 5)]


@examples  # no deadline: the machine may be busy
@given(
    st.dictionaries(st.sampled_from("abcde"), st.one_of(st.none(), st.floats(0.5, 20)), min_size=2),
    st.lists(st.integers(1, 40), min_size=400, max_size=400),
)
def test_shares_follow_the_weights_over_time(queues: dict[str, float | None], rooms: list[int]) -> None:
    """With every queue full, what each gets is its weight's part of all that was claimed, within two claims."""
    weights = Weights(list(queues.items()))
    got: Counter[str] = Counter()
    for room in rooms:
        left = room
        for queue, most in weights.share(room):
            take = min(most, left)
            got[queue] += take
            left -= take
        assert left == 0
    whole = sum(w or 1.0 for w in queues.values())
    for queue, weight in queues.items():
        assert abs(got[queue] - sum(rooms) * (weight or 1.0) / whole) <= 2 * max(rooms) + 1


def test_what_one_queue_leaves_is_given_to_the_others() -> None:
    shares = Weights([("a", 3.0), ("b", None)]).share(8)
    assert shares[-2:] == [("a", 8), ("b", 8)]
