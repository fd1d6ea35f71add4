"""Leases: beats, takeovers, and the recovery of grants whose answer was lost."""

from __future__ import annotations

import msgspec

from windlass.core.job import ErrorInfo, Held, State, Succeeded, Token
from windlass.ports.store import BeatAnswer, Death, Reaped, Selection, WorkerInfo, token_hash
from windlass.testing.conformance.world import DAY, HOLD, SECOND, World, plain, report, token_order


class Leases:
    """The chapter `leases`."""

    # --- beats ---------------------------------------------------------------------------------------------

    def test_a_beat_registers(self, world: World) -> None:
        now = world.clock()
        given = {"host": "h1", "pid": 77, "slots": 8, "busy": 3, "queues": ("a", "b"), "tasks": ("t", "u@2")}
        assert world.beat("w1", **given) == BeatAnswer("w1", taken=False, lease_until=now + HOLD)
        later = world.clock.advance("1s")
        world.beat("w1", **given | {"busy": 4, "state": "draining"})
        assert world.run(world.store.workers()) == [
            WorkerInfo(
                "w1", "s1", "h1", 77, "draining", 8, 4, ("a", "b"), ("t", "u@2"), now, later, later + HOLD, False
            )
        ]

    def test_beats_come_in_batches(self, world: World) -> None:
        """One beat of a supervisor speaks for all its workers; one that was taken does not spoil the rest."""
        world.beat("w2")
        world.run(world.store.reap([Death(worker="w2", observed=True)]))
        answers = world.run(world.store.beat([report("w1"), report("w2"), report("w3", hold=SECOND)]))
        now = world.clock()
        assert answers == [
            BeatAnswer("w1", taken=False, lease_until=now + HOLD),
            BeatAnswer("w2", taken=True),
            BeatAnswer("w3", taken=False, lease_until=now + SECOND),
        ]
        assert {info.id for info in world.run(world.store.workers())} == {"w1", "w3"}
        assert world.run(world.store.beat([])) == []

    def test_a_beat_tells_of_cancels(self, world: World) -> None:
        """The only way back into a running job; said again until it has ended."""
        a, b, _ = (world.running() for _ in range(3))
        other = world.running("w2")
        world.run(world.store.cancel(Selection((a.id, b.id, other.id))))
        for _ in range(2):
            assert set(world.beat("w1").cancel) == {a.id, b.id}
        world.end(a, Succeeded("1"))
        assert world.beat("w1").cancel == (b.id,)
        assert world.beat("w2").cancel == (other.id,)

    def test_a_beat_notices_another_count(self, world: World) -> None:
        """A grant whose answer was lost, or a settle, shows as a difference within one beat."""
        assert world.beat("w1").mismatch is False
        helds = [world.running() for _ in range(3)]
        mixed = 0
        for held in helds:
            mixed ^= token_hash(held.token)
        assert world.beat("w1", held=3, held_hash=mixed).mismatch is False
        assert world.beat("w1", held=2, held_hash=mixed ^ token_hash(helds[0].token)).mismatch is True
        wrong = mixed ^ token_hash(helds[0].token) ^ token_hash(Token(helds[0].id, helds[0].fence + 1))
        assert world.beat("w1", held=3, held_hash=wrong).mismatch is True
        tokens = world.run(world.store.held("w1"))
        assert sorted(tokens, key=token_order) == sorted((h.token for h in helds), key=token_order)
        world.end(helds[0], Succeeded("1"))
        left = mixed ^ token_hash(helds[0].token)
        assert world.beat("w1", held=2, held_hash=left).mismatch is False
        assert world.run(world.store.held("nobody")) == []

    def test_a_lapsed_lease_is_simply_renewed(self, world: World) -> None:
        """I8: an outage costs nobody its jobs, unless somebody took them."""
        held = world.running()
        world.clock.advance("1h")
        assert world.beat("w1", held=1, held_hash=token_hash(held.token)) == BeatAnswer(
            "w1", taken=False, lease_until=world.clock() + HOLD
        )
        assert world.end(held, Succeeded("1")).value == "applied"

    def test_a_taken_id_never_comes_back(self, world: World) -> None:
        """I4: its worker registers anew, under another id."""
        held = world.running()
        world.run(world.store.reap([Death(worker="w1", observed=True)]))
        for _ in range(2):
            assert world.beat("w1", held=1, held_hash=token_hash(held.token)) == BeatAnswer("w1", taken=True)
            world.clock.advance("1h")
        assert world.run(world.store.workers()) == []
        assert world.run(world.store.held("w1")) == []

    # --- who may be taken over -----------------------------------------------------------------------------

    def test_a_living_worker_is_left_alone(self, world: World) -> None:
        """I8: however long its job runs, and however often others ask."""
        held = world.running("w1")
        world.beat("reaper")
        death = Death(worker="w1", observed=False, reaper="reaper")
        for _ in range(20):
            world.clock.set(world.clock() + HOLD)
            assert world.run(world.store.lapsed("reaper")) == [], "at the very end of the lease it still holds"
            assert world.run(world.store.reap([death])) == [Reaped("w1", taken=False)]
            world.beat("w1")
            world.beat("reaper")
        assert world.fetch(held.id).fence == held.fence

    def test_a_lapsed_worker_is_taken_over(self, world: World) -> None:
        """I8: within its hold and one sweep."""
        held = world.running("w1")
        self._beat_through(world, "reaper", HOLD)
        assert world.run(world.store.lapsed("reaper")) == []
        world.clock.set(world.clock() + 1)
        assert world.run(world.store.lapsed("reaper")) == ["w1"]
        death = Death(worker="w1", observed=False, reaper="reaper")
        assert world.run(world.store.reap([death])) == [Reaped("w1", taken=True, jobs=1)]
        assert world.fetch(held.id).state is State.QUEUED
        assert world.run(world.store.lapsed("reaper")) == []

    def test_a_reaper_that_was_cut_off_itself_takes_nobody(self, world: World) -> None:
        """I8: after an outage everyone can report before anyone is reaped."""
        world.running("w1")
        world.beat("reaper")
        world.clock.set(world.clock() + HOLD + SECOND)
        death = Death(worker="w1", observed=False, reaper="reaper")
        for reaper in ("reaper", "stranger", "w1", ""):
            assert world.run(world.store.lapsed(reaper)) == []
            other = Death(worker="w1", observed=False, reaper=reaper)
            assert world.run(world.store.reap([other])) == [Reaped("w1", taken=False)]
        self._beat_through(world, "reaper", HOLD - 1)
        assert world.run(world.store.lapsed("reaper")) == [], "its unbroken series began with its return"
        assert world.run(world.store.reap([death])) == [Reaped("w1", taken=False)]
        world.clock.set(world.clock() + 1)
        assert world.run(world.store.lapsed("reaper")) == ["w1"]
        assert world.run(world.store.reap([death])) == [Reaped("w1", taken=True, jobs=1)]

    def test_after_the_clock_was_set_back_the_dead_are_found_and_the_living_left_alone(self, world: World) -> None:
        """I8: a lease that lies a day ahead is cut to one hold by the first beat of anybody."""
        dead, alive = world.running("dead"), world.running("alive")
        world.beat("reaper")
        world.clock.set(world.clock() - DAY)
        for _ in range(3):
            world.beat("alive")
            self._beat_through(world, "reaper", HOLD // 3)
            assert world.run(world.store.lapsed("reaper")) == [], "each has one whole hold from the first beat"
        world.beat("alive")
        world.clock.set(world.clock() + 1)
        assert world.run(world.store.lapsed("reaper")) == ["dead"]
        deaths = [Death(worker=each, observed=False, reaper="reaper") for each in ("dead", "alive")]
        assert [each.taken for each in world.run(world.store.reap(deaths))] == [True, False]
        assert world.fetch(dead.id).state is State.QUEUED
        assert world.fetch(alive.id).state is State.RUNNING

    def test_a_taken_reaper_takes_nobody(self, world: World) -> None:
        world.running("w1")
        self._beat_through(world, "reaper", HOLD + SECOND)
        world.run(world.store.reap([Death(worker="reaper", observed=True)]))
        assert world.run(world.store.lapsed("reaper")) == []
        death = Death(worker="w1", observed=False, reaper="reaper")
        assert world.run(world.store.reap([death])) == [Reaped("w1", taken=False)]

    def _beat_through(self, world: World, worker: str, span: int) -> None:
        """Beat without a break, from now until now + span."""
        end = world.clock() + span
        world.beat(worker)
        while world.clock() < end:
            world.clock.set(min(end, world.clock() + HOLD // 3))
            world.beat(worker)

    def test_a_resent_takeover_answers_the_same(self, world: World) -> None:
        held = world.running("w1")
        death = Death(worker="w1", observed=True, executing=(held.id,))
        assert world.run(world.store.reap([death])) == [Reaped("w1", taken=True, jobs=1)]
        before = world.dump()
        assert world.run(world.store.reap([death])) == [Reaped("w1", taken=True)]
        assert world.dump() == before

    def test_several_deaths_at_once(self, world: World) -> None:
        helds = [world.running(worker) for worker in ("w1", "w2", "w3")]
        deaths = [Death(worker=worker, observed=True) for worker in ("w3", "nobody", "w1")]
        assert world.run(world.store.reap(deaths)) == [
            Reaped("w3", taken=True, jobs=1),
            Reaped("nobody", taken=False),
            Reaped("w1", taken=True, jobs=1),
        ]
        states = [world.fetch(held.id).state for held in helds]
        assert states == [State.QUEUED, State.RUNNING, State.QUEUED]
        assert world.run(world.store.reap([])) == []

    # --- what becomes of the jobs --------------------------------------------------------------------------

    def test_nobody_knows_who_did_it(self, world: World) -> None:
        """I6: of several that ran, none is charged; each is a suspect, runs alone next, and has one loss more."""
        ran, also, waited = (world.running() for _ in range(3))
        now = world.clock.advance("2s")
        death = Death(worker="w1", observed=True, executing=(ran.id, also.id), detail="killed by signal 9")
        assert world.run(world.store.reap([death])) == [Reaped("w1", taken=True, jobs=3)]
        for held in (ran, also):
            job = world.fetch(held.id)
            assert (job.state, job.suspect, job.attempt, job.crashes, job.losses) == (State.QUEUED, True, 0, 0, 1)
            (past,) = world.attempts(held.id)
            assert (past.outcome, past.reason, past.number, past.worker) == ("lost", "killed by signal 9", 1, "w1")
            assert (past.started_at, past.ended_at) == (held.started_at, now)
            assert past.fence == job.fence > held.fence, "its history shows the fence of the takeover"
        unstarted = world.fetch(waited.id)
        assert (unstarted.state, unstarted.suspect, unstarted.losses) == (State.QUEUED, False, 0)
        assert (unstarted.attempt, world.outcomes(waited.id)) == (0, ["released"])

    def test_where_nobody_knows_what_ran(self, world: World) -> None:
        helds = [world.running() for _ in range(2)]
        world.run(world.store.reap([Death(worker="w1", observed=True, executing=None)]))
        assert [world.fetch(held.id).suspect for held in helds] == [True, True]

    def test_a_job_that_ran_alone_did_it(self, world: World) -> None:
        """I6: the crash is its own; what was only fetched is not accused."""
        ran, waited = world.running(), world.running()
        world.run(world.store.reap([Death(worker="w1", observed=True, executing=(ran.id,), alone=True)]))
        job = world.fetch(ran.id)
        assert (job.crashes, job.losses, job.attempt, world.outcomes(ran.id)) == (1, 1, 0, ["crashed"])
        other = world.fetch(waited.id)
        assert (other.crashes, other.losses, other.suspect) == (0, 0, False)

    def test_an_explained_death_charges_nobody(self, world: World) -> None:
        """I6: neighbours of a killed job go back uncharged and unsuspected; who had begun counts a loss."""
        helds = [world.running() for _ in range(2)]
        death = Death(worker="w1", observed=True, executing=(helds[0].id,), explained=True)
        world.clock.advance("1s")
        younger = world.put()
        world.clock.advance("1s")
        world.run(world.store.reap([death]))
        for held, losses in zip(helds, (1, 0), strict=True):
            job = world.fetch(held.id)
            assert (job.state, job.attempt, job.losses, job.suspect) == (State.QUEUED, 0, losses, False)
            assert job.crashes == 0
        world.beat("w2")
        granted = [held.id for held in world.claim("w2").jobs]
        assert granted == [*(held.id for held in helds), younger], "they must keep their rank"

    def test_a_stop_hands_back_what_it_cut_off(self, world: World) -> None:
        """I26: however many deploys a long job meets, none of them counts."""
        held = world.running()
        death = Death(worker="w1", observed=True, executing=(held.id,), explained=True, stopped=True)
        world.run(world.store.reap([death]))
        job = world.fetch(held.id)
        assert (job.state, job.attempt, job.crashes, job.losses, job.suspect) == (State.QUEUED, 0, 0, 0, False)
        assert world.outcomes(held.id) == ["released"]

    def test_the_guilty_are_charged(self, world: World) -> None:
        """I6: a job that was killed for its own fault has failed, and tries again after its backoff."""
        guilty, neighbour = world.running(), world.running()
        death = Death(
            worker="w1",
            observed=True,
            executing=(guilty.id, neighbour.id),
            explained=True,
            guilty=((guilty.id, "hard_timeout"),),
            detail="ran 40 s",
        )
        world.run(world.store.reap([death]))
        job = world.fetch(guilty.id)
        assert (job.state, job.reason, job.attempt, job.losses) == (State.RETRYING, "hard_timeout", 1, 0)
        assert job.error is not None
        assert msgspec.json.decode(job.error, type=ErrorInfo) == ErrorInfo("HardTimeout", "ran 40 s")
        wait = job.due_at - world.clock()
        assert SECOND <= wait <= 2 * SECOND, "the backoff, with at most its jitter on top"
        assert world.outcomes(guilty.id) == ["failed"]
        assert world.fetch(neighbour.id).state is State.QUEUED

    def test_a_cancel_comes_true_with_the_takeover(self, world: World) -> None:
        """I13: its lease is fenced, so nothing of it can still be written: cancelled, and not run again."""
        held = world.running()
        world.run(world.store.cancel(Selection((held.id,))))
        world.run(world.store.reap([Death(worker="w1", observed=True)]))
        assert world.fetch(held.id).state is State.CANCELLED

    def test_an_unreadable_job_does_not_stop_a_takeover(self, world: World) -> None:
        """I23: its neighbours are recovered in the same sweep, and it is decided by the default policy."""
        metas = ("not json", '{"policy": 5}', "[]", "", '{"tags": null}')
        bad = [world.running(meta=meta) for meta in metas]
        good = world.running()
        guilty = tuple((held.id, "hard_timeout") for held in bad)
        death = Death(worker="w1", observed=True, guilty=guilty)
        assert world.run(world.store.reap([death])) == [Reaped("w1", taken=True, jobs=6)]
        assert world.fetch(good.id).state is State.QUEUED
        assert {world.fetch(held.id).state for held in bad} == {State.RETRYING}

    # --- lost answers --------------------------------------------------------------------------------------

    def test_lost_grants_are_recovered(self, world: World) -> None:
        """The claim committed, its answer did not arrive: the same jobs, under the same tokens."""
        earlier = world.running("w1")
        jobs = [world.put() for _ in range(4)]
        lost = world.claim("w1", limit=3, seq=10).jobs
        assert [held.id for held in lost] == jobs[:3]
        assert self._same(world.run(world.store.recover("w1", 10)), lost)
        assert self._same(world.run(world.store.recover("w1", 10)), lost)
        world.end(lost[0], Succeeded("1"))
        assert self._same(world.run(world.store.recover("w1", 10)), lost[1:])
        assert world.run(world.store.recover("w1", 9)) == []
        assert world.run(world.store.recover("w2", 10)) == []
        assert world.claim("w1", seq=10).jobs == []
        assert [held.id for held in world.claim("w1", seq=11).jobs] == jobs[3:]
        assert world.fetch(earlier.id).fence == earlier.fence

    def test_recovery_forgets_what_was_taken(self, world: World) -> None:
        world.put()
        world.beat("w1")
        assert len(world.claim("w1", seq=1).jobs) == 1
        world.run(world.store.reap([Death(worker="w1", observed=True, explained=True)]))
        assert world.run(world.store.recover("w1", 1)) == []
        world.beat("w2")
        assert len(world.claim("w2", seq=1).jobs) == 1
        assert world.run(world.store.recover("w1", 1)) == []

    def test_an_older_recovery_does_not_open_what_is_closed(self, world: World) -> None:
        world.put()
        world.beat("w1")
        world.run(world.store.recover("w1", 7))
        world.run(world.store.recover("w1", 3))
        world.beat("w1")
        assert world.claim("w1", seq=7).jobs == []

    def _same(self, one: list[Held], other: list[Held]) -> bool:
        return sorted(map(plain, one), key=token_order) == sorted(map(plain, other), key=token_order)
