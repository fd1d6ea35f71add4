"""The worker's side of its supervisor, alone: the test is the supervisor."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from windlass.runtime import link
from windlass.runtime.link import PipeLink, first_words
from windlass.runtime.messages import (
    Adopt,
    Cancel,
    Channel,
    Go,
    NeedSlot,
    Quarantine,
    Reconcile,
    Slot,
    SlotDone,
    SlotGone,
    Stop,
    Stopped,
    Taken,
    ToSlot,
    ToSupervisor,
    ToWorker,
    Wake,
    Want,
    pair,
)
from windlass.runtime.process_slot import NoSlot
from windlass.runtime.slots import SlotTable


class Told:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def wake(self) -> None:
        self.heard.append(("wake",))

    def stop(self, deadline: float, reason: str) -> None:
        self.heard.append(("stop", deadline, reason))

    def cancel(self, ids: Sequence[str]) -> None:
        self.heard.append(("cancel", *ids))

    def taken(self) -> None:
        self.heard.append(("taken",))

    def quarantine(self) -> None:
        self.heard.append(("quarantine",))

    def reconcile(self) -> None:
        self.heard.append(("reconcile",))


class Pipe:
    def __init__(self, early: Sequence[ToWorker] = ()) -> None:
        ours, theirs = pair()
        ours.settimeout(5)
        self.supervisor: Channel[ToSupervisor] = Channel(ours, ToSupervisor)
        self.link = PipeLink(Channel(theirs, ToWorker), SlotTable(), "w-1", -1, early)
        self.told = Told()

    def run(self, script: Callable[[Pipe], Awaitable[None]]) -> None:
        async def main() -> None:
            self.link.attach(self.told)
            try:
                await asyncio.wait_for(script(self), 10)
            finally:
                self.link.close()
                self.supervisor.close()

        asyncio.run(main())

    async def turned(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0.005)

    def hear(self) -> list[ToSupervisor]:
        return self.supervisor.receive()


def test_what_the_supervisor_says_reaches_the_worker_in_order() -> None:
    async def script(pipe: Pipe) -> None:
        for message in (Wake(), Cancel(("a", "b")), Quarantine(), Reconcile(), Stop(3.0, "why"), Taken()):
            pipe.supervisor.send(message)
        await pipe.turned()

    pipe = Pipe(early=[Cancel(("early",))])
    pipe.run(script)
    assert pipe.told.heard == [
        ("cancel", "early"), ("wake",), ("cancel", "a", "b"), ("quarantine",), ("reconcile",), ("stop", 3.0, "why"), ("taken",),
    ]  # fmt: skip


def test_a_wish_is_said_once_and_ends_with_the_wake_up() -> None:
    async def script(pipe: Pipe) -> None:
        for _ in range(3):
            pipe.link.want_wake(True)
        assert pipe.hear() == [Want(True)]
        pipe.supervisor.send(Wake())
        await pipe.turned()
        pipe.link.want_wake(True)
        pipe.link.want_wake(False)
        pipe.link.want_wake(False)
        pipe.link.stopped()
        assert pipe.hear() == [Want(True), Want(False), Stopped()]

    Pipe().run(script)


def test_a_slot_is_asked_for_kept_and_given_up() -> None:
    async def script(pipe: Pipe) -> None:
        asked = asyncio.ensure_future(pipe.link.process_slot())
        await pipe.turned()
        assert pipe.hear() == [NeedSlot()]
        ours, theirs = pair()
        pipe.supervisor.send(Slot(42), theirs.fileno())
        theirs.close()
        slot = await asked
        child: Channel[ToSlot] = Channel(ours, ToSlot)
        assert child.receive() == [Adopt("w-1")]
        pipe.link.release_slot(slot, healthy=True)
        assert await pipe.link.process_slot() is slot  # kept for the next job: nothing was asked
        pipe.link.release_slot(slot, healthy=False)
        assert pipe.hear() == [SlotDone(42)]
        pipe.supervisor.send(SlotGone(42, "released", "killed by signal 9 (SIGKILL)"))
        await pipe.turned()
        child.receive()
        assert child.closed
        child.close()

    Pipe().run(script)


def given(pipe: Pipe, pid: int) -> Channel[ToSlot]:
    """Hand a slot to the worker; answers the child's end."""
    ours, theirs = pair()
    ours.settimeout(5)
    pipe.supervisor.send(Slot(pid), theirs.fileno())
    theirs.close()
    return Channel(ours, ToSlot)


