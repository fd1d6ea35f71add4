"""What becomes of a job whose key is taken, and when a debounce is due."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.core.job import Meta, UniqueKey
from windlass.core.unique import POLICIES, Arrival, arrive, due_of, unique_of

TABLE = {
    # policy: (owner waits, owner runs, owner runs and has a successor)
    "reject": (Arrival.REFUSE, Arrival.REFUSE, Arrival.REFUSE),
    "return-existing": (Arrival.EXISTING, Arrival.EXISTING, Arrival.EXISTING),
    "replace": (Arrival.REPLACE, Arrival.OUST, Arrival.REPLACE),
    "keep-last": (Arrival.REPLACE, Arrival.FOLLOW, Arrival.REPLACE),
    "debounce": (Arrival.REPLACE, Arrival.FOLLOW, Arrival.REPLACE),
    "throttle": (Arrival.EXISTING, Arrival.EXISTING, Arrival.EXISTING),
    "of a later version": (Arrival.REFUSE, Arrival.REFUSE, Arrival.REFUSE),
}


@pytest.mark.parametrize("policy", TABLE)
def test_every_policy(policy: str) -> None:
    waits, runs, followed = TABLE[policy]
    assert arrive(policy, running=False, succeeded=False) is waits
    assert arrive(policy, running=True, succeeded=False) is runs
    assert arrive(policy, running=True, succeeded=True) is followed
    assert set(TABLE) == {*POLICIES, "of a later version"}


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 10**9))
def test_a_debounce_is_due_after_its_wait_or_its_most(first: int, later: int, wait: int, most: int) -> None:
    now = first + later
    due = due_of(UniqueKey("k", "debounce", most), now + wait, now, first)
    assert now <= due <= now + wait
    assert due <= max(now, first + most)
    assert due_of(UniqueKey("k", "debounce"), now + wait, now, first) == now + wait


def test_a_key_is_read_from_a_meta() -> None:
    key = UniqueKey("k", "throttle", None, 5)
    assert unique_of(msgspec.json.encode(Meta(unique=key)).decode()) == key
    for meta in ("{}", '{"tags":["\\"unique\\""]}', '{"unique":7}', '{"unique":["k"'):
        assert unique_of(meta) is None
