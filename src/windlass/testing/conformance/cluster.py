"""Cluster: one leader at a time, in terms."""

from __future__ import annotations

from windlass.ports.store import Leadership, PruneRules
from windlass.testing.conformance.world import DAY, SECOND, Script, World

TTL = 10 * SECOND


class Cluster:
    """The chapter `cluster`."""

    def lead(self, world: World, holder: str, name: str = "maintainer") -> Leadership:
        """Ask for the lead."""
        return world.run(world.store.lead(name, holder, TTL))

    def test_one_leads(self, world: World) -> None:
        now = world.clock()
        assert self.lead(world, "a") == Leadership("a", now, leading=True)
        assert self.lead(world, "b") == Leadership("a", now, leading=False)
        assert self.lead(world, "b", "other") == Leadership("b", now, leading=True)

    def test_a_lead_is_renewed_in_its_term(self, world: World) -> None:
        began = world.clock()
        for _ in range(5):
            assert self.lead(world, "a") == Leadership("a", began, leading=True)
            world.clock.set(world.clock() + TTL - 1)
        assert self.lead(world, "b").leading is False

    def test_a_lapsed_lead_is_free(self, world: World) -> None:
        """I11: a leader that slept finds another term when it wakes."""
        self.lead(world, "a")
        world.clock.set(world.clock() + TTL)
        now = world.clock()
        assert self.lead(world, "b") == Leadership("b", now, leading=True)
        assert self.lead(world, "a") == Leadership("b", now, leading=False)
        world.clock.set(now + TTL)
        assert self.lead(world, "b") == Leadership("b", now + TTL, leading=True)

    def test_a_lead_is_given_up(self, world: World) -> None:
        """The next one may begin at the same instant; its term grows all the same."""
        now = world.clock()
        self.lead(world, "a")
        world.run(world.store.resign("maintainer", "b"))
        assert self.lead(world, "b").leading is False
        world.run(world.store.resign("maintainer", "a"))
        assert self.lead(world, "b") == Leadership("b", now + 1, leading=True)
        world.run(world.store.resign("nobody's", "a"))

    def test_after_the_clock_was_set_back_a_dead_leader_leads_for_one_ttl_more(self, world: World) -> None:
        """I8: and not until the clock is where it was; a living one renews in time, and keeps its term."""
        term = world.clock()
        for name in ("dead", "alive"):
            self.lead(world, "a", name)
        world.clock.set(world.clock() - DAY)
        for name in ("dead", "alive"):
            assert self.lead(world, "b", name) == Leadership("a", term, leading=False)
        world.clock.set(world.clock() + TTL - 1)
        assert self.lead(world, "a", "alive") == Leadership("a", term, leading=True)
        assert self.lead(world, "b", "dead").leading is False
        world.clock.set(world.clock() + 1)
        assert self.lead(world, "b", "alive").leading is False
        assert self.lead(world, "b", "dead") == Leadership("b", term + 1, leading=True)

    def test_a_lead_for_longer_is_no_clock_that_was_set_back(self, world: World) -> None:
        """A lock has the ttl of its holder, not of whoever asks."""
        world.run(world.store.lead("lock", "a", 100 * TTL))
        for _ in range(99):
            assert self.lead(world, "b", "lock").leading is False
            world.clock.set(world.clock() + TTL)
        assert self.lead(world, "b", "lock").leading is False
        world.clock.set(world.clock() + TTL)
        assert self.lead(world, "b", "lock").leading is True

    # --- several slots -------------------------------------------------------------------------------------

    def slot(self, world: World, holder: str, slots: int = 2, name: str = "lock") -> Leadership:
        """Ask for one of several slots."""
        return world.run(world.store.lead(name, holder, TTL, slots))

    def test_as_many_as_there_are_slots(self, world: World) -> None:
        """Each in a term of its own, which grows from holder to holder; a refusal names who ends first."""
        now = world.clock()
        assert self.slot(world, "a") == Leadership("a", now, leading=True)
        world.clock.advance("1s")
        assert self.slot(world, "b") == Leadership("b", now + SECOND, leading=True)
        assert self.slot(world, "c") == Leadership("a", now, leading=False)
        world.clock.advance("1s")
        assert self.slot(world, "a") == Leadership("a", now, leading=True)
        assert self.slot(world, "c") == Leadership("b", now + SECOND, leading=False)
        world.run(world.store.resign("lock", "a"))
        assert self.slot(world, "c") == Leadership("c", now + 2 * SECOND, leading=True)
        assert self.slot(world, "a").leading is False

    def test_those_who_hold_it_count_whatever_slots_they_said(self, world: World) -> None:
        """A deploy that narrows a semaphore ends nobody's turn, and lets nobody in meanwhile."""
        now = world.clock()
        for holder in "abc":
            assert self.slot(world, holder, 3).leading
        assert self.slot(world, "d", 1).leading is False
        for holder in "ab":
            world.run(world.store.resign("lock", holder))
            assert self.slot(world, "d", 1).leading is False
        world.run(world.store.resign("lock", "c"))
        assert self.slot(world, "d", 1) == Leadership("d", now + 3, leading=True)

    def test_a_lapsed_slot_is_free(self, world: World) -> None:
        self.slot(world, "a")
        world.clock.advance("5s")
        second = self.slot(world, "b").term
        world.clock.set(world.clock() + TTL - 5 * SECOND)
        assert self.slot(world, "c") == Leadership("c", world.clock(), leading=True)
        assert self.slot(world, "a") == Leadership("b", second, leading=False)

    def test_terms_grow_across_a_prune(self, world: World) -> None:
        """I4: names of locks come and go, and what is remembered of them has a bound; a fence never goes back."""
        before = world.clock()
        for n in range(5):
            assert self.slot(world, f"h{n}", 1, "short-lived").term == before + n
            world.run(world.store.resign("short-lived", f"h{n}"))
        world.clock.set(before + 2 * DAY)
        self.lead(world, "a")
        world.run(world.store.prune(PruneRules(), 100))
        world.clock.set(before - 2 * DAY)
        assert self.slot(world, "new", 1, "short-lived").term == before + 5
        assert self.lead(world, "a") == Leadership("a", before + 2 * DAY, leading=True)

    def test_of_many_at_once_as_many_hold_it_as_may(self, world: World) -> None:
        def candidate(name: str) -> Script:
            return (yield world.store.lead("lock", name, TTL, 3))

        now = world.clock()
        answers = world.together(*(candidate(f"c{n}") for n in range(12)))
        assert sorted(answer.term for answer in answers if answer.leading) == [now, now + 1, now + 2]

    def test_of_many_at_once_one_leads(self, world: World) -> None:
        def candidate(name: str) -> Script:
            return (yield world.store.lead("maintainer", name, TTL))

        answers = world.together(*(candidate(f"c{n}") for n in range(8)))
        assert sum(answer.leading for answer in answers) == 1
        assert len({(answer.holder, answer.term) for answer in answers}) == 1
