"""What operators do: cancel, revive, edit, delete, by ids or by filter."""

from __future__ import annotations

from collections.abc import Callable

from windlass.core.job import (
    Discarded,
    ErrorInfo,
    Failed,
    LogLine,
    Progress,
    Released,
    Settled,
    State,
    Succeeded,
)
from windlass.ports.plan import Plan
from windlass.ports.store import Death, Filter, Selected, Selection
from windlass.testing.conformance.world import HOUR, SECOND, World


class Operating:
    """The chapter `operator`."""

    # --- cancel --------------------------------------------------------------------------------------------

    def test_what_waits_is_cancelled_at_once(self, world: World) -> None:
        """I13: no attempt, from whatever state it waits in."""
        queued, scheduled = world.put(), world.put(after=HOUR)
        retrying = world.running()
        world.end(retrying, Failed(ErrorInfo("E")))
        ids = (queued, scheduled, retrying.id)
        assert world.run(world.store.cancel(Selection(ids))) == Selected(changed=ids)
        for id in ids:
            job = world.fetch(id)
            assert (job.state, job.reason, job.finished_at) == (State.CANCELLED, "cancelled", world.clock())
        assert (world.attempts(queued), world.outcomes(retrying.id)) == ([], ["failed"])
        world.clock.advance("1d")
        world.run(world.store.promote(100))
        assert world.claim().jobs == []
        assert world.run(world.store.claim_ids("w1", 99, ids)).jobs == []

    def test_what_runs_is_asked(self, world: World) -> None:
        """I13: it is `cancelling` until its run has ended; asking again asks again."""
        held = world.running()
        for _ in range(2):
            assert world.run(world.store.cancel(Selection((held.id,)))) == Selected(asked=(held.id,))
            job = world.fetch(held.id)
            assert (job.state, job.cancelling) == (State.RUNNING, True)

    def test_cancelling_sorts_its_ids(self, world: World) -> None:
        ended, running, waiting, gone = world.running(), world.running(), world.put(), world.job().id
        world.end(ended, Succeeded("1"))
        ids = (gone, waiting, ended.id, running.id, waiting)
        answer = world.run(world.store.cancel(Selection(ids)))
        assert answer == Selected((waiting,), (running.id,), (ended.id,), (gone,))
        assert world.fetch(ended.id).state is State.COMPLETED

    def test_a_revived_job_is_no_longer_asked(self, world: World) -> None:
        """I13: the cancel belonged to the series of attempts that it ended."""
        held = world.running()
        world.run(world.store.cancel(Selection((held.id,))))
        world.end(held, Released("stop"))
        world.run(world.store.revive(Selection((held.id,))))
        assert world.beat("w1").cancel == ()
        (again,) = world.claim().jobs
        assert world.beat("w1").cancel == ()
        world.end(again, Released("stop"))
        assert world.fetch(held.id).state is State.QUEUED

    # --- revive --------------------------------------------------------------------------------------------

    def test_ended_jobs_begin_afresh(self, world: World) -> None:
        """I2: a new series of attempts, under a larger fence, with the old history kept."""
        store = world.store
        dead = world.running("w0", meta='{"policy":{"max_attempts":1}}')
        world.run(store.reap([Death(worker="w0", observed=True, executing=(dead.id,), alone=True)]))
        world.beat("w1")
        (held,) = world.claim(suspects=True).jobs
        world.run(store.report([(held.token, Progress(1.0))], [(held.token, LogLine(1, "info", "x"))]))
        world.end(held, Failed(ErrorInfo("E")))
        before = world.fetch(dead.id)
        assert (before.state, before.crashes, before.losses, before.attempt) == (State.DEAD, 1, 1, 1)
        now = world.clock.advance("1h")
        assert world.run(store.revive(Selection((dead.id,)))) == Selected(changed=(dead.id,))
        job = world.fetch(dead.id)
        assert (job.state, job.reason, job.due_at, job.finished_at) == (State.QUEUED, None, now, None)
        assert (job.attempt, job.crashes, job.losses, job.suspect) == (0, 0, 0, False)
        assert (job.error, job.result, job.worker, job.started_at) == (None, None, None, None)
        assert job.fence > before.fence
        assert world.outcomes(dead.id) == ["crashed", "failed"]
        assert len(world.run(store.logs(dead.id))) == 1
        (again,) = world.claim().jobs
        assert (again.id, again.attempt) == (dead.id, 1)
        assert again.fence > job.fence
        world.end(again, Succeeded("1"))
        assert world.outcomes(dead.id) == ["crashed", "failed", "succeeded"]

    def test_every_end_can_be_revived(self, world: World) -> None:
        completed, dead = world.running(), world.running()
        world.end(completed, Succeeded('"old"'))
        world.end(dead, Discarded())
        cancelled, expired = world.put(), world.put(expires_after=1)
        world.run(world.store.cancel(Selection((cancelled,))))
        world.clock.advance("1s")
        world.run(world.store.promote(100))
        ids = (completed.id, dead.id, cancelled, expired)
        states = [world.fetch(id).state for id in ids]
        assert states == [State.COMPLETED, State.DEAD, State.CANCELLED, State.EXPIRED]
        assert world.run(world.store.revive(Selection(ids))).changed == ids
        jobs = [world.fetch(id) for id in ids]
        assert [(job.state, job.result, job.result_expired) for job in jobs] == [(State.QUEUED, None, False)] * 4
        assert jobs[3].expires_at is None, "or it would expire again at once"
        world.beat("w1")
        assert {held.id for held in world.claim().jobs} == set(ids)

    def test_a_revived_job_has_no_expiry(self, world: World) -> None:
        """The time that it had was for the first series of attempts; nor does a job that was deleted leave one."""
        revived, deleted = (world.running(expires_after=HOUR) for _ in range(2))
        for held in (revived, deleted):
            world.end(held, Discarded())
        world.run(world.store.revive(Selection((revived.id,))))
        world.run(world.store.delete(Selection((deleted.id,))))
        again = world.job(id=deleted.id)
        world.enqueue(again)
        world.clock.advance("2h")
        world.run(world.store.promote(100))
        assert {held.id for held in world.claim().jobs} == {again.id, revived.id}
        assert {world.fetch(id).state for id in (revived.id, again.id)} == {State.RUNNING}

    def test_revived_jobs_go_to_the_back_of_the_line(self, world: World) -> None:
        held = world.running()
        world.end(held, Discarded())
        world.clock.advance("1s")
        middle = world.put()
        world.clock.advance("1s")
        world.run(world.store.revive(Selection((held.id,))))
        assert [each.id for each in world.claim().jobs] == [middle, held.id]

    def test_what_is_due_later_is_due_now(self, world: World) -> None:
        """With its counts as they are: somebody is only impatient."""
        scheduled = world.put(after=HOUR)
        retrying = world.running()
        world.end(retrying, Failed(ErrorInfo("E")))
        now = world.clock.advance("1ms")
        ids = (scheduled, retrying.id)
        assert world.run(world.store.revive(Selection(ids))).changed == ids
        assert [(job.state, job.due_at) for job in map(world.fetch, ids)] == [(State.QUEUED, now)] * 2
        assert [(held.id, held.attempt) for held in world.claim().jobs] == [(scheduled, 1), (retrying.id, 2)]

    def test_what_is_under_way_is_left_alone(self, world: World) -> None:
        queued, running = world.put(queue="q"), world.running()
        before = world.dump()
        answer = world.run(world.store.revive(Selection((queued, running.id, world.job().id))))
        assert (answer.changed, answer.untouched, len(answer.missing)) == ((), (queued, running.id), 1)
        assert world.dump() == before

    def test_revived_jobs_may_come_one_by_one(self, world: World) -> None:
        """A rate that outlives whoever asked for it: it lies in the due times."""
        world.beat("w1")
        early = world.put(after=HOUR, head_start=7)
        dead = [world.running(head_start=5) for _ in range(3)]
        for held in dead:
            world.end(held, Discarded())
        now = world.clock.advance("1m")
        ids = (dead[2].id, early, dead[0].id, dead[1].id)
        answer = world.run(world.store.revive(Selection(ids, delay=SECOND, every=3 * SECOND, dry_run=True)))
        assert answer.changed == ids
        assert world.fetch(early).due_at > now + HOUR / 2
        assert world.run(world.store.revive(Selection(ids, delay=SECOND, every=3 * SECOND))).changed == ids
        jobs = [world.fetch(id) for id in ids]
        assert [(job.state, job.reason) for job in jobs] == [(State.SCHEDULED, "redriven")] * 4
        assert [job.due_at - now for job in jobs] == [n * SECOND for n in (1, 4, 7, 10)]
        assert world.outcomes(dead[0].id) == ["discarded"]
        assert world.claim().jobs == []
        for n, id in enumerate(ids):
            world.clock.set(now + SECOND + 3 * n * SECOND)
            (held,) = world.claim().jobs
            assert (held.id, held.attempt) == (id, 1)
        world.healthy()

    def test_the_first_of_those_may_come_at_once(self, world: World) -> None:
        dead = [world.running() for _ in range(2)]
        for held in dead:
            world.end(held, Discarded())
        world.run(world.store.revive(Selection(tuple(held.id for held in dead), every=SECOND)))
        assert [world.fetch(held.id).state for held in dead] == [State.QUEUED, State.SCHEDULED]
        assert world.fetch(dead[0].id).reason is None

    # --- edit, delete --------------------------------------------------------------------------------------

    def test_a_payload_is_edited(self, world: World) -> None:
        """A dead letter is corrected and sent again; a running job's payload is what it started with."""
        dead, running = world.running(), world.running()
        world.end(dead, Discarded())
        waiting, gone = world.put(), world.job().id
        payload = '[["\\u0000 é", 9007199254740993],{}]'
        answers = [world.run(world.store.edit(id, payload)) for id in (dead.id, waiting, running.id, gone)]
        assert answers == [
            Selected(changed=(dead.id,)),
            Selected(changed=(waiting,)),
            Selected(untouched=(running.id,)),
            Selected(missing=(gone,)),
        ]
        world.run(world.store.revive(Selection((dead.id,))))
        assert {held.payload for held in world.claim().jobs} == {payload}
        assert world.fetch(running.id).payload == running.payload
        assert world.fetch(dead.id).state is State.RUNNING

    def test_a_deleted_job_leaves_nothing(self, world: World) -> None:
        store = world.store
        held, running = world.running(idempotency_key="k"), world.running()
        line = LogLine(1, "info", "x")
        world.run(store.report([(held.token, Progress(1.0))], [(held.token, line)]))
        world.run(store.once(held.token, "charge", "1"))
        world.end(held, Failed(ErrorInfo("E")))
        queued, scheduled = world.put(expires_after=HOUR), world.put(after=HOUR)
        ids = (held.id, queued, scheduled)
        answer = world.run(store.delete(Selection((*ids, running.id))))
        assert answer == Selected(changed=ids, untouched=(running.id,))
        assert world.run(store.fetch(ids)) == [None] * 3
        assert (world.attempts(held.id), world.run(store.logs(held.id))) == ([], [])
        assert world.run(store.delete(Selection((queued,)))).missing == (queued,)
        world.clock.advance("1d")
        world.run(store.promote(100))
        assert world.claim().jobs == []
        world.healthy()
        # The same id may be enqueued again, and owes nothing to its former life.
        world.enqueue(world.job(id=held.id))
        (again,) = world.claim().jobs
        assert (again.id, again.attempt) == (held.id, 1)
        assert world.run(store.once(again.token, "charge", None)) is None
        assert world.fetch(held.id).progress is None

    # --- selections ----------------------------------------------------------------------------------------

    def test_a_dry_run_changes_nothing(self, world: World) -> None:
        waiting, dead = world.put(), world.running()
        world.end(dead, Discarded())
        running = world.running()
        before = world.dump()
        for act in (world.store.cancel, world.store.revive, world.store.delete):
            for by in ({"ids": (waiting, dead.id, running.id)}, {"filter": Filter()}):
                told = world.run(act(Selection(**by, dry_run=True)))
                assert told.changed
                assert world.dump() == before

    def test_by_filter(self, world: World) -> None:
        mine = [world.put(queue="a", task="t"), world.put(queue="a", task="t")]
        others = [world.put(queue="b", task="t"), world.put(queue="a"), world.put(queue="a", task="t", tenant="x")]
        answer = world.run(world.store.cancel(Selection(filter=Filter(queue="a", task="t"))))
        assert (set(answer.changed), answer.untouched) == (set(mine), ())
        assert {world.fetch(id).state for id in others} == {State.QUEUED}
        assert world.run(world.store.delete(Selection(filter=Filter(states=(State.DEAD,))))) == Selected()

    def test_by_filter_only_what_is_older(self, world: World) -> None:
        """All but the newest three: whoever keeps some names the last of them."""
        jobs = [world.put() for _ in range(7)]
        wanted = Selection(filter=Filter(), after=jobs[4], limit=3)
        assert world.run(world.store.delete(wanted)).changed == (jobs[3], jobs[2], jobs[1])
        assert world.run(world.store.delete(wanted)).changed == (jobs[0],)
        assert world.run(world.store.delete(wanted)) == Selected()
        assert world.run(world.store.cancel(Selection(filter=Filter(), after=jobs[5]))).changed == (jobs[4],)

    def test_named_jobs_are_judged_by_a_filter_where_they_are_acted_on(self, world: World) -> None:
        """Between being found and being acted on, a letter may have been redriven by somebody else: it must not run
        once more (I13), nor be purged while it waits."""
        dead, done, waiting = world.running(), world.running(), world.put()
        world.end(dead, Discarded())
        world.end(done, Succeeded("1"))
        ids, letters = (dead.id, done.id, waiting, "nobody"), Filter(states=(State.DEAD,))
        for act, dry in ((world.store.delete, True), (world.store.revive, False)):
            told = world.run(act(Selection(ids, letters, dry_run=dry)))
            assert told == Selected((dead.id,), untouched=(done.id, waiting), missing=("nobody",))
        told = world.run(world.store.delete(Selection(ids, letters)))
        assert told == Selected(untouched=(dead.id, done.id, waiting), missing=("nobody",))
        told = world.run(world.store.cancel(Selection((dead.id, waiting), Filter(queue="elsewhere"))))
        assert told == Selected(untouched=(dead.id, waiting))
        assert [world.fetch(id).state for id in ids[:3]] == [State.QUEUED, State.COMPLETED, State.QUEUED]

    def test_by_filter_once_from_the_newest_to_the_oldest(self, world: World) -> None:
        """Letters that die again while they are redriven match again: they come behind `next`, not before it."""
        jobs = [world.put() for _ in range(7)]
        world.beat("w1")
        for _ in jobs:
            world.end(world.claim(limit=1).jobs[0], Discarded())
        redriven: list[str] = []
        after = None
        while True:
            letters = Selection(filter=Filter(states=(State.DEAD,)), limit=3, after=after)
            told = world.run(world.store.revive(letters))
            redriven += told.changed
            for _ in told.changed:
                world.end(world.claim(limit=1).jobs[0], Discarded())
            after = told.next
            if after is None:
                break
        assert redriven == jobs[::-1]

    def test_by_filter_until_nothing_is_left(self, world: World) -> None:
        """However many match that cannot be changed: repeating gets through, and ends."""
        for _ in range(5):
            held = world.running()
            world.end(held, Succeeded("1"))
        cancelled = [world.put(queue="q") for _ in range(7)]
        for _ in range(5):
            world.end(world.running(), Succeeded("1"))
        running = [world.running() for _ in range(2)]
        touched = self._through(world, world.store.cancel)
        assert sorted(touched) == sorted([*cancelled, *(held.id for held in running)])
        revived = self._through(world, world.store.revive)
        assert len(revived) == 17
        deleted = self._through(world, world.store.delete)
        assert sorted(deleted) == sorted(revived)
        world.healthy()

    def _through(self, world: World, act: Callable[[Selection], Plan[Selected]]) -> list[str]:
        touched: list[str] = []
        for _ in range(50):
            answer = world.run(act(Selection(filter=Filter(), limit=3)))
            assert len(answer.changed) + len(answer.asked) <= 3
            assert answer.untouched == answer.missing == ()
            if not (answer.changed or answer.asked):
                return touched
            touched += [*answer.changed, *answer.asked]
        raise AssertionError("repeating a selection by filter does not come to an end")

    def test_a_settle_after_an_edit_finds_its_job(self, world: World) -> None:
        held = world.running()
        world.run(world.store.edit(held.id, "[[1],{}]"))
        assert world.end(held, Succeeded("1")) is Settled.APPLIED
