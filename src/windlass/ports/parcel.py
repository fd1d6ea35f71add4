"""What goes from one store to another: jobs and schedules with all that belongs to them, in no store's own layout."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from windlass.core.job import Attempt, Job, LogLine


class Parcel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job that does not run, with its history."""

    job: Job
    """A limit that keeps it back is the claim's to find again: such a job reads as queued here."""
    head_start: int = 0
    rank: int
    due: int
    """As it was enqueued or tried again; a parked job is looked at next at `job.due_at`."""
    attempts: tuple[Attempt, ...] = ()
    """If the job has ended and names a worker, the last one ended it."""
    logs: tuple[LogLine, ...] = ()
    once: dict[str, str] = {}
    result_until: int | None = None
    key: str | None = None
    """Its idempotency key."""
    digest: str = ""
    key_lost: bool = False
    """It had that key once; another job has it now, or may take it."""
    until: int | None = None
    """Until when its unique key stands for it, of a throttle."""
    follows: str | None = None
    """The job that has its unique key, and must end first."""
    merged: tuple[str, ...] = ()
    """Ids of jobs that took its place."""


class Word(StrEnum):
    """How an arrival went."""

    MOVED = "moved"
    PRESENT = "present"
    """One of that id, or name, was there, and was left alone."""
    CONFLICT = "conflict"
    """Another job has its key: nothing was stored."""
    KEYLESS = "keyless"
    """It had ended, and is stored without its idempotency key, which another job has."""
    UNFIT = "unfit"
    """The store cannot hold it: nothing was stored."""


class Arrival(msgspec.Struct, frozen=True):
    """The answer for one job or schedule; `other` is whoever has its key."""

    id: str
    word: Word
    other: str = ""


class Tally(msgspec.Struct, frozen=True):
    """How many jobs have gone from one store to another, and the XOR of their digests."""

    jobs: int = 0
    checksum: int = 0

    def with_(self, parcels: Sequence[Parcel], sign: int = 1) -> Tally:
        """These as well; with `sign` -1, without them: XOR takes back what it added."""
        checksum = self.checksum
        for parcel in parcels:
            checksum ^= digest_of(parcel)
        return Tally(self.jobs + sign * len(parcels), checksum)


_encode = msgspec.json.Encoder(order="sorted").encode


def digest_of(parcel: Parcel) -> int:
    """A 128-bit number that is another for every other content."""
    return int.from_bytes(hashlib.blake2b(_encode(parcel), digest_size=16).digest())
