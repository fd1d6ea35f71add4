"""What becomes of a job or a schedule that arrives from another store, decided once for every store."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from windlass.core.errors import StoreError
from windlass.core.job import State
from windlass.core.unique import Arrival as Meeting
from windlass.core.unique import arrive as meet
from windlass.ports.parcel import Arrival, Parcel, Word
from windlass.ports.store import Scheduled


def overtaken(number: int, last: int) -> StoreError:
    """What a departure is told that comes after a later one."""
    return StoreError(
        f"departure {number} came after {last}: another copier is ahead of this one, or FROM was put back to an older "
        "state, whose jobs would run a second time here; nothing was moved"
    )


def come(answers: Iterable[Arrival], *, again: bool) -> set[str]:
    """The jobs that count as arrived. What is present already was counted when this departure came first; when it comes
    first, somebody else had brought it: a client whose enqueue was lost and went to the other store, say."""
    words = {Word.MOVED, Word.KEYLESS} | (set() if again else {Word.PRESENT})
    return {each.id for each in answers if each.word in words}


def follows(parcel: Parcel, policy: str, owner: str, *, running: bool, succeeded: bool) -> Meeting | None:
    """How a living job goes behind the living `owner` of its unique key: FOLLOW, OUST, or not at all."""
    if parcel.follows == owner:
        return None if succeeded else Meeting.FOLLOW
    meeting = meet(policy, running=running, succeeded=succeeded)
    return meeting if meeting in {Meeting.FOLLOW, Meeting.OUST} else None


def in_front(parcel: Parcel, now: int) -> Parcel:
    """A living job as it arrives where nobody has its unique key: whoever waited for an owner waits no longer."""
    if parcel.follows is None:
        return parcel
    state = State.SCHEDULED if parcel.due > now else State.QUEUED
    return replace(parcel, job=replace(parcel.job, state=state, reason=None), follows=None)


def behind(parcel: Parcel, owner: str) -> Parcel:
    """The same, where it must wait for the end of `owner`."""
    job = replace(parcel.job, state=State.BLOCKED, reason="unique", due_at=parcel.due)
    return replace(parcel, job=job, follows=owner, until=None)


def has_ticked(scheduled: Scheduled) -> bool:
    """Whether a schedule has come into its own here, so that one that arrives must not touch it."""
    return bool(scheduled.said.fired or scheduled.said.skipped) and not scheduled.away


def joined(came: Scheduled, known: Scheduled | None, floor: int, now: int) -> Scheduled:
    """A schedule that came, and what code had shown of it here before it ticked. `floor` is the greatest revision that
    a deleted schedule had here: revisions never come back, as the ids of ticks follow from them."""
    there, revision = came.said, max(came.said.revision, floor + 1)
    if known is None or known.away:
        revision = max(revision, known.said.revision if known else 0)
        return replace(came, away=False, said=replace(there, revision=revision, next_at=now))
    here = known.said
    said = replace(
        here,
        revision=max(revision, here.revision + (known.digest != came.digest)),
        cursor=there.cursor if known.timing == came.timing else here.cursor,
        paused=here.paused or there.paused,
        next_at=now,
        last_tick=there.last_tick,
        last_outcome=there.last_outcome,
        last_job=there.last_job,
        fired=there.fired,
        skipped=there.skipped,
    )
    return replace(known, said=said, previous=came.previous)
