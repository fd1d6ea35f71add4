"""Ids, shards and ranks."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.sizes import examples
from windlass.core.placement import SHARDS, head_start, is_job_id, job_id, shard_of

times = st.integers(0, 2**48 - 1)
noises = st.binary(min_size=10, max_size=10)


@examples
@given(times, noises, st.one_of(st.none(), st.integers(0, SHARDS - 1)))
def test_an_id_is_a_uuid_of_version_7(milliseconds: int, noise: bytes, shard: int | None) -> None:
    text = job_id(milliseconds, noise, shard)
    parsed = uuid.UUID(text)
    assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)
    assert parsed.int >> 80 == milliseconds
    assert is_job_id(text)
    expected = int.from_bytes(noise, "big") % SHARDS if shard is None else shard
    assert shard_of(text) == expected


@examples
@given(times, times, noises, noises)
def test_ids_sort_by_time(one: int, other: int, noise: bytes, more: bytes) -> None:
    """So that they are appended to an index rather than scattered over it."""
    if one != other:
        assert (job_id(one, noise) < job_id(other, more)) == (one < other)


@examples
@given(times, noises, st.integers(0, SHARDS - 1))
def test_a_shard_costs_no_other_noise(milliseconds: int, noise: bytes, shard: int) -> None:
    """Two jobs of one partition differ as two jobs of any: 64 random bits are left."""
    plain, placed = (uuid.UUID(job_id(milliseconds, noise, s)).int for s in (None, shard))
    assert plain >> 10 == placed >> 10


def test_every_shard_is_reached() -> None:
    ids = [job_id(0, n.to_bytes(10, "big")) for n in range(SHARDS)]
    assert {shard_of(each) for each in ids} == set(range(SHARDS))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "019E7044-8800-7000-8000-000000000001",
        "019e704488007000800000000000000001",
        "{019e7044-8800-7000-8000-000000000001}",
        "019e7044-8800-7000-8000-000000000001\n",
        "019e7044-8800-7000-8000-00000000000g",
        "019e7044-8800-7000-8000-0000000000011",
        "٠19e7044-8800-7000-8000-000000000001",
    ],
)
def test_only_one_spelling_is_an_id(text: str) -> None:
    """I32: an id is compared as text everywhere, so it must have one text."""
    assert not is_job_id(text)


@examples
@given(st.text())
def test_what_is_an_id_is_a_uuid(text: str) -> None:
    if is_job_id(text):
        assert str(uuid.UUID(text)) == text


@examples
@given(st.integers(0, 100), st.integers(0, 100), st.floats(0, 86_400), st.integers(0, 10**15), st.integers(0, 10**15))
def test_ageing_never_changes_an_order(low: int, high: int, per: float, due: int, later: int) -> None:
    """I18: a rank is fixed once; whoever is due head_start earlier is served first, so the lowest waits a bounded time."""
    low, high = sorted((low, high))
    ahead = head_start(high, per) - head_start(low, per)
    assert ahead >= 0
    assert ahead <= head_start(100, per)
    due, later = sorted((due, later))
    if later - due > ahead:
        assert due - head_start(low, per) < later - head_start(high, per)
