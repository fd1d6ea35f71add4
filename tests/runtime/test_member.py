"""What a supervisor tells the store of a worker's end."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from windlass.core.placement import job_id
from windlass.runtime.member import Member
from windlass.runtime.messages import Channel, ToSupervisor, pair
from windlass.runtime.slots import SlotTable

RAN = job_id(1, bytes(10))


@pytest.fixture
def member() -> Iterator[Member]:
    """A worker in which one handler runs."""
    ours, theirs = pair()
    theirs.close()
    member = Member(1, "mark", Channel(ours, ToSupervisor), SlotTable(), 0.0)
    member.id = "w-1"
    member.table.begin(0, RAN, 1)
    yield member
    member.table.close()


def test_what_a_stop_cuts_off_is_no_loss(member: Member) -> None:
    """I26: a job that is longer than ten deploys does not die of them."""
    member.dismissed, member.explained = True, "it did not stop in time"
    member.exited(signal.SIGKILL)
    death = member.death()
    assert (death.executing, death.stopped, death.alone, death.guilty) == ((RAN,), True, False, ())
    assert "it did not stop in time" in death.detail


def test_a_crash_during_a_stop_is_a_crash(member: Member) -> None:
    member.dismissed = True
    member.exited(signal.SIGSEGV)
    death = member.death()
    assert (death.executing, death.explained, death.stopped, death.alone) == ((RAN,), False, False, True)


def test_the_neighbours_of_a_killed_job_lose_their_worker(member: Member) -> None:
    """I6: for another's fault, but a loss; also if everybody had been told to leave meanwhile."""
    member.dismissed, member.explained, member.guilty = True, "a job was past its hard limit", (("other", "hard_timeout"),)
    member.exited(signal.SIGKILL)
    death = member.death()
    assert (death.executing, death.explained, death.stopped) == ((RAN,), True, False)
    assert death.guilty == member.guilty


def test_what_had_ended_and_was_not_settled_is_lost_but_no_crash(member: Member) -> None:
    """I6: a timer that it left behind may have been the death; were nobody charged, it would happen again for ever."""
    member.table.ended(0)
    member.exited(signal.SIGKILL)
    death = member.death()
    assert (death.executing, death.explained, death.alone) == ((RAN,), False, False)


def test_what_had_ended_in_a_process_slot_is_not_accused(member: Member) -> None:
    member.table.begin(0, RAN, 1, pid=7)
    member.table.ended(0)
    member.exited(signal.SIGKILL)
    assert member.death().executing == ()
