"""Job ids as a process makes them."""

from __future__ import annotations

import time
import uuid

from hypothesis import given
from hypothesis import strategies as st

from windlass.core.placement import SHARDS, is_job_id, job_ids, shard_of
from windlass.task import new_ids


@given(st.integers(0, 2**47 * 1_000_000), st.binary(min_size=8, max_size=80), st.none() | st.integers(0, SHARDS - 1))
def test_every_id_is_a_uuid_of_version_7_in_order(nanoseconds: int, noise: bytes, shard: int | None) -> None:
    noise = noise[: len(noise) // 8 * 8]
    ids = job_ids(nanoseconds, noise, shard)
    assert len(ids) == len(noise) // 8 and ids == sorted(ids) and len(set(ids)) == len(ids)
    for id in ids:
        parsed = uuid.UUID(id)
        assert is_job_id(id) and str(parsed) == id
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert shard is None or shard_of(id) == shard
    assert int(ids[0][:8] + ids[0][9:13], 16) == nanoseconds // 1_000_000


def test_ids_made_one_after_the_other_ascend() -> None:
    ids = [id for _ in range(200) for id in new_ids(3)]
    assert ids == sorted(ids)
    assert abs(int(ids[0][:8] + ids[0][9:13], 16) - time.time_ns() // 1_000_000) < 5_000


def test_the_noise_is_not_lost() -> None:
    assert len({id[19:] for id in new_ids(1_000)}) == 1_000
    assert job_ids(0, b"\xff" * 8) == ["00000000-0000-7000-bfff-ffffffffffff"]
    assert job_ids(0, b"\x00" * 8, 1023) == ["00000000-0000-7000-8000-0000000003ff"]
    assert job_ids(0, b"\xff" * 8, 0) == ["00000000-0000-7000-bfff-fffffffffc00"]
