"""Claim: due jobs to workers, each to one, by rank."""

from __future__ import annotations

from windlass.core.job import ErrorInfo as Error
from windlass.core.job import Failed, Held, Released, State, Succeeded
from windlass.ports.store import CLAIM_WINDOW, Claimed, ClaimRequest, Death, QueueChange, Quota
from windlass.testing.conformance.world import HOLD, HOUR, MINUTE, SECOND, World, plain


def ids(claimed: Claimed) -> list[str]:
    return [held.id for held in claimed.jobs]


class Claiming:
    """The chapter `claim`."""

    def test_a_grant_carries_the_job(self, world: World) -> None:
        """A worker reads nothing else before it runs a job."""
        sent = world.job(
            payload="[[1],{}]", meta='{"tags":["x"]}', version=2, tenant="t", priority=70, expires_after=HOUR
        )
        world.enqueue(sent)
        created = world.clock()
        world.beat("w1")
        now = world.clock.advance("1s")
        claimed = world.claim()
        assert [plain(held) for held in claimed.jobs] == [
            Held(
                id=sent.id,
                fence=now,
                task=sent.task,
                version=2,
                queue="default",
                tenant="t",
                payload=sent.payload,
                meta=sent.meta,
                attempt=1,
                crashes=0,
                losses=0,
                suspect=False,
                priority=70,
                created_at=created,
                due_at=created,
                started_at=now,
                expires_at=created + HOUR,
            )
        ]
        job = world.fetch(sent.id)
        assert (job.state, job.worker, job.fence, job.started_at, job.attempt) == (
            State.RUNNING,
            "w1",
            now,
            now,
            1,
        )

    def test_rank_decides(self, world: World) -> None:
        """I18: priority is a head start, so a job of lower rank waits a bounded time behind later ones."""
        plain = world.put()
        ahead = world.put(head_start=MINUTE)
        world.clock.advance("30s")
        later_ahead = world.put(head_start=MINUTE)
        world.clock.advance("40s")
        too_late = world.put(head_start=MINUTE)
        world.beat("w1")
        assert ids(world.claim()) == [ahead, later_ahead, plain, too_late]

    def test_equal_ranks_stand_in_the_order_of_enqueue(self, world: World) -> None:
        """Also within a batch, and whatever the ids look like."""
        jobs = world.jobs(20)
        jobs.sort(key=lambda job: job.id[::-1])
        world.enqueue(*jobs[:10])
        world.enqueue(*jobs[10:])
        world.beat("w1")
        assert ids(world.claim(limit=20)) == [job.id for job in jobs]

    def test_what_comes_due_is_ranked_among_the_rest(self, world: World) -> None:
        """I14: a delayed job is promoted by the claim itself, and stands where its due time puts it."""
        delayed = world.put(after=10 * SECOND)
        world.clock.advance("5s")
        sooner = world.put()
        world.clock.advance("15s")
        later = world.put()
        world.beat("w1")
        assert ids(world.claim()) == [sooner, delayed, later]

    def test_no_job_starts_early(self, world: World) -> None:
        """I14: not by a microsecond; and the answer says when to come back."""
        job = world.put(after=10 * SECOND)
        world.beat("w1")
        early = world.claim()
        assert (early.jobs, early.next_due, early.more) == ([], 10 * SECOND, False)
        world.clock.set(world.clock() + 10 * SECOND - 1)
        early = world.claim()
        assert (early.jobs, early.next_due) == ([], 1)
        world.clock.set(world.clock() + 1)
        claimed = world.claim()
        assert (ids(claimed), claimed.next_due) == ([job], None)

    def test_a_retry_is_never_early(self, world: World) -> None:
        """I12: the backoff is measured by the store's clock from the moment of the settle."""
        held = world.running()
        world.clock.advance("7s")
        world.end(held, Failed(Error("E"), retry_after=3.0))
        world.clock.set(world.clock() + 3 * SECOND - 1)
        assert world.claim().jobs == []
        world.clock.set(world.clock() + 1)
        again = world.claim().jobs[0]
        assert (again.id, again.attempt) == (held.id, 2)

    def test_queues_are_served_in_order_each_to_its_quota(self, world: World) -> None:
        a, b, c = ([world.put(queue=queue) for _ in range(4)] for queue in "abc")
        world.beat("w1")
        request = ClaimRequest(6, (Quota("b", 3), Quota("nothing", 5), Quota("a", 2), Quota("c", 4)))
        assert ids(world.run(world.store.claim("w1", 1, request))) == [*b[:3], *a[:2], *c[:1]]
        assert ids(world.run(world.store.claim("w1", 2, request))) == [b[3], *a[2:], *c[1:]]

    def test_no_more_means_no_more(self, world: World) -> None:
        """A worker that is told so sleeps: whatever was left behind would wait for a hint that never comes."""
        for n in range(30):
            world.put(queue="ab"[n % 2], task=f"t{n % 3}")
        world.beat("w1")
        for seq in range(1, 100):
            request = ClaimRequest(5, (Quota("a", 2), Quota("b", 5)), exclude=(("t1", 1),))
            claimed = world.run(world.store.claim("w1", seq, request))
            if not claimed.more:
                break
        assert world.run(world.store.claim("w1", 100, request)).jobs == []
        assert len(world.run(world.store.held("w1"))) == 20

    def test_a_limit_of_nothing_grants_nothing(self, world: World) -> None:
        world.put()
        world.beat("w1")
        assert world.claim(limit=0).jobs == []
        assert world.run(world.store.claim("w1", 9, ClaimRequest(5, ()))).jobs == []

    # --- who may claim -------------------------------------------------------------------------------------

    def test_only_a_registered_worker_claims(self, world: World) -> None:
        world.put()
        claimed = world.claim("stranger")
        assert (claimed.jobs, claimed.alive) == ([], False)
        assert world.run(world.store.claim_ids("stranger", 1, list(world.known))).alive is False

    def test_a_worker_that_was_taken_over_never_claims_again(self, world: World) -> None:
        """I4: it may be a process that slept for an hour and believes itself alive."""
        job = world.put()
        world.beat("w1")
        world.run(world.store.reap([Death(worker="w1", observed=True)]))
        claimed = world.claim("w1")
        assert (claimed.jobs, claimed.alive) == ([], False)
        assert world.run(world.store.claim_ids("w1", 9, [job])).alive is False

    def test_a_lapsed_worker_that_nobody_took_still_claims(self, world: World) -> None:
        """After an outage of the store everybody has lapsed; work goes on at once all the same."""
        job = world.put()
        world.beat("w1")
        world.clock.set(world.clock() + HOLD + SECOND)
        assert ids(world.claim("w1")) == [job]

    def test_a_closed_seq_grants_nothing(self, world: World) -> None:
        """A claim that was given up as lost may still arrive, late."""
        job = world.put()
        world.beat("w1")
        assert world.run(world.store.recover("w1", 5)) == []
        for seq in (4, 5):
            late = world.claim(seq=seq)
            assert (late.jobs, late.alive) == ([], True)
            assert world.run(world.store.claim_ids("w1", seq, [job])).jobs == []
        assert ids(world.claim(seq=6)) == [job]

    # --- once ----------------------------------------------------------------------------------------------

    def test_no_job_is_granted_twice(self, world: World) -> None:
        """I5: a held job is nobody else's, by whatever way it is asked for."""
        job = world.put()
        for worker in ("w1", "w2"):
            world.beat(worker)
        assert ids(world.claim("w1")) == [job]
        for worker in ("w1", "w2"):
            assert world.claim(worker).jobs == []
            assert world.run(world.store.claim_ids(worker, 99, [job, job])).jobs == []

    def test_the_fence_grows_even_if_the_clock_does_not(self, world: World) -> None:
        """I4: also across a clock that was set back, or a store that lost its latest writes."""
        held = world.running()
        fences = [held.fence]
        for step in (0, -HOUR, -HOUR, 2 * HOUR):
            world.end(held, Released("test"))
            world.clock.set(world.clock() + step)
            held = world.claim().jobs[0]
            fences.append(held.fence)
        assert fences == sorted(set(fences))
        assert fences[1] == fences[0] + 1, "within one microsecond the fence must still grow by one"
        assert fences[-1] == world.clock() or fences[-1] == fences[-2] + 1

    def test_fences_are_exact_beyond_doubles(self, world: World) -> None:
        """I4: a store that keeps numbers as doubles would give one token twice past 2**53."""
        world.need("wide_numbers")
        world.clock.set(2**53 + 1)
        held = world.running()
        assert held.fence == 2**53 + 1
        world.end(held, Released("test"))
        assert world.claim().jobs[0].fence == 2**53 + 2

    # --- what is passed over -------------------------------------------------------------------------------

    def test_an_expired_job_is_not_granted(self, world: World) -> None:
        """It ends as `expired` at the very microsecond, without an attempt."""
        job = world.put(expires_after=10 * SECOND)
        world.beat("w1")
        world.clock.advance("10s")
        assert world.claim().jobs == []
        found = world.fetch(job)
        assert (found.state, found.reason, found.finished_at) == (State.EXPIRED, "expired", world.clock())
        assert (found.attempt, world.attempts(job)) == (0, [])

    def test_a_job_in_time_is_granted(self, world: World) -> None:
        job = world.put(expires_after=10 * SECOND)
        world.beat("w1")
        world.clock.set(world.clock() + 10 * SECOND - 1)
        assert ids(world.claim()) == [job]
        world.clock.advance("1h")
        assert world.claim().jobs == []
        assert world.fetch(job).state is State.RUNNING, "a job that has started does not expire"

    def test_many_expired_jobs_are_not_granted_either(self, world: World) -> None:
        """However a claim bounds its work, none of them may slip through."""
        world.enqueue(*world.jobs(1_200, expires_after=SECOND))
        job = world.put()
        world.beat("w1")
        world.clock.advance("1s")
        granted: list[str] = []
        for _ in range(10):
            granted += ids(world.claim(limit=500))
        assert granted == [job]

    def test_a_paused_queue_gives_nothing(self, world: World) -> None:
        job = world.put()
        other = world.put(queue="other")
        world.beat("w1")
        world.run(world.store.queues([QueueChange("default", paused=True)]))
        assert world.claim().jobs == []
        assert world.run(world.store.claim_ids("w1", 50, [job])).jobs == []
        assert ids(world.claim(queue="other")) == [other]
        world.run(world.store.queues([QueueChange("default", paused=False)]))
        assert ids(world.claim()) == [job]

    def test_what_a_worker_cannot_run_stays_for_others(self, world: World) -> None:
        """I22: by task and version; no attempt is burned, and nothing is dropped."""
        old, new, other = world.put(version=1), world.put(version=2), world.put(task="other")
        world.beat("w1")
        world.beat("w2")
        assert ids(world.claim("w1", exclude=(("tests.task", 2), ("unheard.of", 1)))) == [old, other]
        job = world.fetch(new)
        assert (job.state, job.attempt) == (State.QUEUED, 0)
        assert ids(world.claim("w2")) == [new]

    def test_a_flood_that_nobody_can_run_does_not_hide_the_rest(self, world: World) -> None:
        """I22: the flood is parked, visibly and uncharged, so that claims reach what stands behind it."""
        flood = world.jobs(3 * CLAIM_WINDOW, task="unknown")
        world.enqueue(*flood)
        good = world.put()
        world.beat("w1")
        world.clock.advance("1m")
        granted: list[str] = []
        for _ in range(12):
            claimed = world.claim(exclude=(("unknown", 1),))
            granted += ids(claimed)
            if not claimed.more:
                break
        assert granted == [good]
        jobs = [world.fetch(job.id) for job in flood]
        assert {job.attempt for job in jobs} == {0}
        assert {(job.state, job.reason) for job in jobs} <= {
            (State.QUEUED, None),
            (State.SCHEDULED, "unknown_task"),
        }
        parked = [job for job in jobs if job.state is State.SCHEDULED]
        assert len(parked) >= 2 * CLAIM_WINDOW
        # Waiting as long as it has waited already doubles the delay, with no counter to keep.
        assert {job.due_at for job in parked} == {world.clock() + MINUTE}
        assert world.attempts(parked[0].id) == []

    def test_what_was_parked_comes_back_at_its_old_rank(self, world: World) -> None:
        """I22: a worker that knows the task appears, and the old jobs run before younger ones."""
        flood = world.jobs(CLAIM_WINDOW + 10, task="unknown")
        world.enqueue(*flood)
        for worker in ("w1", "w2"):
            world.beat(worker)
        for _ in range(3):
            assert world.claim("w1", limit=10, exclude=(("unknown", 1),)).jobs == []
        assert world.fetch(flood[0].id).state is State.SCHEDULED
        younger = world.put()
        world.clock.advance("2s")
        assert ids(world.claim("w2", limit=1_000)) == [*(job.id for job in flood), younger]

    def test_suspects_run_in_quarantine_only(self, world: World) -> None:
        """I6: a job that may have killed its worker does not get near others until it is cleared."""
        held = world.running("w1")
        innocent = world.put()
        world.run(world.store.reap([Death(worker="w1", observed=True, executing=(held.id,))]))
        assert world.fetch(held.id).suspect
        world.beat("w2")
        assert ids(world.claim("w2")) == [innocent]
        assert world.run(world.store.claim_ids("w2", 50, [held.id])).jobs == []
        assert world.run(world.store.promote(10)).suspects == (held.queue,)
        again = world.claim("w2", suspects=True).jobs
        assert world.run(world.store.promote(10)).suspects == ()
        assert [(job.id, job.suspect, job.losses, job.attempt) for job in again] == [(held.id, True, 1, 1)]
        world.end(again[0], Succeeded("1"), worker="w2")
        assert not world.fetch(held.id).suspect

    # --- by id ---------------------------------------------------------------------------------------------

    def test_by_id_in_the_order_asked(self, world: World) -> None:
        jobs = [world.put(queue=queue) for queue in "abcd"]
        delayed = world.put(after=HOUR)
        gone = world.job().id
        world.beat("w1")
        asked = [jobs[2], delayed, gone, jobs[0], jobs[2], jobs[3]]
        assert ids(world.run(world.store.claim_ids("w1", 1, asked))) == [jobs[2], jobs[0], jobs[3]]
        world.clock.advance("1h")
        claimed = world.run(world.store.claim_ids("w1", 2, [delayed, jobs[1]]))
        assert ids(claimed) == [delayed, jobs[1]]
        assert {held.id for held in world.run(world.store.recover("w1", 2))} == {delayed, jobs[1]}

    def test_by_id_in_time_only(self, world: World) -> None:
        job = world.put(expires_after=SECOND)
        world.beat("w1")
        world.clock.advance("2s")
        assert world.run(world.store.claim_ids("w1", 1, [job])).jobs == []

    # --- a whole life --------------------------------------------------------------------------------------

    def test_attempts_have_a_bound(self, world: World) -> None:
        """I6: max_attempts starts for a job that fails, and then it is a dead letter."""
        job = world.put(meta='{"policy":{"max_attempts":3}}')
        world.beat("w1")
        starts = 0
        for _ in range(10):
            for held in world.claim().jobs:
                starts += 1
                world.end(held, Failed(Error("E", f"{starts}")))
            world.clock.advance("1h")
        assert starts == 3
        found = world.fetch(job)
        assert (found.state, found.reason, found.attempt) == (State.DEAD, "attempts_exhausted", 3)
        assert world.outcomes(job) == ["failed"] * 3

    def test_crashes_and_losses_have_bounds(self, world: World) -> None:
        """I6: a job that kills its worker each time is dead after its budget, and no attempt was charged for it."""
        budgets = (("{}", 3, "crashed"), ('{"policy":{"crash_budget":99}}', 10, "lost_too_often"))
        for meta, bound, reason in budgets:
            job = world.put(meta=meta)
            starts = 0
            while (found := world.fetch(job)).state is State.QUEUED and starts < 20:
                starts += 1
                worker = f"w-{reason}-{starts}"
                world.beat(worker)
                claimed = world.claim(worker, suspects=found.suspect)
                assert [(held.id, held.attempt) for held in claimed.jobs] == [(job, 1)]
                world.run(world.store.reap([Death(worker=worker, observed=True, executing=(job,), alone=True)]))
            assert (found.state, found.reason, starts) == (State.DEAD, reason, bound)
            assert len(world.attempts(job)) == bound
