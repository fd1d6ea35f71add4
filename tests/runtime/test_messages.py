"""What supervisors and workers say to each other arrives whole, in order, with its descriptors, or not at all."""

from __future__ import annotations

import os

import msgspec
import pytest

from windlass.core.job import Failed, Held, Lost, Succeeded
from windlass.runtime.messages import (
    OUTCOMES,
    Cancel,
    Channel,
    Go,
    Run,
    Slot,
    Stop,
    ToSlot,
    ToSupervisor,
    ToWorker,
    Wake,
    Want,
    pair,
)


def channels() -> tuple[Channel[ToSupervisor], Channel[ToWorker]]:
    ours, theirs = pair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return Channel(ours, ToSupervisor), Channel(theirs, ToWorker)


def test_both_directions_in_order() -> None:
    ours, theirs = channels()
    for message in (Go("w-1"), Wake(), Stop(30.0, "a\nline\x00"), Cancel(("a", "b"))):
        ours.send(message)
    assert theirs.receive() == [Go("w-1"), Wake(), Stop(30.0, "a\nline\x00"), Cancel(("a", "b"))]
    assert theirs.receive() == []
    theirs.send(Want(True))
    assert ours.receive() == [Want(True)]
    ours.close()
    assert theirs.receive() == []
    assert theirs.closed
    theirs.send(Want(False))  # to nobody: no error, for the end is noticed by reading
    theirs.close()


def test_descriptors_arrive_with_their_messages() -> None:
    ours, theirs = channels()
    pipes = [os.pipe() for _ in range(2)]
    for number, (_, write) in enumerate(pipes):
        ours.send(Slot(number), write)
        os.close(write)
        ours.send(Wake())
    seen = []
    while len(seen) < 4:
        seen += theirs.receive()
    for message in (m for m in seen if isinstance(m, Slot)):
        fd = theirs.take_fd()
        assert not os.get_inheritable(fd)
        os.write(fd, str(message.pid).encode())
        os.close(fd)
    assert [os.read(read, 9) for read, _ in pipes] == [b"0", b"1"]
    for read, _ in pipes:
        os.close(read)
    ours.close()
    theirs.close()


def test_a_peer_that_does_not_read_blocks_nobody() -> None:
    """A stopped worker must not stop its supervisor."""
    ours, theirs = channels()
    read, write = os.pipe()
    for number in range(20_000):
        ours.send(Cancel((f"{number:036}",)))
    ours.send(Slot(1), write)
    os.close(write)
    assert ours.pending
    seen: list[ToWorker] = []
    while not seen or not isinstance(seen[-1], Slot):
        seen += theirs.receive()
        ours.flush()
    assert [m.ids[0] for m in seen[:-1] if isinstance(m, Cancel)] == [f"{n:036}" for n in range(20_000)]
    assert not ours.pending
    os.close(theirs.take_fd())
    assert os.read(read, 1) == b""
    os.close(read)
    ours.close()
    theirs.close()


def test_a_large_job_passes(size: int = 300_000) -> None:
    ours, theirs = pair()
    ours.setblocking(False)
    theirs.setblocking(False)
    sender: Channel[ToSupervisor] = Channel(ours, ToSupervisor)
    receiver: Channel[ToSlot] = Channel(theirs, ToSlot)
    held = Held("i", 2**62, "t", 1, "q", "", "x" * size, "{}", 1, 0, 0, False, 50, 1, 2, 3)
    sender.send(Run(held))
    seen: list[ToSlot] = []
    while not seen:
        seen += receiver.receive()
        sender.flush()
    assert seen == [Run(held)]
    sender.close()
    receiver.close()


def test_nonsense_is_an_error() -> None:
    ours, theirs = channels()
    ours.sock.send(b'{"type":"wake"}\n{"type":"explode"}\n')
    with pytest.raises(msgspec.MsgspecError):
        theirs.receive()
    ours.close()
    theirs.close()


def test_what_was_not_taken_is_closed() -> None:
    ours, theirs = channels()
    read, write = os.pipe()
    ours.send(Slot(1), write)
    os.close(write)
    theirs.receive()
    theirs.close()
    ours.close()
    assert os.read(read, 1) == b""
    os.close(read)


def test_every_outcome_has_a_name() -> None:
    assert {Succeeded, Failed, Lost} <= set(OUTCOMES.values())
    assert all(OUTCOMES[kind.__name__] is kind for kind in OUTCOMES.values())
