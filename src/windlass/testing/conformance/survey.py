"""Surveys: the backlog in pages, dead letters by their causes, and the latest endings."""

from __future__ import annotations

import msgspec

from windlass.core.job import Discarded, ErrorInfo, Failed, Held, Released, State, Succeeded
from windlass.ports.store import Death, Ending, Filter, Pending, Selection
from windlass.testing.conformance.limits import under
from windlass.testing.conformance.world import HOUR, SECOND, World


class Survey:
    """The chapter `survey`."""

    # --- backlog -------------------------------------------------------------------------------------------

    def backlog(self, world: World, limit: int) -> list[Pending]:
        """All its pages."""
        found: list[Pending] = []
        after: str | None = None
        for _ in range(100):
            page = world.run(world.store.backlog(limit, after))
            assert len(page.jobs) <= limit
            found += page.jobs
            if page.next is None:
                return found
            after = page.next
        raise AssertionError("the pages do not come to an end")

    def test_the_backlog_is_what_has_not_ended(self, world: World) -> None:
        world.beat("w1")
        wanted = {}
        for n in range(4):
            payload = f'[["\\u0000 é", {n}],{{}}]'
            queued = world.put(queue=f"q{n % 2}", priority=n * 20, payload=payload, version=n + 1)
            wanted[queued] = (State.QUEUED, n + 1)
            wanted[world.put(task="later", after=HOUR * (n + 1))] = (State.SCHEDULED, 1)
        retrying, suspect = world.running(), world.running("w0")
        world.end(retrying, Failed(ErrorInfo("E")))
        world.run(world.store.reap([Death(worker="w0", observed=True)]))
        held = [world.running(queue="q0") for _ in range(3)]
        wanted |= {retrying.id: (State.RETRYING, 1), suspect.id: (State.QUEUED, 1)}
        wanted |= dict.fromkeys((each.id for each in held), (State.RUNNING, 1))
        wanted[world.put(tenant="acme")] = (State.QUEUED, 1)
        one = [world.put(queue="narrow", meta=under(("user", 1))) for _ in range(3)]
        world.claim(queue="narrow")
        wanted |= {one[0]: (State.RUNNING, 1), one[1]: (State.BLOCKED, 1), one[2]: (State.BLOCKED, 1)}
        for outcome in (Succeeded("1"), Discarded()):
            world.end(world.running(), outcome)
        for limit in (1, 3, 5, 100):
            found = self.backlog(world, limit)
            assert {job.id: (job.state, job.version) for job in found} == wanted
            assert len(found) == len(wanted), "each once"
        by_id = {job.id: job for job in found}
        for id in wanted:
            # A store's own kind of Pending may carry more.
            told = {name: getattr(by_id[id], name) for name in Pending.__struct_fields__}
            assert told.items() <= msgspec.structs.asdict(world.fetch(id)).items()

    def test_a_backlog_of_nothing(self, world: World) -> None:
        world.end(world.running(), Succeeded("1"))
        assert self.backlog(world, 10) == []

    def test_a_job_that_stays_is_in_the_backlog_whatever_the_others_do(self, world: World) -> None:
        staying = [world.put(), *(world.put(after=HOUR) for _ in range(3)), world.put(queue="z")]
        moving = [world.put() for _ in range(6)]
        world.beat("w1")
        found: list[str] = []
        after: str | None = None
        for n in range(100):
            page = world.run(world.store.backlog(2, after))
            found += [job.id for job in page.jobs]
            after = page.next
            if after is None:
                break
            if n < len(moving):
                (held,) = world.run(world.store.claim_ids("w1", world.next_seq("w1"), [moving[n]])).jobs
                world.end(held, Succeeded("1") if n % 2 else Released("stop"))
        assert {id: found.count(id) for id in staying} == dict.fromkeys(staying, 1)

    # --- the dead ------------------------------------------------------------------------------------------

    def died(self, world: World, task: str, error: ErrorInfo) -> Held:
        """A job that died of `error` just now."""
        held = world.running(task=task)
        world.end(held, Failed(error, permanent=True))
        return held

    def test_the_dead_are_grouped_by_their_cause(self, world: World) -> None:
        """Task, class and place; not the message, and not the line in the trace."""
        here, there = ErrorInfo("E", "1", "line 1", "shop:pay"), ErrorInfo("E", "2", "line 2", "shop:pay")
        first = self.died(world, "pay", here)
        began = world.clock()
        world.clock.advance("1s")
        second = self.died(world, "pay", there)
        others = [
            self.died(world, "send", here),
            self.died(world, "pay", ErrorInfo("F", "1", "", "shop:pay")),
            self.died(world, "pay", ErrorInfo("E", "1", "", "shop:refund")),
        ]
        groups = world.run(world.store.dead_groups(100))
        assert [group.count for group in groups] == [2, 1, 1, 1]
        assert [group.fingerprint for group in groups[1:]] == sorted(group.fingerprint for group in groups[1:])
        assert len({group.fingerprint for group in groups}) == 4
        assert (groups[0].first, groups[0].last) == (began, began + SECOND)
        assert groups[0].latest == world.fetch(second.id)
        assert {group.latest.id for group in groups[1:]} == {held.id for held in others}
        assert world.run(world.store.dead_groups(1)) == groups[:1]
        assert first.id not in {group.latest.id for group in groups}

    def test_groups_follow_their_letters(self, world: World) -> None:
        """I3: a letter that is sent again, deleted or pruned is counted no more."""
        letters = [self.died(world, "pay", ErrorInfo("E")) for _ in range(3)]
        world.run(world.store.revive(Selection((letters[0].id,))))
        (group,) = world.run(world.store.dead_groups(10))
        assert (group.count, group.latest.id) == (2, letters[2].id)
        world.run(world.store.delete(Selection((letters[2].id,))))
        (group,) = world.run(world.store.dead_groups(10))
        assert (group.count, group.latest.id) == (1, letters[1].id)
        world.run(world.store.delete(Selection((letters[1].id,))))
        assert world.run(world.store.dead_groups(10)) == []

    def test_only_the_dead_have_groups(self, world: World) -> None:
        world.end(world.running(), Failed(ErrorInfo("E")))
        world.end(world.running(), Succeeded("1"))
        world.run(world.store.cancel(Selection((world.put(),))))
        assert world.run(world.store.dead_groups(10)) == []

    def test_who_died_without_a_word_is_counted_too(self, world: World) -> None:
        world.end(world.running(), Discarded())
        (group,) = world.run(world.store.dead_groups(10))
        assert (group.fingerprint, group.count, group.latest.state) == ("", 1, State.DEAD)

    def test_a_group_is_found_by_its_fingerprint(self, world: World) -> None:
        world.need("search")
        mine = [self.died(world, "pay", ErrorInfo("E")).id for _ in range(5)]
        self.died(world, "send", ErrorInfo("E"))
        retrying = world.running(task="pay")
        world.end(retrying, Failed(ErrorInfo("E")))
        fingerprint = world.run(world.store.dead_groups(1))[0].fingerprint
        wanted = Filter(states=(State.DEAD,), fingerprint=fingerprint)
        page = world.run(world.store.search(wanted, 3))
        assert [job.id for job in page.jobs] == mine[:1:-1]
        rest = world.run(world.store.search(wanted, 3, page.next))
        assert [job.id for job in rest.jobs] == mine[1::-1]
        assert world.run(world.store.search(Filter(fingerprint=fingerprint), 100)).jobs == [*page.jobs, *rest.jobs]
        assert set(world.run(world.store.revive(Selection(filter=wanted))).changed) == set(mine)
        assert world.run(world.store.search(wanted, 3)).jobs == []

    def test_the_dead_are_found_by_when_they_died(self, world: World) -> None:
        world.need("search")
        early = self.died(world, "pay", ErrorInfo("E"))
        then = world.clock.advance("1s")
        late = self.died(world, "pay", ErrorInfo("E"))
        waiting = world.put()
        assert [job.id for job in world.run(world.store.search(Filter(ended_before=then), 9)).jobs] == [early.id]
        found = world.run(world.store.search(Filter(ended_before=then + 1), 9)).jobs
        assert [job.id for job in found] == [late.id, early.id]
        assert waiting not in {job.id for job in found}

    # --- how long it took ----------------------------------------------------------------------------------

    def test_the_latest_endings(self, world: World) -> None:
        began = world.clock()
        slow = world.running(task="slow")
        expired = world.put(task="late", expires_after=SECOND, after=SECOND // 2)
        world.clock.advance("3s")
        world.run(world.store.promote(100))
        world.end(slow, Succeeded("1"))
        dead = self.died(world, "bad", ErrorInfo("E"))
        world.put()
        now = world.clock()
        wanted = [
            Ending("bad", State.DEAD, dead.created_at, dead.due_at, dead.started_at, now),
            Ending("late", State.EXPIRED, began, began + SECOND // 2, None, now),
            Ending("slow", State.COMPLETED, began, began, slow.started_at, now),
        ]
        assert world.fetch(expired).state is State.EXPIRED
        assert world.run(world.store.endings(10)) == wanted
        assert world.run(world.store.endings(2)) == wanted[:2]
