"""Reading: jobs, histories, searches, counts, and the facts behind `why`."""

from __future__ import annotations

from windlass.core.job import Discarded, ErrorInfo, Failed, Released, State, Succeeded
from windlass.ports.store import Death, Filter, QueueChange, QueueStats, Selection
from windlass.testing.conformance.world import HOUR, SECOND, World


class Reading:
    """The chapter `reading`."""

    def test_fetch_answers_in_order(self, world: World) -> None:
        a, b, gone = world.put(), world.put(), world.job().id
        found = world.run(world.store.fetch([b, gone, a, b]))
        assert [job and job.id for job in found] == [b, None, a, b]
        assert world.run(world.store.fetch([])) == []

    def test_many_at_once(self, world: World) -> None:
        jobs = world.jobs(1_500)
        world.enqueue(*jobs)
        found = world.run(world.store.fetch([job.id for job in jobs]))
        assert [job and job.id for job in found] == [job.id for job in jobs]

    def test_history_is_told_oldest_first(self, world: World) -> None:
        world.beat("w1")
        job = world.put(meta='{"policy":{"max_attempts":20}}')
        starts = []
        for n in range(12):
            world.clock.advance("3h")
            (held,) = world.claim().jobs
            starts.append(held.started_at)
            world.clock.advance("1s")
            world.end(held, Failed(ErrorInfo("E", str(n))) if n % 2 else Released(str(n)))
        past = world.attempts(job)
        assert [attempt.started_at for attempt in past] == starts
        assert [attempt.ended_at for attempt in past] == [start + SECOND for start in starts]
        assert [attempt.fence for attempt in past] == sorted({attempt.fence for attempt in past})
        assert [attempt.reason for attempt in past[::2]] == [str(n) for n in range(0, 12, 2)]
        assert world.run(world.store.attempts(world.job().id)) == []

    # --- search --------------------------------------------------------------------------------------------

    def search(self, world: World, limit: int = 100, **wanted: object) -> list[str]:
        """All pages of a search."""
        found: list[str] = []
        after: str | None = None
        filter = Filter(**wanted)  # type: ignore[arg-type]  # the fields of a filter
        for _ in range(200):
            page = world.run(world.store.search(filter, limit, after))
            assert len(page.jobs) <= limit
            found += [job.id for job in page.jobs]
            if page.next is None:
                return found
            after = page.next
        raise AssertionError("the pages do not come to an end")

    def test_a_search_goes_on_after_a_job_that_is_gone(self, world: World) -> None:
        world.need("search")
        ids = [world.put() for _ in range(6)]
        page = world.run(world.store.search(Filter(), 3))
        assert page.next == ids[3]
        world.run(world.store.delete(Selection((ids[3], ids[2]))))
        rest = world.run(world.store.search(Filter(), 3, page.next))
        assert [job.id for job in rest.jobs] == [ids[1], ids[0]]

    def test_search_by_every_field(self, world: World) -> None:
        world.need("search")
        parent = world.put()
        a = world.put(queue="a", task="x", meta='{"tags":["red","é \'"]}')
        b = world.put(queue="a", task="y", meta=f'{{"parent_id":"{parent}","tags":["redder"]}}')
        then = world.clock.advance("1s")
        c = world.put(queue="b", task="x", after=HOUR)
        d = world.put(tenant="acme")
        dead = world.running(queue="b")
        world.end(dead, Discarded("no use"))
        all_ = [dead.id, c, b, a, parent]
        assert self.search(world) == all_
        assert self.search(world, tenant="acme") == [d]
        assert self.search(world, queue="a") == [b, a]
        assert self.search(world, task="x") == [c, a]
        assert self.search(world, queue="a", task="x") == [a]
        assert self.search(world, tag="red") == [a]
        assert self.search(world, tag="é '") == [a]
        assert self.search(world, parent=parent) == [b]
        assert self.search(world, reason="no use") == [dead.id]
        assert self.search(world, since=then) == [dead.id, c]
        assert self.search(world, until=then) == [b, a, parent]
        assert self.search(world, since=then, until=then) == []
        assert self.search(world, queue="nothing") == []

    def test_search_by_state(self, world: World) -> None:
        world.need("search")
        world.beat("w1")
        queued, scheduled, suspect = world.put(), world.put(after=HOUR), world.running("w0")
        world.run(world.store.reap([Death(worker="w0", observed=True)]))
        running, retrying, completed, dead, cancelled = (world.running() for _ in range(5))
        world.end(retrying, Failed(ErrorInfo("E")))
        world.end(completed, Succeeded("1"))
        world.end(dead, Discarded())
        world.run(world.store.cancel(Selection((cancelled.id,))))
        world.end(cancelled, Released("stop"))
        expired = world.put(expires_at=world.clock())
        world.run(world.store.promote(100))
        by_state = {
            State.QUEUED: [suspect.id, queued],
            State.SCHEDULED: [scheduled],
            State.RUNNING: [running.id],
            State.RETRYING: [retrying.id],
            State.COMPLETED: [completed.id],
            State.DEAD: [dead.id],
            State.CANCELLED: [cancelled.id],
            State.EXPIRED: [expired],
        }
        for state, ids in by_state.items():
            assert self.search(world, states=(state,)) == ids, state
        some = (State.EXPIRED, State.QUEUED, State.RETRYING, State.COMPLETED, State.RUNNING)
        newest_first = [id for id in reversed(world.known) if id in {i for s in some for i in by_state[s]}]
        assert self.search(world, states=some) == newest_first

    def test_pages_hold_while_jobs_come_and_go(self, world: World) -> None:
        """By keyset: nothing is shown twice, nothing that stays is left out."""
        world.need("search")
        ids = [world.put() for _ in range(20)]
        assert self.search(world, limit=3) == ids[::-1]
        page = world.run(world.store.search(Filter(), 5))
        assert [job.id for job in page.jobs] == ids[:14:-1]
        for _ in range(3):
            world.put()
        world.run(world.store.delete(Selection((ids[3], ids[14]))))
        assert page.next is not None
        page = world.run(world.store.search(Filter(), 5, page.next))
        assert [job.id for job in page.jobs] == [*ids[13:8:-1]]

    # --- counts --------------------------------------------------------------------------------------------

    def test_counts(self, world: World) -> None:
        """I3: counts come from the rows, so they agree with what is fetched."""
        world.beat("w1")
        for queue, count in (("a", 3), ("b", 1)):
            for _ in range(count):
                world.put(queue=queue)
        world.put(queue="a", after=HOUR)
        world.running(queue="a")
        retrying = world.running(queue="b")
        world.end(retrying, Failed(ErrorInfo("E")))
        for outcome in (Succeeded("1"), Succeeded("1"), Discarded()):
            world.end(world.running(queue="done"), outcome)
        world.run(world.store.queues([QueueChange("b", paused=True)]))
        world.clock.advance("500ms")
        for exact in (False, True):
            stats = world.run(world.store.stats(exact))
            assert {state: count for state, count in stats.states.items() if count} == {
                "queued": 4,
                "scheduled": 1,
                "running": 1,
                "retrying": 1,
                "completed": 2,
                "dead": 1,
            }
            assert stats.now == world.clock()
            queues = {each.queue: each for each in stats.queues if each.queue in "ab"}
            assert queues["a"] == QueueStats("a", False, queued=3, waiting=1, running=1, oldest_due=SECOND // 2)
            assert queues["b"] == QueueStats("b", True, queued=1, waiting=1, running=0, oldest_due=SECOND // 2)
        assert world.run(world.store.stats(exact=True)).exact is True

    def test_the_longest_waiting_need_not_be_the_first(self, world: World) -> None:
        """A head start puts a job before others; it does not make them wait for less long."""
        world.put(queue="a")
        world.clock.advance("2s")
        world.put(queue="a", head_start=100 * SECOND)
        world.clock.advance("1s")
        assert [each.oldest_due for each in world.run(world.store.stats()).queues if each.queue == "a"] == [3 * SECOND]

    def test_counts_of_nothing(self, world: World) -> None:
        stats = world.run(world.store.stats())
        assert (sum(stats.states.values()), stats.queues) == (0, [])

    # --- why -----------------------------------------------------------------------------------------------

    def test_the_facts_behind_a_waiting_job(self, world: World) -> None:
        world.beat("w1", queues=("default",))
        world.beat("w2", queues=("other",))
        ahead = [world.put() for _ in range(3)]
        world.put(queue="other")
        world.put(after=HOUR)
        job = world.put()
        world.put()
        why = world.run(world.store.why(job))
        assert why is not None
        assert (why.job, why.now, why.paused, why.ahead) == (world.fetch(job), world.clock(), False, len(ahead))
        assert {info.id for info in why.workers} == {"w1", "w2"}
        assert why.attempts == ()
        world.claim(limit=2)
        world.run(world.store.queues([QueueChange("default", paused=True)]))
        why = world.run(world.store.why(job))
        assert why is not None
        assert (why.paused, why.ahead) == (True, 1)

    def test_the_facts_of_a_history(self, world: World) -> None:
        held = world.running()
        world.end(held, Failed(ErrorInfo("E"), reason="flaky"))
        why = world.run(world.store.why(held.id))
        assert why is not None
        assert (why.job.state, why.job.reason) == (State.RETRYING, "flaky")
        assert [attempt.outcome for attempt in why.attempts] == ["failed"]
        assert world.run(world.store.why(world.job().id)) is None

    # --- audit ---------------------------------------------------------------------------------------------

    def test_a_busy_store_contradicts_itself_nowhere(self, world: World) -> None:
        """I3: after a bit of everything."""
        helds = [world.running(expires_after=HOUR, idempotency_key=f"k{n}") for n in range(8)]
        for n, held in enumerate(helds[:6]):
            outcomes = (Succeeded("1"), Failed(ErrorInfo("E")), Released("stop"), Discarded(), Released("x", 5.0))
            world.end(held, outcomes[n % 5])
            world.healthy()
        world.run(world.store.reap([Death(worker="w1", observed=True)]))
        world.healthy()
        world.clock.advance("2h")
        world.run(world.store.promote(100))
        world.healthy()
