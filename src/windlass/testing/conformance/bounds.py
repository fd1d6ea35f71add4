"""Bounded queues: what is full takes nothing more, and says when to come back."""

from __future__ import annotations

from windlass.core.flow import Bounds, Full
from windlass.core.job import ErrorInfo as Error
from windlass.core.job import Failed, State
from windlass.core.machine import complete
from windlass.ports.store import Enqueued, QueueChange, QueueRules, Selected, Selection
from windlass.testing.conformance.sizes import size
from windlass.testing.conformance.unique import by
from windlass.testing.conformance.world import DAY, HOUR, MINUTE, SECOND, Script, World

RACERS = 16


class Bounded:
    """The chapter `bounds`."""

    def bound(
        self,
        world: World,
        *,
        queue: str = "default",
        depth: int | None = None,
        age: int | None = None,
        shed: bool = False,
    ) -> None:
        """Bound a queue."""
        world.run(world.store.queues([QueueChange(queue, bounds=Bounds(depth, age, shed))]))

    def test_bounds_are_told_and_taken_away(self, world: World) -> None:
        self.bound(world, depth=2, age=MINUTE, shed=True)
        world.run(world.store.queues([QueueChange("default", paused=True)]))
        rules = QueueRules(paused=True, bounds=Bounds(2, MINUTE, shed=True))
        assert world.run(world.store.queues()) == {"default": rules}
        self.bound(world)
        assert world.run(world.store.queues()) == {"default": QueueRules(paused=True)}

    def test_a_full_queue_takes_no_more(self, world: World) -> None:
        """Each job of a batch counts for those behind it, and other queues do not know of it."""
        self.bound(world, depth=3)
        world.put()
        jobs = world.jobs(4)
        answers = world.enqueue(*jobs, world.job(queue="other"))
        assert [answer.inserted for answer in answers] == [True, True, False, False, True]
        assert answers[2].full == Full("default", 3, 0, SECOND)
        assert world.run(world.store.fetch([jobs[2].id])) == [None]
        world.beat("w1")
        assert len(world.claim(limit=1).jobs) == 1
        assert world.enqueue(jobs[2])[0].inserted
        world.healthy()

    def test_what_is_sent_again_is_not_refused(self, world: World) -> None:
        self.bound(world, depth=2)
        jobs = world.jobs(2, idempotency_key=None)
        first_time = world.enqueue(*jobs)
        assert world.enqueue(*jobs) == first_time
        assert [answer.inserted for answer in world.enqueue(*jobs, world.job())] == [True, True, False]

    def test_what_is_not_due_now_is_let_in(self, world: World) -> None:
        """A bound is about the line; what comes due, is tried again or comes back was let in before."""
        self.bound(world, depth=1)
        held = world.running()
        world.put()
        assert world.put(after=SECOND)
        world.end(held, Failed(Error("E"), retry_after=1.0))
        world.clock.advance("2s")
        world.run(world.store.promote(10))
        assert world.run(world.store.stats()).states["queued"] == 3
        ended = [world.put(queue="other") for _ in range(2)]
        world.run(world.store.cancel(Selection(tuple(ended))))
        self.bound(world, queue="other", depth=1)
        assert len(world.run(world.store.revive(Selection(tuple(ended)))).changed) == 2

    def test_children_are_never_refused(self, world: World) -> None:
        """A completion does not fail for a full queue."""
        held = world.running()
        self.bound(world, depth=1)
        children = tuple(world.jobs(3))
        world.known |= dict.fromkeys(child.id for child in children)
        world.settle(complete(held.token, "1", DAY, children))
        assert [world.fetch(child.id).state for child in children] == [State.QUEUED] * 3

    def test_a_line_that_has_waited_too_long(self, world: World) -> None:
        """By the age of the first in line; it says how long it is over its bound."""
        self.bound(world, age=10 * SECOND)
        world.put()
        world.clock.advance("10s")
        assert world.enqueue(world.job())[0].inserted
        world.clock.advance("5s")
        [answer] = world.enqueue(world.job())
        assert answer.full == Full("default", 0, 15 * SECOND, 5 * SECOND, 10 * SECOND)

    def test_when_to_come_back(self, world: World) -> None:
        """Little's law: of four in line, the first of which has waited 40 s, one leaves in 10 s. 1 s to 60 s."""
        self.bound(world, depth=4)
        world.enqueue(*world.jobs(4))
        waits = []
        for wait in ("2s", "38s", "10m"):
            world.clock.advance(wait)
            full = world.enqueue(world.job())[0].full
            assert full is not None
            waits.append(full.retry_after)
        assert waits == [SECOND, 10 * SECOND, 60 * SECOND]

    def test_what_is_shed_is_stored_as_ended(self, world: World) -> None:
        """Its id is never unknown; and it has neither its idempotency nor its unique key."""
        self.bound(world, depth=1, shed=True)
        world.put()
        meta = by()
        shed = world.job(meta=meta, idempotency_key="i", expires_after=HOUR)
        [answer] = world.enqueue(shed)
        assert (answer.id, answer.inserted, answer.full) == (shed.id, True, Full("default", 1, 0, SECOND))
        job = world.fetch(shed.id)
        assert (job.state, job.reason, job.attempt) == (State.CANCELLED, "shed", 0)
        assert world.attempts(shed.id) == []
        self.bound(world)
        assert world.enqueue(world.job(meta=meta, idempotency_key="i"))[0].inserted
        world.healthy()

    def test_what_was_shed_has_its_keys_once_it_is_revived(self, world: World) -> None:
        """For the first time; and where they are another's by then, it stays as it is."""
        self.bound(world, depth=1, shed=True)
        world.put()
        shed, late = (world.job(meta=by(), idempotency_key="i", digest="d") for _ in range(2))
        world.enqueue(shed, late)
        both = Selection((shed.id, late.id))
        assert world.run(world.store.revive(both)) == Selected((shed.id,), untouched=(late.id,))
        again = world.job(idempotency_key="i", digest="d")
        assert world.enqueue(again) == [Enqueued(shed.id, inserted=False)]
        assert world.enqueue(world.job(meta=by())) == [Enqueued(shed.id, inserted=False, refused=True)]
        world.run(world.store.delete(Selection((shed.id,))))
        assert world.run(world.store.revive(Selection((late.id,)))).changed == (late.id,)
        assert world.enqueue(again) == [Enqueued(late.id, inserted=False)]
        world.healthy()

    def test_a_unique_key_is_asked_first(self, world: World) -> None:
        """Whoever stands for an owner needs no place."""
        self.bound(world, depth=1)
        owner = world.put(meta=by("keep-last"))
        assert world.enqueue(world.job(meta=by("keep-last"), payload="[[2],{}]")) == [Enqueued(owner, inserted=False)]
        assert world.fetch(owner).payload == "[[2],{}]"
        assert world.enqueue(world.job(meta=by("keep-last", "other")))[0].full is not None
        world.healthy()

    def test_of_many_at_once_as_many_as_there_are_places(self, world: World) -> None:
        rounds = size(3, 20, 200)
        for n in range(rounds):
            self.bound(world, queue=f"q{n}", depth=5)

            def racer(queue: str = f"q{n}") -> Script:
                return (yield world.store.enqueue([world.job(queue=queue)]))[0]

            answers = world.together(*(racer() for _ in range(RACERS)))
            assert sum(answer.inserted for answer in answers) == 5
            assert sum(answer.full is not None for answer in answers) == RACERS - 5
        world.figures |= {"rounds": rounds, "racers": rounds * RACERS}
