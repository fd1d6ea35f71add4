"""Queues: pause and resume."""

from __future__ import annotations

from windlass.core.job import Released, State
from windlass.ports.store import QueueChange, QueueRules
from windlass.testing.conformance.values import NAMES
from windlass.testing.conformance.world import SECOND, World


class Queues:
    """The chapter `queues`."""

    def test_queues_that_were_ever_changed_are_told(self, world: World) -> None:
        store = world.store
        assert world.run(store.queues()) == {}
        changes = [QueueChange("a", paused=True), QueueChange("b", paused=False), QueueChange("a", paused=True)]
        open_, paused = QueueRules(), QueueRules(paused=True)
        assert world.run(store.queues(changes)) == {"a": paused, "b": open_}
        assert world.run(store.queues([QueueChange("a", paused=False)])) == {"a": open_, "b": open_}
        world.put(queue="c")
        assert world.run(store.queues()) == {"a": open_, "b": open_}

    def test_what_is_not_said_stays(self, world: World) -> None:
        store = world.store
        assert world.run(store.queues([QueueChange("a", limit=3)])) == {"a": QueueRules(paused=False, limit=3)}
        assert world.run(store.queues([QueueChange("a", paused=True)])) == {"a": QueueRules(paused=True, limit=3)}
        assert world.run(store.queues([QueueChange("a", limit=0)])) == {"a": QueueRules(paused=True)}
        [told] = world.run(store.stats()).queues
        assert (told.paused, told.limit) == (True, None)

    def test_any_text_names_a_queue(self, world: World) -> None:
        """I23"""
        world.run(world.store.queues([QueueChange(name, paused=True) for name in NAMES]))
        assert world.run(world.store.queues()) == dict.fromkeys(NAMES, QueueRules(paused=True))

    def test_a_paused_queue_takes_jobs_and_lets_the_running_finish(self, world: World) -> None:
        running = world.running()
        world.run(world.store.queues([QueueChange("default", paused=True)]))
        waiting, delayed = world.put(), world.put(after=SECOND)
        world.end(running, Released("stop"))
        world.clock.advance("1s")
        world.run(world.store.promote(10))
        assert {world.fetch(id).state for id in (running.id, waiting, delayed)} == {State.QUEUED}
        assert world.claim().jobs == []
        world.run(world.store.queues([QueueChange("default", paused=False)]))
        assert [held.id for held in world.claim().jobs] == [running.id, waiting, delayed]