def test_a_slot_that_arrives_as_its_job_is_cancelled_is_kept_for_the_next() -> None:
    async def script(pipe: Pipe) -> None:
        asked = asyncio.ensure_future(pipe.link.process_slot())
        await pipe.turned()
        child = given(pipe, 42)
        pipe.link._readable()
        asked.cancel()  # in the same turn of the loop
        with pytest.raises(asyncio.CancelledError):
            await asked
        slot = await asyncio.wait_for(pipe.link.process_slot(), 1)
        assert slot.pid == 42
        child.close()

    Pipe().run(script)


def test_slots_that_a_burst_left_idle_are_given_back_but_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "IDLE_MOST", 0.02)
    monkeypatch.setattr(link, "FAREWELL", 0.0)

    async def script(pipe: Pipe) -> None:
        children = [given(pipe, pid) for pid in (41, 42, 43)]
        slots = [await pipe.link.process_slot() for _ in children]
        for slot in slots:
            pipe.link.release_slot(slot, healthy=True)
        assert [type(each) for each in pipe.hear()] == [NeedSlot] * 3
        asked = [await asyncio.to_thread(pipe.hear), await asyncio.to_thread(pipe.hear)]
        assert [each for said in asked for each in said] == [SlotDone(41), SlotDone(42)]
        for child in children[:2]:
            assert child.receive() == [Adopt("w-1")]
            assert child.receive() == []
            assert child.closed  # so it ends by itself
            pipe.supervisor.send(SlotGone(slots[children.index(child)].pid, "released", "exited with status 0"))
        await pipe.turned()
        assert await pipe.link.process_slot() is slots[2]
        assert not children[2].closed
        for child in children:
            child.close()

    Pipe().run(script)


def test_who_waits_for_a_slot_when_told_to_stop_gets_none() -> None:
    """I26: a job that has not begun is handed back."""

    async def script(pipe: Pipe) -> None:
        asked = asyncio.ensure_future(pipe.link.process_slot())
        await pipe.turned()
        pipe.supervisor.send(Stop(30.0, "signal SIGTERM"))
        with pytest.raises(NoSlot, match="signal SIGTERM"):
            await asked
        with pytest.raises(NoSlot):
            await pipe.link.process_slot()

    Pipe().run(script)


def test_the_first_words_are_waited_for() -> None:
    ours, theirs = pair()
    supervisor: Channel[ToSupervisor] = Channel(ours, ToSupervisor)
    channel: Channel[ToWorker] = Channel(theirs, ToWorker)
    read, write = os.pipe()

    def say() -> None:
        supervisor.send(Go("w-1", lock=True), write)
        supervisor.send(Wake())

    speaking = threading.Timer(0.05, say)
    speaking.start()
    go, lock_fd, early = first_words(channel)  # type: ignore[misc]
    speaking.join()
    assert go == Go("w-1", lock=True)
    assert [*early, *(channel.receive() if not early else [])] == [Wake()]
    assert os.fstat(lock_fd).st_ino == os.fstat(write).st_ino
    supervisor.send(Stop(0.0, "never mind"))
    assert first_words(channel) is None
    for fd in (read, write, lock_fd):
        os.close(fd)
    supervisor.close()
    channel.close()


@pytest.mark.parametrize("phase", ["first_words", "attached"])
def test_a_worker_dies_with_its_supervisors_socket(phase: str) -> None:
    """Where there is no parent-death signal, this is what ends it."""
    ours, theirs = pair()
    program = f"""if True:
        import asyncio, socket
        from windlass.runtime.link import PipeLink, first_words
        from windlass.runtime.messages import Channel, ToWorker, Want
        from windlass.runtime.slots import SlotTable
        channel = Channel(socket.socket(fileno={theirs.fileno()}), ToWorker)
        if {phase == "first_words"}:
            channel.send(Want(True))
            first_words(channel)
        async def main():
            link = PipeLink(channel, SlotTable(), "w-1", -1)
            link.attach(None)
            link.want_wake(True)
            await asyncio.sleep(60)
        asyncio.run(main())
    """
    worker = subprocess.Popen([sys.executable, "-c", program], pass_fds=[theirs.fileno()])
    theirs.close()
    assert ours.recv(100)
    ours.close()
    assert worker.wait(10) == -9
