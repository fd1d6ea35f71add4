"""Families: the children of a job are found, and those of one that is cancelled with them do not get away."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from windlass.acting import CHUNK, cancelling
from windlass.core.errors import ChildConflict
from windlass.core.flow import Bounds
from windlass.core.job import Discarded, ErrorInfo, Failed, Held, NewJob, Settled, State, Succeeded
from windlass.ports.store import Enqueued, Filter, PruneRules, QueueChange, Selected, Selection
from windlass.testing.conformance.world import DAY, HOUR, Opener, World


def child(parent: str, more: str = "") -> str:
    """The meta of one of its children."""
    return f'{{"parent_id":"{parent}"{more}}}'


class Families:
    """The chapter `family`."""

    open: Opener

    def all_children(self, world: World, *parents: str, limit: int = 2) -> list[str]:
        """All of them, page by page."""
        found: list[str] = []
        after = None
        while True:
            page = world.run(world.store.children(parents, limit, after))
            assert len(page.ids) <= limit
            found += page.ids
            after = page.next
            if after is None:
                return found

    def cancel_family(self, world: World, *ids: str, dry_run: bool = False, filter: Filter | None = None) -> Selected:
        """Cancel with all descendants."""
        steps = cancelling(world.store, Selection(ids, filter, dry_run=dry_run, children=True))
        try:
            plan = next(steps)
            while True:
                plan = steps.send(world.run(plan))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def family_states(self, world: World, *ids: str) -> list[str]:
        """Of jobs, cancelling ones told apart."""
        jobs = [world.fetch(id) for id in ids]
        return ["cancelling" if job.cancelling else str(job.state) for job in jobs]

    def test_children_are_found_page_by_page(self, world: World) -> None:
        """In whatever state, of several parents at once, and none of anybody else's."""
        a, b, childless = world.put(), world.put(), world.put()
        mine = [world.put(meta=child(a if n % 3 else b)) for n in range(7)]
        ended = world.running(meta=child(a))
        world.end(ended, Succeeded("1"))
        world.put(meta=child("somebody else"))
        world.put(meta=f'{{"headers":{{"parent_id":"{a}"}}}}')
        world.put(meta=f'{{"tags":["\\"parent_id\\":\\"{a}\\""]}}')
        grandchild = world.put(meta=child(mine[0]))
        for limit in (1, 2, 3, 8, 50):
            assert sorted(self.all_children(world, a, b, childless, limit=limit)) == sorted([*mine, ended.id])
            assert self.all_children(world, mine[0], limit=limit) == [grandchild]
            assert self.all_children(world, childless, limit=limit) == []

    def test_children_outlive_their_parent(self, world: World) -> None:
        parent = world.running()
        orphan = world.put(meta=child(parent.id))
        world.end(parent, Discarded())
        world.run(world.store.delete(Selection((parent.id,))))
        assert self.all_children(world, parent.id) == [orphan]
        world.run(world.store.delete(Selection((orphan,))))
        assert self.all_children(world, parent.id) == []

    def test_what_cannot_be_read_is_no_child(self, world: World) -> None:
        """I23: nor does it keep anybody from being found."""
        parent = world.put()
        broken = world.put(meta='{"parent_id":')
        good = world.put(meta=child(parent))
        assert self.all_children(world, parent) == [good]
        assert [j.id for j in world.run(world.store.search(Filter(parent=parent), 5)).jobs] == [good]
        assert world.fetch(broken).state is State.QUEUED

    def test_a_family_is_cancelled(self, world: World) -> None:
        """I13: children of children, those that wait and those that run, also behind such as have ended."""
        root = world.running()
        ended, running = world.running(meta=child(root.id)), world.running(meta=child(root.id))
        waiting = world.put(meta=child(root.id), after=HOUR)
        grandchildren = [world.put(meta=child(each)) for each in (ended.id, running.id, waiting)]
        world.end(ended, Succeeded("1"))
        other = world.put()
        family = (root.id, running.id, waiting, *grandchildren)
        before = world.dump()
        told = self.cancel_family(world, root.id, dry_run=True)
        assert world.dump() == before
        assert self.cancel_family(world, root.id) == told
        assert (told.untouched, told.missing) == ((), ())
        assert set(told.asked) == {root.id, running.id}
        assert sorted(told.changed) == sorted([waiting, *grandchildren])
        assert self.family_states(world, *family) == ["cancelling"] * 2 + ["cancelled"] * 4
        assert self.family_states(world, ended.id, other) == ["completed", "queued"]
        again = self.cancel_family(world, root.id)
        assert (again.changed, set(again.asked)) == ((), {root.id, running.id})
        world.healthy()

    def test_a_family_whose_eldest_has_ended(self, world: World) -> None:
        root = world.running()
        young = world.put(meta=child(root.id))
        world.end(root, Succeeded("1"))
        assert self.cancel_family(world, root.id) == Selected(changed=(young,), untouched=(root.id,))
        gone = world.job().id
        left = world.put(meta=child(gone))
        assert self.cancel_family(world, gone) == Selected(changed=(left,), missing=(gone,))

    def test_families_are_found_by_filter(self, world: World) -> None:
        roots = [world.put(queue="a") for _ in range(2)]
        young = [world.put(queue="b", meta=child(each)) for each in roots]
        other = world.put(queue="b")
        told = self.cancel_family(world, filter=Filter(queue="a"))
        assert sorted(told.changed) == sorted([*roots, *young])
        assert self.family_states(world, other) == ["queued"]

    def test_a_large_family(self, world: World) -> None:
        """More than one transaction takes, and more than one page, on both levels."""
        root = world.put()
        young = world.jobs(CHUNK + 3, meta=child(root))
        world.enqueue(*young)
        world.enqueue(*world.jobs(CHUNK + 1, meta=child(young[0].id)))
        assert len(self.cancel_family(world, root).changed) == 1 + CHUNK + 3 + CHUNK + 1
        assert world.run(world.store.stats()).states["queued"] == 0

    def test_a_family_that_goes_in_a_circle(self, world: World) -> None:
        """As a unique job may that takes the place of its own forebear."""
        a, b = world.job(), world.job()
        world.enqueue(replace(a, meta=child(b.id)), replace(b, meta=child(a.id)))
        assert sorted(self.cancel_family(world, a.id).changed) == sorted([a.id, b.id])

    # --- what comes too late -----------------------------------------------------------------------------------

    def late_child(self, world: World, parent: Held, **given: Any) -> NewJob:
        """A child that a running parent enqueues after it was told."""
        job = world.job(meta=child(parent.id, given.pop("more", "")), **given)
        world.known[job.id] = None
        return job

    def all_stopped(self, world: World, *ids: str) -> None:
        """They came, and were cancelled; nothing of them ever runs."""
        for id in ids:
            job = world.fetch(id)
            assert (job.state, job.reason, job.attempt) == (State.CANCELLED, "parent_cancelled", 0)
        assert world.run(world.store.claim_ids("w1", world.next_seq("w1"), ids)).jobs == []
        world.healthy()

    def test_a_child_that_comes_too_late_is_cancelled(self, world: World) -> None:
        """I13: from the moment in which its parent was told, whether it is due or not."""
        root = world.running()
        early = world.put(meta=child(root.id))
        self.cancel_family(world, root.id)
        late = [self.late_child(world, root), self.late_child(world, root, after=HOUR, expires_after=2 * HOUR)]
        other = world.job()
        assert world.enqueue(*late, other) == [Enqueued(job.id, inserted=True) for job in (*late, other)]
        assert world.enqueue(*late) == [Enqueued(job.id, inserted=True) for job in late]
        self.all_stopped(world, *(job.id for job in late))
        assert self.family_states(world, other.id, early) == ["queued", "cancelled"]
        world.end(root, Failed(ErrorInfo("E")))
        assert self.family_states(world, root.id) == ["cancelled"]

    def test_the_children_of_a_completion_that_came_too_late(self, world: World) -> None:
        """I13: the handler had returned, so its work is done; what would come of it is not."""
        root, calm = world.running(), world.running()
        self.cancel_family(world, root.id)
        late, other = self.late_child(world, root), world.job(meta=child(calm.id))
        assert world.end(root, Succeeded("1", children=(late,))) is Settled.APPLIED
        assert world.end(calm, Succeeded("1", children=(other,))) is Settled.APPLIED
        assert self.family_states(world, root.id, other.id) == ["completed", "queued"]
        self.all_stopped(world, late.id)

    def test_what_is_fanned_out_too_late_is_cancelled(self, world: World) -> None:
        root = world.running()
        early, late = self.late_child(world, root), self.late_child(world, root)
        assert world.run(world.store.fan_out(root.token, "windlass:x", 0, [early])) == 1
        assert self.cancel_family(world, root.id).changed == (early.id,)
        assert world.run(world.store.fan_out(root.token, "windlass:x", 1, [late])) == 2
        self.all_stopped(world, late.id)

    def test_a_child_that_comes_too_late_takes_no_key(self, world: World) -> None:
        """Neither of the two kinds, nor a place in a full queue: the next of its kind is not the one stopped."""
        root, more = world.running(), ',"unique":["k","keep-last"]'
        self.cancel_family(world, root.id)
        world.run(world.store.queues([QueueChange("full", bounds=Bounds(1))]))
        late = self.late_child(world, root, more=more, idempotency_key="i", queue="full")
        assert world.enqueue(late) == [Enqueued(late.id, inserted=True)]
        self.all_stopped(world, late.id)
        next_ = world.job(meta='{"unique":["k","reject"]}', idempotency_key="i", queue="full")
        assert world.enqueue(next_) == [Enqueued(next_.id, inserted=True)]
        assert world.enqueue(self.late_child(world, root, more=more)) != [Enqueued(next_.id, inserted=False)]
        assert self.family_states(world, next_.id) == ["queued"]
        assert world.run(world.store.revive(Selection((late.id,)))).untouched == (late.id,)
        world.run(world.store.delete(Selection((next_.id,))))
        assert world.run(world.store.revive(Selection((late.id,)))).changed == (late.id,)
        assert world.enqueue(world.job(idempotency_key="i")) == [Enqueued(late.id, inserted=False)]
        world.healthy()

    def test_a_late_child_whose_idempotency_key_is_taken(self, world: World) -> None:
        """It is the job of then, which nobody has cancelled; and a conflict is one still."""
        root = world.running()
        owner = world.put(idempotency_key="i")
        self.cancel_family(world, root.id)
        assert world.enqueue(self.late_child(world, root, idempotency_key="i")) == [Enqueued(owner, inserted=False)]
        other = self.late_child(world, root, idempotency_key="i", digest="other")
        with pytest.raises(ChildConflict):
            world.end(root, Succeeded("1", children=(other,)))

    def test_a_parent_that_is_cancelled_alone_has_children_still(self, world: World) -> None:
        root = world.running()
        world.run(world.store.cancel(Selection((root.id,))))
        job = self.late_child(world, root)
        world.enqueue(job)
        assert self.family_states(world, job.id) == ["queued"]
        self.cancel_family(world, root.id)
        assert self.family_states(world, job.id) == ["cancelled"]
        world.run(world.store.cancel(Selection((root.id,))))  # takes nothing back
        late = self.late_child(world, root)
        world.enqueue(late)
        self.all_stopped(world, late.id)

    def test_a_parent_that_was_revived_has_children_again(self, world: World) -> None:
        """The cancel belonged to the series of attempts that it ended."""
        root = world.running()
        self.cancel_family(world, root.id)
        world.end(root, Discarded())
        world.run(world.store.revive(Selection((root.id,))))
        (again,) = world.claim().jobs
        job = self.late_child(world, root)
        world.enqueue(job)
        assert (again.id, self.family_states(world, job.id)) == (root.id, ["queued"])

    def test_a_pruned_child_is_none(self, world: World) -> None:
        root = world.put()
        ended, kept = world.running(meta=child(root)), world.put(meta=child(root))
        world.end(ended, Succeeded("1"))
        world.clock.set(world.clock() + 2 * DAY)
        world.run(world.store.prune(PruneRules(completed=DAY), 1_000))
        assert self.all_children(world, root) == [kept]

