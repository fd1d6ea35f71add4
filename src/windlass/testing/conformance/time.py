"""What time does: jobs come due and expire, old ones are pruned."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from windlass.core.job import Discarded, ErrorInfo, Failed, LogLine, Progress, State, Succeeded
from windlass.ports.plan import NOW, Plan, Statement, Steps
from windlass.ports.store import Death, Filter, Fired, Pruned, PruneRules, QueueChange, Selection
from windlass.testing.conformance.schedules import Scheduling
from windlass.testing.conformance.world import DAY, HOLD, HOUR, SECOND, World

T = TypeVar("T")

FOREVER = PruneRules(completed=None, cancelled=None, expired=None, dead=None)


def _counted(plan: Plan[T], readings: list[Statement]) -> Plan[T]:
    """The same plan, of which is noted each time that it reads the clock."""

    def steps() -> Steps[T]:
        inner, rows = iter(plan), None
        while True:
            try:
                wanted = inner.send(rows)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if wanted is NOW:
                readings.append(wanted)
            rows = yield wanted

    return Plan(steps, plan.name, write=plan.write, hint=plan.hint)


class Time:
    """The chapter `time`."""

    def test_a_redrive_is_of_one_instant(self, world: World) -> None:
        """I12, I14: a clock that is stepped inside a transaction must not make it one of two times."""
        held = world.running()
        world.end(held, Discarded("bad"))
        readings: list[Statement] = []
        again = world.store.revive(Selection(filter=Filter(states=(State.DEAD,)), delay=SECOND))
        assert world.run(_counted(again, readings)).changed == (held.id,)
        assert len(readings) <= 1, "a store may read its clock where it decides"

    def test_a_tick_that_cancels_is_of_one_instant(self, world: World) -> None:
        """I11: nor may it end the job before it at another time than its own."""
        readings: list[Statement] = []
        schedules = Scheduling()
        schedules.made(world)
        for _ in range(2):
            readings.clear()
            tick = schedules.tick(world, overlap="cancel-previous")
            assert world.run(_counted(world.store.fire([tick]), readings)) == [Fired.FIRED]
            world.clock.advance("1m")
        assert len(readings) <= 1, "a store may read its clock where it decides"

    def test_promotion_is_never_early(self, world: World) -> None:
        """I14: and it says exactly when to come back."""
        second, first = world.put(after=20 * SECOND), world.put(after=10 * SECOND)
        answer = world.run(world.store.promote(100))
        assert (answer.jobs, answer.next_due, answer.more) == ([], 10 * SECOND, False)
        world.clock.set(world.clock() + 10 * SECOND - 1)
        assert world.run(world.store.promote(100)).next_due == 1
        assert world.fetch(first).state is State.SCHEDULED
        world.clock.set(world.clock() + 1)
        assert world.run(world.store.promote(100)).next_due == 10 * SECOND
        assert [world.fetch(id).state for id in (first, second)] == [State.QUEUED, State.SCHEDULED]
        world.clock.advance("10s")
        assert world.run(world.store.promote(100)).next_due is None

    def test_a_retry_is_promoted_too(self, world: World) -> None:
        """I12: with its error, without its reason: it is queued like any other."""
        held = world.running()
        world.end(held, Failed(ErrorInfo("E"), reason="flaky"))
        world.clock.advance("1s")
        world.run(world.store.promote(100))
        job = world.fetch(held.id)
        assert (job.state, job.reason, job.attempt) == (State.QUEUED, None, 1)
        assert job.error is not None

    def test_suspects_are_announced(self, world: World) -> None:
        """I6: somebody has to start a quarantine worker for them, wherever one may claim."""
        assert world.run(world.store.promote(100)).suspects == ()
        for queue in ("a", "b", "paused"):
            world.running("w1", queue=queue)
        world.put(queue="plain")
        world.run(world.store.queues([QueueChange("paused", paused=True)]))
        world.run(world.store.reap([Death(worker="w1", observed=True)]))
        assert sorted(world.run(world.store.promote(100)).suspects) == ["a", "b"]
        world.beat("w2")
        world.claim("w2", queue="a", suspects=True)
        assert world.run(world.store.promote(100)).suspects == ("b",)

    def test_a_small_limit_gets_through(self, world: World) -> None:
        due = [world.put(after=SECOND) for _ in range(8)]
        old = [world.put(expires_after=SECOND) for _ in range(8)]
        world.clock.advance("1s")
        rounds = 0
        while world.run(world.store.promote(3)).more:
            rounds += 1
        assert 1 <= rounds <= 16
        assert {world.fetch(id).state for id in due} == {State.QUEUED}
        assert {world.fetch(id).state for id in old} == {State.EXPIRED}

    def test_everything_that_waits_expires(self, world: World) -> None:
        """I2: queued, scheduled or retrying; what runs does not, and what ended stays as it was."""
        running = world.running(expires_after=HOUR)
        retrying = world.running(expires_after=HOUR)
        world.end(retrying, Failed(ErrorInfo("E"), retry_after=7_200.0))
        done = world.running(expires_after=HOUR)
        world.end(done, Succeeded("1"))
        waiting = [world.put(expires_after=HOUR), world.put(after=2 * HOUR, expires_after=HOUR), retrying.id]
        both = world.put(after=HOUR, expires_after=HOUR)
        world.clock.set(world.clock() + HOUR - 1)
        world.run(world.store.promote(100))
        assert {world.fetch(id).state for id in waiting}.isdisjoint({State.EXPIRED})
        now = world.clock.advance("1us")
        world.run(world.store.promote(100))
        for id in (*waiting, both):
            job = world.fetch(id)
            assert (job.state, job.reason, job.finished_at) == (State.EXPIRED, "expired", now)
        assert world.fetch(running.id).state is State.RUNNING
        assert world.fetch(done.id).state is State.COMPLETED
        assert world.outcomes(retrying.id) == ["failed"]
        assert world.claim().jobs == []

    def test_a_job_handed_back_after_its_time_expires(self, world: World) -> None:
        held = world.running(expires_after=HOUR)
        world.clock.advance("2h")
        world.run(world.store.reap([Death(worker="w1", observed=True, explained=True)]))
        world.beat("w2")
        assert world.claim("w2").jobs == []
        world.run(world.store.promote(100))
        assert world.fetch(held.id).state is State.EXPIRED

    # --- prune ---------------------------------------------------------------------------------------------

    def prune(self, world: World, rules: PruneRules, limit: int = 1_000) -> Pruned:
        """Prune until done, and answer the sums."""
        jobs = results = keys = workers = 0
        for _ in range(200):
            part = world.run(world.store.prune(rules, limit))
            jobs, results = jobs + part.jobs, results + part.results
            keys, workers = keys + part.keys, workers + part.workers
            if part.done:
                return Pruned(jobs, results, keys, workers, done=True)
        raise AssertionError("prune does not come to an end")

    def test_results_expire_at_their_time(self, world: World) -> None:
        """I15: readable until then, counted from the end, and afterwards `expired`, never as if it were pending."""
        held = world.running(meta='{"policy":{"result_ttl":3600}}')
        for_ever = world.running(meta='{"policy":{"result_ttl":31536000}}')
        world.clock.advance("30m")
        world.end(held, Succeeded('"r"'))
        world.end(for_ever, Succeeded('"r"'))
        world.clock.set(world.clock() + HOUR - 1)
        assert self.prune(world, FOREVER) == Pruned()
        assert world.fetch(held.id).result == '"r"'
        world.clock.advance("1us")
        assert self.prune(world, FOREVER) == Pruned(results=1)
        job = world.fetch(held.id)
        assert (job.state, job.result, job.result_expired) == (State.COMPLETED, None, True)
        assert world.fetch(for_ever.id).result == '"r"'
        assert self.prune(world, FOREVER) == Pruned()

    def test_each_end_has_its_rule(self, world: World) -> None:
        completed, dead = world.running(), world.running()
        world.end(completed, Succeeded("1"))
        world.end(dead, Discarded())
        cancelled, expired = world.put(), world.put(expires_after=1)
        world.run(world.store.cancel(Selection((cancelled,))))
        world.clock.advance("1us")
        world.run(world.store.promote(10))
        ids = {"completed": completed.id, "dead": dead.id, "cancelled": cancelled, "expired": expired}
        world.clock.advance("2h")
        assert self.prune(world, FOREVER).jobs == 0
        for state, id in ids.items():
            rules = msgspec.structs.replace(FOREVER, **{state: HOUR})
            assert self.prune(world, rules).jobs == 1
            assert world.run(world.store.fetch([id])) == [None]
        assert world.run(world.store.fetch(list(ids.values()))) == [None] * 4

    def test_a_rule_counts_from_the_end(self, world: World) -> None:
        held = world.running()
        world.clock.advance("5h")
        world.end(held, Succeeded("1"))
        world.clock.set(world.clock() + HOUR - 1)
        assert self.prune(world, PruneRules(completed=HOUR)).jobs == 0
        world.clock.advance("1us")
        assert self.prune(world, PruneRules(completed=HOUR)).jobs == 1

    def test_pruning_in_small_steps(self, world: World) -> None:
        """However small the steps: all that is past the rules goes, what lives stays, and nothing is left over."""
        helds = [world.running(idempotency_key=f"k{n}") for n in range(20)]
        for held in helds:
            line = LogLine(1, "info", "x")
            world.run(world.store.report([(held.token, Progress(1.0))], [(held.token, line)]))
            world.run(world.store.once(held.token, "n", "1"))
        for held in helds[:17]:
            world.end(held, Succeeded("1"))
        waiting = [world.put(), world.put(after=30 * DAY)]
        world.clock.advance("10d")
        pruned = self.prune(world, PruneRules(completed=DAY), limit=3)
        assert (pruned.jobs, pruned.keys) == (17, 17)
        found = world.run(world.store.fetch([held.id for held in helds]))
        assert [job is not None for job in found] == [False] * 17 + [True] * 3
        assert world.attempts(helds[0].id) == []
        assert world.run(world.store.logs(helds[0].id)) == []
        assert all(world.fetch(id) for id in waiting)
        assert len(world.run(world.store.held("w1"))) == 3
        world.healthy()

    def test_work_goes_on_between_steps(self, world: World) -> None:
        for _ in range(10):
            world.end(world.running(), Succeeded("1"))
        world.clock.advance("2d")
        rules = PruneRules(completed=DAY)
        jobs = world.run(world.store.prune(rules, 4)).jobs
        fresh = world.running()
        world.end(fresh, Succeeded("1"))
        assert jobs + self.prune(world, rules, limit=4).jobs + self.prune(world, rules, limit=4).jobs == 10
        assert world.fetch(fresh.id).result == "1"

    def test_workers_are_forgotten(self, world: World) -> None:
        """But never one that still holds jobs: nobody could take them over."""
        world.beat("taken")
        world.run(world.store.reap([Death(worker="taken", observed=True)]))
        world.beat("lapsed")
        held = world.running("holder")
        rules = PruneRules(workers=DAY)
        world.clock.set(world.clock() + DAY - SECOND)
        world.beat("alive")
        assert self.prune(world, rules).workers == 0
        world.clock.set(world.clock() + HOLD)
        assert self.prune(world, rules).workers == 2
        assert {info.id for info in world.run(world.store.workers())} == {"alive", "holder"}
        answer = world.run(world.store.reap([Death(worker="holder", observed=True)]))
        assert answer[0].jobs == 1
        assert world.fetch(held.id).state is State.QUEUED
