"""Shells: transactions, deadlines and hints."""

from __future__ import annotations

import asyncio
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from windlass.core.errors import OutcomeUnknown, StoreError, StoreTimeout
from windlass.core.job import State
from windlass.ports.plan import NOW, Plan, Steps, chain
from windlass.ports.store import Listener, Opened, Selection
from windlass.testing.conformance.world import Loop, World


class Stop(Exception):
    """Raised in the middle of a plan."""


class Shells:
    """The chapter `shells`."""

    hold_up: Callable[[Opened], AbstractContextManager[None]] | None = None

    def test_a_plan_that_raises_changes_nothing(self, world: World) -> None:
        """Also where an earlier plan of the same transaction had come to its end."""
        world.need("atomic_plan")
        waiting = world.put()
        before = world.dump()

        def breaks() -> Steps[None]:
            yield NOW
            raise Stop

        plans = (world.store.enqueue([world.job()]), world.store.cancel(Selection((waiting,))))
        for kept in plans:
            with pytest.raises(Stop):
                world.run(chain(kept, Plan(breaks, "breaks", write=True)))
        assert world.dump() == before
        world.healthy()

    def test_a_chain_sees_its_own_changes(self, world: World) -> None:
        """Settle and claim in one transaction: the second finds what the first left."""
        job = world.job()
        enqueued, jobs, cancelled = world.run(
            chain(
                world.store.enqueue([job]),
                world.store.fetch([job.id]),
                world.store.cancel(Selection((job.id,))),
            )
        )
        assert (enqueued[0].inserted, jobs[0].state, cancelled.changed) == (True, State.QUEUED, (job.id,))
        assert world.fetch(job.id).state is State.CANCELLED

    def test_a_busy_store_times_out(self, world: World) -> None:
        """I1b: within its deadline, whatever holds the store up; and nothing was applied."""
        job = world.job()
        with self._held_up(world):
            began = time.monotonic()
            # Without transactions nobody can take back what was sent: it may have come true at the last moment.
            unsure = () if "atomic_plan" in world.store.capabilities else (OutcomeUnknown,)
            with pytest.raises((StoreTimeout, *unsure)):
                world.run(world.store.enqueue([job]), timeout=0.2)
            assert 0.1 < time.monotonic() - began < 2.0
        assert world.run(world.store.fetch([job.id])) == [None]
        assert world.enqueue(job)[0].inserted

    @contextmanager
    def _held_up(self, world: World) -> Iterator[None]:
        """Somebody else's writing transaction stays open for as long as the block runs."""
        inside, leave = threading.Event(), threading.Event()

        def holds() -> Steps[None]:
            yield NOW
            inside.set()
            leave.wait(30)

        hold_up = type(self).hold_up
        if hold_up is not None:
            with hold_up(world.opened):
                yield
            return
        other = world.another() if "durable" in world.store.capabilities else world.opened
        thread = threading.Thread(target=other.shell.run, args=(Plan(holds, "holds", write=True), 10.0))
        thread.start()
        try:
            assert inside.wait(10)
            yield
        finally:
            leave.set()
            thread.join()

    def test_a_closed_store_says_so(self, world: World) -> None:
        opened = world.another()
        world.run_on(opened, opened.store.migrate())
        world.run_on(opened, opened.store.stats())
        opened.close()
        with pytest.raises(StoreError):
            opened.shell.run(opened.store.stats())

    def test_closing_twice_is_no_error(self, world: World) -> None:
        opened = world.another()
        world.run_on(opened, opened.store.migrate())
        opened.close()
        opened.close()

    def test_a_cancelled_caller_tears_nothing(self, world: World) -> None:
        """An event loop may give up a call at any moment: it is then done as a whole, or not at all."""
        if world.kind != "async":
            pytest.skip("only an event loop cancels its callers")
        batches = [world.jobs(5) for _ in range(20)]
        assert isinstance(world.runner, Loop)

        async def give_up() -> None:
            shell = world.opened.async_shell()
            for n, jobs in enumerate(batches):
                task = asyncio.ensure_future(shell.run(world.store.enqueue(jobs)))
                for _ in range(n % 4):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        world.runner.call(give_up())
        world.put()  # what was given up has been finished or dropped by now
        for jobs in batches:
            found = world.run(world.store.fetch([job.id for job in jobs]))
            assert len({job is None for job in found}) == 1
        world.healthy()

    # --- hints ---------------------------------------------------------------------------------------------

    def test_a_change_is_noticed(self, world: World) -> None:
        other = world.another() if "durable" in world.store.capabilities else world.opened
        before = other.shell.changed()
        assert other.shell.changed() == before
        world.put()
        assert other.shell.changed() != before

    def test_a_hint_reaches_every_listener(self, world: World) -> None:
        world.need("push")
        other = world.another() if "durable" in world.store.capabilities else world.opened
        with _listening(world.opened.shell.listen) as one, _listening(other.shell.listen) as two:
            assert not _readable(one)
            assert not _readable(two)
            for _ in range(3):
                world.opened.shell.hint()
            for listener in (one, two):
                assert _readable(listener, 5.0)
                assert _falls_silent(listener), "drain leaves hints behind"
            other.shell.hint()
            assert _readable(one, 5.0)
        world.opened.shell.hint()  # nobody listens any more

    def test_an_enqueue_tells_every_listener(self, world: World) -> None:
        """Whoever claims because of it finds the job, or waits until it is there."""
        world.need("push")
        world.beat("w1")
        with _listening(world.opened.shell.listen) as listener:
            for _ in range(10):
                world.put()
                assert _readable(listener, 5.0)
                listener.drain()
                assert len(world.claim("w1").jobs) == 1

    def test_hints_that_nobody_reads_do_no_harm(self, world: World) -> None:
        """I20: a listener that has stalled costs nobody anything."""
        world.need("push")
        with _listening(world.opened.shell.listen) as listener:
            began = time.monotonic()
            for _ in range(100_000):
                world.opened.shell.hint()
                if time.monotonic() - began > 1.0:
                    break
            world.put()
            assert _falls_silent(listener)


@contextmanager
def _listening(listen: Callable[[], Listener]) -> Iterator[Listener]:
    listener = listen()
    try:
        yield listener
    finally:
        listener.close()


def _falls_silent(listener: Listener) -> bool:
    """Whether a listener hears nothing more, once the hints that were under way have come."""
    end = time.monotonic() + 5.0
    while time.monotonic() < end:
        listener.drain()
        if not _readable(listener, 0.05):
            return True
    return False


def _readable(listener: Listener, wait: float = 0.0) -> bool:
    return bool(select.select([listener.fileno()], [], [], wait)[0])
