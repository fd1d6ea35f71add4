"""Where a job goes: its id, its virtual shard, its rank."""

from __future__ import annotations

import re

SHARDS = 1024
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def job_id(milliseconds: int, noise: bytes, shard: int | None = None) -> str:
    """One id of a given instant, from at least eight bytes of noise, of which the last eight count; see job_ids."""
    return job_ids(milliseconds * 1_000_000, noise[-8:], shard)[0]


def job_ids(nanoseconds: int, noise: bytes, shard: int | None = None) -> list[str]:
    """Build as many job ids as `noise` has eight bytes for, from one instant, in ascending order: UUIDv7 (RFC 9562), of
    which `shard` (0..1023) replaces the last ten bits. Time first, so that ids are appended to an index rather than
    scattered over it.

    The twelve bits behind the millisecond hold its fraction (RFC 9562, 6.2, method 3), and each further id of the batch
    is one fraction, a quarter of a microsecond, later: jobs of one process are listed in the order of their enqueue.
    """
    tick = nanoseconds * 4_096 // 1_000_000
    digits = noise.hex()
    ids = []
    for at in range(0, len(digits), 16):
        time = f"{tick:015x}"
        rest = digits[at : at + 16]
        if shard is not None:
            rest = f"{rest[:12]}{int(rest[12:], 16) & ~(SHARDS - 1) | shard:04x}"
        ids.append(f"{time[:8]}-{time[8:12]}-7{time[12:]}-{_VARIANT[rest[0]]}{rest[1:4]}-{rest[4:]}")
        tick += 1
    return ids


def is_job_id(text: str) -> bool:
    """Whether `text` is a job id in the one spelling that is stored: 36 lower-case characters."""
    return _ID.fullmatch(text) is not None


def shard_of(job: str) -> int:
    """The virtual shard (0..1023) of a job id: its last ten bits."""
    return int(job[-3:], 16) & (SHARDS - 1)


def head_start(priority: int, seconds_per_priority: float) -> int:
    """Microseconds by which a job of `priority` stands in front of one that is due at the same instant.

    Ageing is linear and the same for all, so an order once right stays right: no ageing loop, one index, and the
    lowest priority waits at most 100 x seconds_per_priority behind a flood of the highest (I18).
    """
    return round(priority * seconds_per_priority * 1e6)
