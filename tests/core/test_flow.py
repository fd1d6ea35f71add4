"""Which of the jobs in line may run now: whatever stands there, no limit is passed and no room is left unused."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from windlass.core.flow import admit, keys_of, limits_of, passed_on, turns
from windlass.core.job import KeyLimit, Meta

limits = st.lists(st.builds(KeyLimit, st.sampled_from("abc"), st.integers(1, 3)), max_size=3).map(tuple)
lines = st.lists(limits, max_size=12)
runs = st.dictionaries(st.sampled_from("abc"), st.integers(0, 4))


def test_the_first_full_limit_is_named() -> None:
    a, b = KeyLimit("a", 1), KeyLimit("b", 2)
    assert admit([(a, b), (a, b), (b,), (b, a), ()], {}, 10) == [None, a, None, b, None]
    assert admit([(b, a)], {"a": 1}, 10) == [a]


def test_what_stands_behind_the_room_is_not_looked_at() -> None:
    one = KeyLimit("a", 1)
    assert admit([(one,), (one,), (), ()], {}, 2) == [None, one, None]
    assert admit([(), ()], {}, 0) == []


@given(lines, runs, st.integers(0, 12))
def test_no_limit_is_passed_and_nobody_is_kept_back_without_need(line: list, running: dict, room: int) -> None:
    verdicts = admit(line, running, room)
    count = Counter(running)
    admitted = 0
    for asked, full in zip(line, verdicts, strict=False):
        if full is None:
            admitted += 1
            count.update({limit.key for limit in asked})
            assert all(count[limit.key] <= limit.most for limit in asked)
        else:
            assert full in asked
            assert count[full.key] >= full.most
    assert admitted <= room
    assert len(verdicts) == len(line) or admitted == room


@given(st.integers(0, 9) | st.none(), st.integers(1, 9), st.integers(0, 12))
def test_turns_never_exceed_the_room(freed: int | None, most: int, running: int) -> None:
    given_ = turns(freed, most, running)
    assert 0 <= given_ <= max(0, most - running)
    assert freed is None or given_ <= freed


def test_a_turn_is_passed_on_under_every_other_key() -> None:
    a, b, c = (KeyLimit(key, 1) for key in "abc")
    assert passed_on([((a, b, c), b), ((a,), a), ((c, a), a)]) == {"a": 1, "c": 2}


def test_limits_are_read_from_a_meta() -> None:
    limits = (KeyLimit("a", 1), KeyLimit("b", 2))
    assert limits_of(msgspec.json.encode(Meta(limits=limits)).decode()) == limits
    assert keys_of([limits, limits]) == ["a", "b"]


def test_what_is_no_limit_limits_nothing() -> None:
    """I23: a text that only looks like it, and one that cannot be read."""
    for meta in ("{}", '{"tags":["\\"limits\\""]}', '{"headers":{"limits":"x"}}', '{"limits":[["a"', '{"limits":7}'):
        assert limits_of(meta) == ()
