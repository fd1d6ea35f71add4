"""Who starts workers and process slots, when the system has none left to give."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runtime.harness import Session
from windlass.runtime import process
from windlass.runtime.crew import BACKOFF_FIRST, SETTLED_IN, Crew
from windlass.runtime.host import HOST
from windlass.runtime.loop import Loop
from windlass.runtime.member import Member
from windlass.runtime.messages import Boot, Channel, ToSupervisor, pair
from windlass.runtime.slot_pool import BOOT_RETRY, SlotPool
from windlass.runtime.slots import SlotTable


class Scarce:
    """A system that starts no process while `spare` is 0, and says so."""

    def __init__(self, spare: int) -> None:
        self.spare = spare
        self.asked = 0
        self._spawn = process.spawn

    def __call__(self, *arguments: Any, **options: Any) -> int:
        self.asked += 1
        if not self.spare:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.spare -= 1
        return self._spawn(*arguments, **options)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def crew(loop: Loop) -> Crew:
    return Crew(loop, HOST, ["true"], Boot(role="worker", target="shop:app"), 2, lambda _: None)


def test_a_start_that_fails_ends_nobody_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One moment without a free process used to cost every healthy worker."""
    scarce = Scarce(1)
    monkeypatch.setattr(process, "spawn", scarce)

    def driver(s: Session) -> None:
        [first] = s.running(1)
        scarce.spare = 10
        assert first in s.running(2)

    assert Session().run(driver) == 0
    assert scarce.asked >= 3


def test_it_waits_longer_each_time_and_leaves_no_descriptor(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce = Scarce(0)
    monkeypatch.setattr(process, "spawn", scarce)
    starting = crew(loop)
    before = len(os.listdir("/proc/self/fd"))
    starting.balance()
    starting.balance()
    assert scarce.asked == 1
    assert len(starting) == 0
    loop.run(lambda: scarce.asked == 3)
    assert len(os.listdir("/proc/self/fd")) == before
    assert starting._not_before - loop.clock() > BACKOFF_FIRST * 2


@pytest.mark.parametrize(
    ("lived", "dismissed", "failures"), [(1.0, False, 3), (1.0, True, 2), (SETTLED_IN + 1.0, False, 0)]
)
def test_a_clean_end_is_a_failure_too_if_it_came_at_once(lived: float, dismissed: bool, failures: int) -> None:
    """A worker that is taken over as soon as it runs leaves in order, and so would its successors without end."""
    now = 100.0
    loop = Loop(lambda: now)
    starting = crew(loop)
    starting._failures = 2
    ours, theirs = pair()
    theirs.close()
    member = Member(1, "mark", Channel(ours, ToSupervisor), SlotTable(), now)
    member.id, member.stopped, member.dismissed = "w-1", True, dismissed
    member.exited(0)
    now += lived
    starting.note_exit(member)
    loop.close()
    assert member.clean
    assert starting._failures == failures


def test_process_slots_wait_for_one_too(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce = Scarce(0)
    monkeypatch.setattr(process, "spawn", scarce)
    before = len(os.listdir("/proc/self/fd"))
    pool = SlotPool(loop, crew(loop).start_slot)
    for _ in range(5):
        pool.keep_warm(1)
    assert scarce.asked == 1
    assert len(os.listdir("/proc/self/fd")) == before
    scarce.spare = 1
    began = loop.clock()
    loop.run(lambda: bool(pool.pids))
    assert loop.clock() - began >= BOOT_RETRY * 0.9
    pool.close()
    for pid in pool.pids:
        os.waitpid(pid, 0)
        pool.exited(pid, 0)
