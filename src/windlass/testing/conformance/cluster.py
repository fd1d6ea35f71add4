"""Cluster: one leader at a time, in terms."""

from __future__ import annotations

from windlass.ports.store import Leadership
from windlass.testing.conformance.world import SECOND, Script, World

TTL = 10 * SECOND


class Cluster:
    """The chapter `cluster`."""

    def lead(self, world: World, holder: str, name: str = "maintainer") -> Leadership:
        """Ask for the lead."""
        return world.run(world.store.lead(name, holder, TTL))

    def test_one_leads(self, world: World) -> None:
        assert self.lead(world, "a") == Leadership("a", 1, leading=True)
        assert self.lead(world, "b") == Leadership("a", 1, leading=False)
        assert self.lead(world, "b", "other") == Leadership("b", 1, leading=True)

    def test_a_lead_is_renewed_in_its_term(self, world: World) -> None:
        for _ in range(5):
            assert self.lead(world, "a") == Leadership("a", 1, leading=True)
            world.clock.set(world.clock() + TTL - 1)
        assert self.lead(world, "b").leading is False

    def test_a_lapsed_lead_is_free(self, world: World) -> None:
        """I11: a leader that slept finds another term when it wakes."""
        self.lead(world, "a")
        world.clock.set(world.clock() + TTL)
        assert self.lead(world, "b") == Leadership("b", 2, leading=True)
        assert self.lead(world, "a") == Leadership("b", 2, leading=False)
        world.clock.set(world.clock() + TTL)
        assert self.lead(world, "b") == Leadership("b", 3, leading=True)

    def test_a_lead_is_given_up(self, world: World) -> None:
        self.lead(world, "a")
        world.run(world.store.resign("maintainer", "b"))
        assert self.lead(world, "b").leading is False
        world.run(world.store.resign("maintainer", "a"))
        assert self.lead(world, "b") == Leadership("b", 2, leading=True)
        world.run(world.store.resign("nobody's", "a"))

    def test_of_many_at_once_one_leads(self, world: World) -> None:
        def candidate(name: str) -> Script:
            return (yield world.store.lead("maintainer", name, TTL))

        answers = world.together(*(candidate(f"c{n}") for n in range(8)))
        assert sum(answer.leading for answer in answers) == 1
        assert len({(answer.holder, answer.term) for answer in answers}) == 1
