"""Unique jobs: of one key, at most one lives, and it is free the moment that one ends."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from windlass.core.job import ErrorInfo as Error
from windlass.core.job import (
    Failed,
    Held,
    LogLine,
    Meta,
    NewJob,
    Outcome,
    Progress,
    Snoozed,
    State,
    Succeeded,
    UniqueKey,
)
from windlass.core.machine import complete, lose
from windlass.core.unique import POLICIES
from windlass.ports.store import ClaimRequest, Death, Enqueued, Filter, PruneRules, QueueChange, Quota, Selection
from windlass.testing.conformance.sizes import size
from windlass.testing.conformance.world import DAY, HOUR, MINUTE, SECOND, Script, World, report

RACERS = 64


def by(policy: str = "reject", key: str = "k", **more: int) -> str:
    """The meta of a job with this unique key."""
    return msgspec.json.encode(Meta(unique=UniqueKey(key, policy, **more))).decode()


class Unique:
    """The chapter `unique`."""

    def again(self, world: World, policy: str = "reject", **given: object) -> Enqueued:
        """Another job under the key."""
        meta = given.pop("meta", by(policy))
        [answer] = world.enqueue(world.job(meta=meta, **given))
        return answer

    def states(self, world: World, *jobs: str) -> list[State]:
        """Where they are."""
        return [world.fetch(job).state for job in jobs]

    # --- policies, against an owner that waits -------------------------------------------------------------

    def test_one_lives(self, world: World) -> None:
        """I10: within tenant, task and key; two in one batch are no different from two batches."""
        owner = world.put(meta=by())
        for policy in ("reject", "no such policy"):
            assert self.again(world, policy) == Enqueued(owner, inserted=False, refused=True)
        others = [world.job(meta=by(), task="t2"), world.job(meta=by(), tenant="x"), world.job(meta=by(key="k2"))]
        assert all(answer.inserted for answer in world.enqueue(*others))
        first, second = world.jobs(2, meta=by(key="k3"))
        assert world.enqueue(first, second) == [Enqueued(first.id, True), Enqueued(first.id, False, refused=True)]
        world.healthy()

    def test_the_existing_is_answered(self, world: World) -> None:
        owner = world.put(meta=by())
        for policy in ("return-existing", "throttle"):
            assert self.again(world, policy) == Enqueued(owner, inserted=False)
        assert self.again(world, "return-existing", meta=by("return-existing", "k2")).inserted

    def test_the_latest_takes_the_place_of_one_that_waits(self, world: World) -> None:
        """It is what was asked for last, under the id that whoever came first knows."""
        for policy in ("replace", "keep-last"):
            meta = by(policy, policy)
            owner = world.put(meta=meta, after=HOUR, expires_after=2 * HOUR)
            created = world.fetch(owner).created_at
            world.clock.advance("1s")
            given = {"payload": "[[2],{}]", "queue": "other", "priority": 70, "version": 2}
            new = world.job(meta=meta, head_start=MINUTE, expires_after=HOUR, **given)
            assert world.enqueue(new) == [Enqueued(owner, inserted=False)]
            job = world.fetch(owner)
            assert (job.payload, job.queue, job.priority, job.version) == ("[[2],{}]", "other", 70, 2)
            assert (job.state, job.due_at, job.expires_at) == (State.QUEUED, world.clock(), world.clock() + HOUR)
            assert (job.created_at, job.attempt) == (created, 0)
            assert world.run(world.store.fetch([new.id])) == [None]
        world.healthy()

    def test_a_replaced_job_begins_afresh(self, world: World) -> None:
        """It keeps what has happened, and nothing that would make the new one something else."""
        held = world.running(meta=by("keep-last"))
        world.run(world.store.once(held.token, "charge", "1"))
        world.run(world.store.report([(held.token, Progress(1.0))], [(held.token, LogLine(1, "info", "x"))]))
        world.end(held, Failed(Error("E")))
        assert self.again(world, "keep-last", payload="[[2],{}]", head_start=HOUR) == Enqueued(held.id, inserted=False)
        job = world.fetch(held.id)
        assert (job.state, job.attempt, job.error, job.progress) == (State.QUEUED, 0, None, None)
        assert world.outcomes(held.id) == ["failed"]
        assert len(world.run(world.store.logs(held.id))) == 1
        [again] = world.claim().jobs
        assert (again.payload, again.attempt, again.fence > held.fence) == ("[[2],{}]", 1, True)
        assert world.run(world.store.once(again.token, "charge", None)) is None
        world.healthy()

    def test_a_debounce_moves_on_with_every_arrival(self, world: World) -> None:
        """And no further than its max_wait after the first."""
        meta = by("debounce", max_wait=5 * SECOND)
        first = world.put(meta=meta, after=2 * SECOND)
        began = world.clock()
        dues: list[int] = []
        for _ in range(5):
            world.clock.advance("1s")
            self.again(world, meta=meta, after=2 * SECOND, payload=f"[[{len(dues)}],{{}}]")
            dues.append(world.fetch(first).due_at - began)
        assert dues == [3 * SECOND, 4 * SECOND, 5 * SECOND, 5 * SECOND, 5 * SECOND]
        world.beat("w1")
        [held] = world.claim().jobs
        assert (held.id, held.payload) == (first, "[[4],{}]")

    def test_a_throttle_outlives_its_owner(self, world: World) -> None:
        """The first goes at once; within the window all others are it, also when it has ended."""
        meta = by("throttle", window=10 * SECOND)
        held = world.running(meta=meta)
        assert self.again(world, meta=meta) == Enqueued(held.id, inserted=False)
        world.end(held, Succeeded())
        world.clock.set(world.clock() + 10 * SECOND - 1)
        assert self.again(world, meta=meta) == Enqueued(held.id, inserted=False)
        world.healthy()
        world.clock.set(world.clock() + 1)
        assert self.again(world, meta=meta).inserted
        world.healthy()

    def test_a_throttle_is_one_job_however_long_it_runs(self, world: World) -> None:
        """I10: the window is over, its owner is not."""
        meta = by("throttle", window=SECOND)
        held = world.running(meta=meta)
        world.clock.advance("1m")
        assert self.again(world, meta=meta) == Enqueued(held.id, inserted=False)
        world.end(held, Succeeded())
        assert self.again(world, meta=meta).inserted

    def test_a_window_outlives_the_pruned_owner(self, world: World) -> None:
        """And no other job that has got its number."""
        meta = by("throttle", window=HOUR)
        held = world.running(meta=meta)
        world.end(held, Succeeded())
        world.clock.advance("1m")
        world.run(world.store.prune(PruneRules(completed=0), 100))
        world.put()
        assert self.again(world, meta=meta) == Enqueued(held.id, inserted=False)
        world.healthy()
        world.clock.set(world.clock() + DAY)
        world.run(world.store.prune(PruneRules(), 100))
        world.healthy()
        assert self.again(world, meta=meta).inserted

    # --- policies, against an owner that runs --------------------------------------------------------------

    def test_a_successor_waits_for_the_end(self, world: World) -> None:
        """The last of those that came meanwhile, and only that one."""
        held = world.running(meta=by("keep-last"))
        first = self.again(world, "keep-last", payload="[[1],{}]")
        assert first.inserted
        job = world.fetch(first.id)
        assert (job.state, job.reason) == (State.BLOCKED, "unique")
        why = world.run(world.store.why(first.id))
        assert why is not None
        assert (why.owner, why.awaited, why.awaited_state) == (held.id, held.id, State.RUNNING)
        assert self.again(world, "keep-last", payload="[[2],{}]", queue="other") == Enqueued(first.id, inserted=False)
        assert world.claim().jobs == []
        assert world.claim(queue="other").jobs == []
        world.end(held, Succeeded())
        [next_] = world.claim(queue="other").jobs
        assert (next_.id, next_.payload) == (first.id, "[[2],{}]")
        assert self.again(world).refused
        world.healthy()

    def test_a_replaced_run_is_asked_to_cancel(self, world: World) -> None:
        held = world.running(meta=by("replace"))
        answer = self.again(world, "replace")
        assert answer.inserted
        assert world.beat("w1").cancel == (held.id,)
        assert self.states(world, held.id, answer.id) == [State.RUNNING, State.BLOCKED]
        world.end(held, Failed(Error("E")))
        assert self.states(world, held.id, answer.id) == [State.CANCELLED, State.QUEUED]
        world.healthy()

    def test_a_debounced_successor_waits_on(self, world: World) -> None:
        held = world.running(meta=by("debounce"))
        answer = self.again(world, "debounce", after=10 * SECOND)
        world.clock.advance("4s")
        world.end(held, Succeeded())
        job = world.fetch(answer.id)
        assert (job.state, job.reason, job.due_at) == (State.SCHEDULED, None, world.clock() + 6 * SECOND)

    def test_a_run_that_is_not_over_keeps_the_key(self, world: World) -> None:
        """Retried, snoozed, lost: it lives."""
        outcomes: tuple[Outcome, ...] = (Failed(Error("E")), Snoozed(60.0))
        for n, outcome in enumerate(outcomes):
            meta = by("keep-last", f"k{n}")
            held = world.running(meta=meta)
            answer = self.again(world, meta=meta)
            world.end(held, outcome)
            assert self.states(world, answer.id) == [State.BLOCKED]
        held = world.running(meta=by(key="lost"))
        world.settle(lose(held.token, "lost", suspect=False))
        assert self.again(world, meta=by(key="lost")).refused

    # --- freed, however it ends ----------------------------------------------------------------------------

    def ends(self, world: World) -> dict[str, Callable[[Held], object]]:
        """Every way in which a run ends its job."""

        def reap(held: Held) -> object:
            death = Death(worker="w1", observed=True, guilty=((held.id, "hard_timeout"),))
            return world.run(world.store.reap([death]))

        return {
            "completed": lambda held: world.end(held, Succeeded()),
            "dead": lambda held: world.end(held, Failed(Error("E"), permanent=True)),
            "reaped to death": reap,
            "cancelled while it ran": lambda held: (
                world.run(world.store.cancel(Selection((held.id,)))),
                world.end(held, Failed(Error("E"))),
            ),
        }

    def test_the_end_of_a_run_frees_the_key(self, world: World) -> None:
        """I10: crash or not."""
        spent = by(key="k").replace('"unique"', '"policy":{"max_attempts":1},"unique"')
        for name, end in self.ends(world).items():
            for n in range(2):
                held = world.running(f"{name}-{n}" if name != "reaped to death" else "w1", meta=spent)
                end(held)
                assert world.fetch(held.id).state.terminal, name
                world.healthy()
                if name == "reaped to death":
                    break
        assert self.again(world).inserted

    def test_the_end_of_one_that_waits_frees_the_key(self, world: World) -> None:
        """I10: cancelled, expired, deleted; and its successor, where there is one, comes after it."""
        job = world.put(meta=by())
        world.run(world.store.cancel(Selection((job,))))
        job = world.put(meta=by(), expires_after=SECOND)
        world.clock.advance("1s")
        world.run(world.store.promote(10))
        assert self.states(world, job) == [State.EXPIRED]
        job = world.put(meta=by())
        world.run(world.store.delete(Selection((job,))))
        held = world.running(meta=by("keep-last"))
        successor = self.again(world, "keep-last").id
        world.end(held, Failed(Error("E")))
        world.run(world.store.cancel(Selection((held.id,))))
        assert self.states(world, held.id, successor) == [State.CANCELLED, State.QUEUED]
        assert self.again(world).refused
        world.healthy()

    def test_the_end_of_a_successor_leaves_the_owner(self, world: World) -> None:
        held = world.running(meta=by("keep-last"))
        for act in (world.store.cancel, world.store.delete):
            successor = self.again(world, "keep-last").id
            world.run(act(Selection((successor,))))
            world.healthy()
        successor = self.again(world, "keep-last", expires_after=SECOND).id
        world.clock.advance("1s")
        world.run(world.store.promote(10))
        assert self.states(world, successor) == [State.EXPIRED]
        world.end(held, Succeeded())
        assert self.again(world).inserted
        world.healthy()

    def test_both_end_at_once(self, world: World) -> None:
        held = world.running(meta=by("keep-last"))
        successor = self.again(world, "keep-last").id
        world.end(held, Failed(Error("E")))
        assert len(world.run(world.store.cancel(Selection(filter=Filter()))).changed) == 2
        assert self.states(world, held.id, successor) == [State.CANCELLED] * 2
        assert self.again(world).inserted
        world.healthy()

    def test_children_come_after_the_key_is_free(self, world: World) -> None:
        """A job that enqueues its own next run."""
        held = world.running(meta=by())
        child = world.job(meta=by())
        world.known[child.id] = None
        world.settle(complete(held.token, "1", DAY, (child,)))
        assert self.states(world, held.id, child.id) == [State.COMPLETED, State.QUEUED]
        world.healthy()

    # --- sent again, revived -------------------------------------------------------------------------------

    def test_sent_again_it_answers_as_the_first_time(self, world: World) -> None:
        """I10: also in the place of another, which must not be taken twice; and when all is over."""
        owner, second = world.job(meta=by("keep-last"), payload="[[1],{}]"), world.job(meta=by("keep-last"))
        third = world.job(meta=by("keep-last"), payload="[[3],{}]")
        first_time = [world.enqueue(job) for job in (owner, second, third)]
        assert [world.enqueue(job) for job in (owner, second, third)] == first_time
        assert world.fetch(owner.id).payload == "[[3],{}]"
        world.beat("w1")
        [held] = world.claim().jobs
        assert [world.enqueue(job) for job in (owner, second, third)] == first_time
        world.end(held, Succeeded())
        assert [world.enqueue(job) for job in (owner, second, third)] == first_time
        assert world.claim().jobs == []
        world.healthy()

    def test_a_batch_in_any_mixture(self, world: World) -> None:
        """Jobs of a batch arrive one after the other, and stand in line so."""
        a1, a2 = world.jobs(2, meta=by("keep-last", "a"))
        b1, b2 = world.jobs(2, meta=by("return-existing", "b"))
        plain = world.jobs(2)
        batch = [plain[0], a1, b1, plain[1], b2, a2, a1]
        ids = [plain[0].id, a1.id, b1.id, plain[1].id, b1.id, a1.id, a1.id]
        assert [answer.id for answer in world.enqueue(*batch)] == ids
        world.beat("w1")
        assert [held.id for held in world.claim().jobs] == [plain[0].id, a1.id, b1.id, plain[1].id]

    def test_a_revived_job_has_its_key_again(self, world: World) -> None:
        held = world.running(meta=by())
        world.end(held, Failed(Error("E"), permanent=True))
        assert world.run(world.store.revive(Selection((held.id,)))).changed == (held.id,)
        assert self.again(world) == Enqueued(held.id, inserted=False, refused=True)
        world.healthy()

    def test_a_job_whose_key_is_taken_is_not_revived(self, world: World) -> None:
        """I10: neither by id nor by a filter, and of two only the first."""
        old = [world.running(meta=by()) for _ in range(1)]
        world.end(old[0], Failed(Error("E"), permanent=True))
        old.append(world.running(meta=by()))
        world.end(old[1], Failed(Error("E"), permanent=True))
        both = Selection((old[1].id, old[0].id))
        dry = world.run(world.store.revive(msgspec.structs.replace(both, dry_run=True)))
        assert (dry.changed, dry.untouched) == ((old[1].id,), (old[0].id,))
        assert world.run(world.store.revive(both)) == dry
        other = world.running(meta=by(key="other"))
        world.end(other, Failed(Error("E"), permanent=True))
        dead = Filter(states=(State.DEAD,))
        for limit in (1, 100):
            found = world.run(world.store.revive(Selection(filter=dead, limit=limit)))
            assert (found.changed, found.untouched) == (((other.id,), ()) if limit == 1 else ((), ()))
        world.healthy()

    def test_a_revived_job_is_given_the_rest_of_the_window(self, world: World) -> None:
        """Its own, or that of one which had the key after it: nothing begins within a window for a revival's sake."""
        meta = by("throttle", window=10 * SECOND)
        for own in (True, False):
            world.clock.advance("1h")
            held = world.running(meta=meta)
            world.end(held, Failed(Error("E"), permanent=True))
            if not own:
                world.clock.advance("1h")
                world.end(world.running(meta=meta), Succeeded())
            ends = world.clock() + 10 * SECOND
            assert world.run(world.store.revive(Selection((held.id,)))).changed == (held.id,)
            world.clock.set(ends - 1)
            assert self.again(world, meta=meta) == Enqueued(held.id, inserted=False)
            [again] = world.claim().jobs
            world.end(again, Succeeded())
            assert self.again(world, meta=meta) == Enqueued(held.id, inserted=False)
            world.healthy()
            world.clock.set(ends)
            assert self.again(world, meta=meta).inserted
            world.run(world.store.cancel(Selection(filter=Filter())))

    def test_a_successor_is_found_by_its_reason(self, world: World) -> None:
        world.running(meta=by("keep-last"))
        successor = self.again(world, "keep-last").id
        found = world.run(world.store.search(Filter(reason="unique"), 10)).jobs
        assert [job.id for job in found] == [successor]
        assert world.run(world.store.revive(Selection((successor,)))).untouched == (successor,)

    def test_beside_an_idempotency_key(self, world: World) -> None:
        """That comes first; and one whose job was not stored stays free."""
        owner = world.put(meta=by(), idempotency_key="i", digest="d")
        assert self.again(world, idempotency_key="i", digest="d") == Enqueued(owner, inserted=False)
        assert self.again(world, idempotency_key="j", digest="d").refused
        assert self.again(world, meta="{}", idempotency_key="j", digest="d").inserted

    def test_it_is_kept(self, world: World) -> None:
        """I1: who owns what is there after the store was closed and opened again."""
        world.need("durable")
        held = world.running(meta=by("keep-last"))
        successor = self.again(world, "keep-last").id
        world.reopen()
        assert self.again(world) == Enqueued(held.id, inserted=False, refused=True)
        world.end(held, Succeeded())
        assert self.states(world, successor) == [State.QUEUED]
        world.healthy()

    def test_a_paused_queue_keeps_its_keys(self, world: World) -> None:
        world.run(world.store.queues([QueueChange("default", paused=True)]))
        world.put(meta=by())
        assert self.again(world).refused

    # --- races ---------------------------------------------------------------------------------------------

    def test_of_many_at_once_one_lives(self, world: World) -> None:
        """I10: 64 at once, of every policy, while the owner runs and ends."""
        keys = size(6, 100, 10_000)
        for n in range(keys):
            meta = by(POLICIES[n % len(POLICIES)], f"k{n}")
            racers = [self._unique_racer(world, world.job(meta=meta)) for _ in range(RACERS)]
            answers = world.together(*racers, self._unique_worker(world, f"w{n}"))[:-1]
            stored = {answer.id for answer in answers}
            states = [job.state for job in world.run(world.store.fetch(sorted(stored))) if job]
            assert sum(not state.terminal for state in states) <= 2, f"{meta}: {states}"
            assert sum(state is not State.BLOCKED and not state.terminal for state in states) <= 1
            world.healthy()
            world.run(world.store.cancel(Selection(filter=Filter(), limit=1_000)))
        world.figures |= {"keys": keys, "racers": keys * RACERS}

    def _unique_racer(self, world: World, job: NewJob) -> Script:
        return (yield world.store.enqueue([job]))[0]

    def _unique_worker(self, world: World, name: str) -> Script:
        """Runs what there is, a few times, and looks that never two of one key run."""
        store = world.store
        yield store.beat([report(name)])
        for seq in range(1, 20):
            claimed = yield store.claim(name, seq, ClaimRequest(10, (Quota("default", 10),)))
            assert len(claimed.jobs) <= 1
            yield store.settle(name, [complete(held.token, "1", DAY) for held in claimed.jobs])
