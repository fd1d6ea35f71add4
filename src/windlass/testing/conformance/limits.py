"""Limits: how many jobs of a key, and of a queue, run at once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from windlass.core.job import ErrorInfo as Error
from windlass.core.job import Failed, Held, KeyLimit, Meta, Released, Snoozed, State, Succeeded, Transition
from windlass.core.machine import complete, release
from windlass.ports.plan import chain
from windlass.ports.store import CLAIM_WINDOW, Claimed, ClaimRequest, Death, Filter, QueueChange, Quota, Selection
from windlass.testing.conformance.race import all_ended
from windlass.testing.conformance.sizes import seeds, size
from windlass.testing.conformance.world import DAY, HOUR, SECOND, Script, World, report

CLAIMERS = 32


def under(*limits: tuple[str, int]) -> str:
    """The meta of a job with these limits, retried without jitter."""
    return msgspec.json.encode(Meta(limits=tuple(KeyLimit(key, most) for key, most in limits))).decode()


ONE = under(("k", 1))


def ids(claimed: Claimed) -> list[str]:
    """Whom a claim granted."""
    return [held.id for held in claimed.jobs]


class Limits:
    """The chapter `limits`."""

    def states(self, world: World, *jobs: str) -> list[State]:
        """Where they are."""
        return [world.fetch(job).state for job in jobs]

    def limit(self, world: World, queue: str, most: int) -> None:
        """Limit a queue."""
        world.run(world.store.queues([QueueChange(queue, limit=most)]))

    # --- keys ----------------------------------------------------------------------------------------------

    def test_no_more_than_the_limit_run(self, world: World) -> None:
        """I9: within one claim, and from claim to claim."""
        jobs = [world.put(meta=under(("k", 2))) for _ in range(5)]
        world.beat("w1")
        world.beat("w2")
        claimed = world.claim()
        assert (ids(claimed), claimed.more) == (jobs[:2], False)
        jobs.append(world.put(meta=under(("k", 2))))
        assert world.claim("w2").jobs == []
        assert self.states(world, *jobs[2:]) == [State.BLOCKED] * 4
        assert world.fetch(jobs[2]).reason == "limit"
        world.healthy()

    def test_the_end_of_a_run_lets_the_next_in(self, world: World) -> None:
        """In the same transaction, in the order of their ranks, however it ends."""
        jobs = [world.put(meta=ONE) for _ in range(6)]
        first = world.put(meta=ONE, head_start=HOUR)
        world.beat("w1")
        order = []
        for outcome in (Succeeded(), Failed(Error("E"), permanent=True), Failed(Error("E")), Snoozed(1e6), Succeeded()):
            [held] = world.claim().jobs
            order.append(held.id)
            world.end(held, outcome)
            states = self.states(world, *jobs)
            assert [s for s in states if s is State.QUEUED] == [State.QUEUED]
            why = world.run(world.store.why(jobs[states.index(State.BLOCKED)]))
            assert why is not None
            assert (why.awaited, why.running) == (jobs[states.index(State.QUEUED)], 0)
            world.healthy()
        assert order == [first, *jobs[:4]]

    def test_keys_do_not_know_each_other(self, world: World) -> None:
        a = [world.put(meta=under(("a", 1))) for _ in range(3)]
        b = [world.put(meta=under(("b", 1))) for _ in range(3)]
        free = world.put()
        world.beat("w1")
        assert ids(world.claim()) == [a[0], b[0], free]

    def test_all_limits_of_a_job_must_have_room(self, world: World) -> None:
        both = [world.put(meta=under(("user", 1), ("task", 2))) for _ in range(2)]
        task = [world.put(meta=under(("task", 2))) for _ in range(2)]
        world.beat("w1")
        held = world.claim().jobs
        assert [h.id for h in held] == [both[0], task[0]]
        why = [world.run(world.store.why(job)) for job in (both[1], task[1])]
        assert [w and (w.limit, w.running) for w in why] == [(KeyLimit("user", 1), 1), (KeyLimit("task", 2), 2)]
        assert [w and (w.awaited, w.awaited_state) for w in why] == [(both[0], State.RUNNING)] * 2
        world.end(held[1], Succeeded())
        assert ids(world.claim()) == [task[1]]
        world.end(held[0], Succeeded())
        assert ids(world.claim()) == [both[1]]

    def test_one_that_needs_fewer_to_run_stands_in_nobodys_way(self, world: World) -> None:
        """Each goes by its own number: a deploy that raises it must not keep the new behind the old."""
        running = [world.running(meta=under(("k", 3))) for _ in range(3)]
        old = world.put(meta=under(("k", 1)))
        new = [world.put(meta=under(("k", 3))) for _ in range(2)]
        assert world.claim().jobs == []
        assert self.states(world, old, *new) == [State.BLOCKED] * 3
        world.end(running[0], Succeeded())
        [held] = world.claim().jobs
        assert held.id == new[0]
        for each in (*running[1:], held):
            world.end(each, Succeeded())
        assert ids(world.claim()) == [old, new[1]], "nobody runs, so the old may, and for the new it is but one"
        world.healthy()

    def test_a_turn_is_passed_on(self, world: World) -> None:
        """Whoever gets it and is kept back by another limit must not let it lapse."""
        alone = world.put(queue="other", meta=under(("x", 1)))
        blocker = world.put(meta=under(("k", 1)))
        needs_both = world.put(meta=under(("k", 1), ("x", 1)))
        last = world.put(meta=under(("k", 1)))
        world.beat("w1")
        assert ids(world.claim(queue="other")) == [alone]
        [held] = world.claim().jobs
        assert held.id == blocker
        world.end(held, Succeeded())
        assert self.states(world, needs_both, last) == [State.QUEUED, State.BLOCKED]
        claimed = world.claim()
        assert (claimed.jobs, claimed.more) == ([], True)
        assert ids(world.claim()) == [last]

    def test_a_turn_falls_to_every_queue(self, world: World) -> None:
        """One that is paused, or that nobody serves, keeps no other waiting."""
        running = world.running(meta=ONE)
        a, b = ([world.put(meta=ONE, queue=queue) for _ in range(2)] for queue in "ab")
        world.beat("w1")
        for queue in "ab":
            assert world.claim(queue=queue).jobs == []
        world.run(world.store.queues([QueueChange("a", paused=True)]))
        world.end(running, Succeeded())
        assert self.states(world, *a, *b) == [State.QUEUED, State.BLOCKED] * 2
        assert world.claim(queue="a").jobs == []
        assert ids(world.claim(queue="b")) == [b[0]]

    def test_as_many_turns_as_runs_have_ended(self, world: World) -> None:
        jobs = [world.put(meta=under(("k", 3))) for _ in range(8)]
        world.beat("w1")
        held = world.claim().jobs
        world.settle(*(complete(h.token, "1", DAY) for h in held[:2]))
        assert self.states(world, *jobs[3:]) == [State.QUEUED] * 2 + [State.BLOCKED] * 3
        assert ids(world.claim()) == jobs[3:5]

    def test_a_lower_limit_lets_those_that_run_finish(self, world: World) -> None:
        """A new version of the code brings another number: each job goes by its own."""
        [world.put(meta=under(("k", 3))) for _ in range(3)]
        narrow = world.put(meta=under(("k", 1)))
        world.beat("w1")
        held = world.claim().jobs
        assert len(held) == 3
        for h in held:
            assert self.states(world, narrow) == [State.BLOCKED]
            world.end(h, Succeeded())
        assert ids(world.claim()) == [narrow]

    def test_a_flood_under_one_key_does_not_hide_the_rest(self, world: World) -> None:
        """And is walked past once, not by every claim."""
        world.enqueue(*world.jobs(2 * CLAIM_WINDOW, meta=ONE))
        free = world.put()
        world.beat("w1")
        granted = []
        for _ in range(6):
            claimed = world.claim(limit=2)
            granted += ids(claimed)
            if not claimed.more:
                break
        assert (len(granted), granted[-1], claimed.more) == (2, free, False)

    def test_what_cannot_be_run_takes_no_turn(self, world: World) -> None:
        """A worker that does not know a task leaves it in its line, and its key to others."""
        world.put(meta=ONE, task="unknown")
        known = world.put(meta=ONE)
        world.beat("w1")
        assert ids(world.claim(exclude=(("unknown", 1),))) == [known]

    def test_by_id_the_same_limits_hold(self, world: World) -> None:
        jobs = [world.put(meta=ONE) for _ in range(3)]
        world.beat("w1")
        claimed = world.run(world.store.claim_ids("w1", world.next_seq("w1"), [jobs[1], jobs[0]]))
        assert ids(claimed) == [jobs[1]]
        assert self.states(world, *jobs) == [State.BLOCKED, State.RUNNING, State.QUEUED]

    # --- owners that die -----------------------------------------------------------------------------------

    def test_a_takeover_frees_the_limit(self, world: World) -> None:
        """I9: permits derive from what runs, so no crash leaks one."""
        jobs = [world.put(meta=ONE) for _ in range(2)]
        world.beat("w1")
        world.beat("w2")
        assert ids(world.claim("w1")) == jobs[:1]
        assert world.claim("w2").jobs == []
        world.run(world.store.reap([Death(worker="w1", observed=True, explained=True)]))
        # The lost one keeps its rank, so it comes first again, and the other is kept back again.
        assert ids(world.claim("w2")) == jobs[:1]
        world.healthy()

    def test_a_ghost_frees_nothing(self, world: World) -> None:
        """I4, I9: the permit that it still believes to have is another's by now."""
        jobs = [world.put(meta=ONE) for _ in range(2)]
        world.beat("w1")
        world.beat("w2")
        [ghost] = world.claim("w1").jobs
        world.run(world.store.reap([Death(worker="w1", observed=True, explained=True)]))
        assert ids(world.claim("w2")) == jobs[:1]
        world.settle(complete(ghost.token, "1", DAY))
        assert world.claim("w2").jobs == []
        assert self.states(world, *jobs) == [State.RUNNING, State.BLOCKED]

    def test_suspects_obey_and_keep_nobody_waiting(self, world: World) -> None:
        """A suspect whose turn it is waits for a process of its own; another job may go meanwhile."""
        suspect = world.running("w1", meta=ONE)
        other = world.put(meta=ONE)
        world.run(world.store.reap([Death(worker="w1", observed=True)]))
        world.beat("w2")
        assert ids(world.claim("w2")) == [other]
        assert world.claim("w2", suspects=True).jobs == []
        job = world.fetch(suspect.id)
        assert (job.state, job.suspect) == (State.BLOCKED, True)

    # --- what else may happen to a blocked job -------------------------------------------------------------

    def blocked(self, world: World, **given: object) -> str:
        """A job that is kept back by one that runs on w9."""
        world.running("w9", meta=ONE)
        job = world.put(meta=ONE, **given)
        world.beat("w1")
        assert world.claim().jobs == []
        assert self.states(world, job) == [State.BLOCKED]
        return job

    def test_it_can_be_cancelled(self, world: World) -> None:
        job = self.blocked(world)
        assert world.run(world.store.cancel(Selection((job,)))).changed == (job,)
        assert self.states(world, job) == [State.CANCELLED]
        world.healthy()

    def test_it_can_be_found_and_counted(self, world: World) -> None:
        job = self.blocked(world)
        for wanted in (Filter(states=(State.BLOCKED,)), Filter(reason="limit")):
            assert [found.id for found in world.run(world.store.search(wanted, 10)).jobs] == [job]
        stats = world.run(world.store.stats(exact=True))
        assert stats.states["blocked"] == 1
        assert [(q.queued, q.running, q.blocked) for q in stats.queues] == [(0, 1, 1)]

    def test_it_can_be_deleted_and_edited(self, world: World) -> None:
        job = self.blocked(world)
        assert world.run(world.store.edit(job, "[[9],{}]")).changed == (job,)
        assert (world.fetch(job).payload, world.fetch(job).state) == ("[[9],{}]", State.BLOCKED)
        assert world.run(world.store.revive(Selection((job,)))).untouched == (job,)
        assert world.run(world.store.delete(Selection((job,)))).changed == (job,)
        world.healthy()

    def test_it_expires(self, world: World) -> None:
        job = self.blocked(world, expires_after=SECOND)
        world.clock.advance("1s")
        world.run(world.store.promote(100))
        assert self.states(world, job) == [State.EXPIRED]
        world.healthy()

    def test_it_outlives_the_store(self, world: World) -> None:
        world.need("durable")
        job = self.blocked(world)
        before = world.dump()
        world.reopen()
        assert world.dump() == before
        world.run(world.store.reap([Death(worker="w9", observed=True, explained=True)]))
        assert world.claim(limit=1).jobs
        assert self.states(world, job) == [State.QUEUED]

    def test_a_turn_that_was_wasted_is_given_again(self, world: World) -> None:
        """Whoever had it was cancelled before it was claimed: the next promotion sees to it."""
        running = world.running("w9", meta=ONE)
        jobs = [world.put(meta=ONE) for _ in range(3)]
        world.beat("w1")
        assert world.claim().jobs == []
        world.end(running, Succeeded())
        world.run(world.store.delete(Selection((jobs[0],))))
        assert world.claim().jobs == []
        world.run(world.store.promote(100))
        assert self.states(world, *jobs[1:]) == [State.QUEUED, State.BLOCKED]

    def test_every_key_is_swept_in_its_turn(self, world: World) -> None:
        """Also where there are more keys than one promotion looks at."""
        running = [world.running("w9", meta=under((f"k{n}", 1))) for n in range(5)]
        candidates = [world.put(meta=under((f"k{n}", 1))) for n in range(5)]
        later = [world.put(meta=under((f"k{n}", 1))) for n in range(5)]
        world.beat("w1")
        assert world.claim(limit=20).jobs == []
        world.settle(*(complete(held.token, "1", DAY) for held in running))
        world.run(world.store.delete(Selection(tuple(candidates))))
        for _ in range(4):
            world.run(world.store.promote(2))
        assert self.states(world, *later) == [State.QUEUED] * 5

    # --- queues --------------------------------------------------------------------------------------------

    def test_a_queue_with_a_limit(self, world: World) -> None:
        """I9: it holds for what waits already, beside queues that have none, and can be taken away again."""
        narrow = [world.put(queue="narrow") for _ in range(5)]
        wide = [world.put(queue="wide") for _ in range(2)]
        self.limit(world, "narrow", 2)
        world.beat("w1")
        request = ClaimRequest(10, (Quota("narrow", 5), Quota("wide", 5)))
        claimed = world.run(world.store.claim("w1", world.next_seq("w1"), request))
        assert (ids(claimed), claimed.more, claimed.limited) == ([*narrow[:2], *wide], False, True)
        assert self.states(world, *narrow[2:]) == [State.QUEUED] * 3
        world.end(claimed.jobs[0], Succeeded())
        assert ids(world.claim(queue="narrow")) == [narrow[2]]
        self.limit(world, "narrow", 0)
        claimed = world.claim(queue="narrow")
        assert (ids(claimed), claimed.limited) == (narrow[3:], False)

    def test_a_lower_limit_on_a_queue_is_waited_for(self, world: World) -> None:
        jobs = [world.put() for _ in range(4)]
        world.beat("w1")
        held = world.claim(limit=3).jobs
        self.limit(world, "default", 1)
        for h in held:
            assert world.claim().jobs == []
            world.end(h, Released("stop") if h is held[2] else Succeeded())
        assert ids(world.claim()) == [held[2].id]
        why = world.run(world.store.why(jobs[3]))
        assert why is not None
        assert (why.queue_limit, why.queue_running, why.ahead) == (1, 1, 0)

    def test_by_id_a_queue_limit_holds_too(self, world: World) -> None:
        jobs = [world.put() for _ in range(3)]
        self.limit(world, "default", 2)
        world.beat("w1")
        claimed = world.run(world.store.claim_ids("w1", world.next_seq("w1"), [jobs[2], jobs[1], jobs[0]]))
        assert ids(claimed) == [jobs[2], jobs[1]]
        assert self.states(world, jobs[0]) == [State.QUEUED]

    # --- races ---------------------------------------------------------------------------------------------

    def test_many_claimers_keep_within_every_limit(self, world: World) -> None:
        """I9: 32 at once, some taken over and some giving back, at limits of 1, 2 and 7, over two queues."""
        count = size(60, 600, 6_000)
        tried = seeds(1, 5, 20)
        for seed in tried:
            dice = random.Random(seed)
            keys = (("one", 1), ("two", 2), ("seven", 7))
            limits = [dice.sample(keys, dice.choice((1, 1, 2))) for _ in range(count)]
            jobs = [world.job(queue=dice.choice("ab"), meta=under(*each)) for each in limits]
            world.enqueue(*jobs)
            carried = {job.id: [key for key, _ in each] for job, each in zip(jobs, limits, strict=True)}
            watch = Watch(dict(keys), carried)
            names: list[str] = []
            actors = [
                self._limited_claimer(world, f"l{seed}-{n}", random.Random(seed * 100 + n), watch, names)
                for n in range(CLAIMERS)
            ]
            world.together(*actors, self._sweeper(world, random.Random(seed), names))
            found = world.run(world.store.fetch([job.id for job in jobs]))
            assert {job and job.state for job in found} == {State.COMPLETED}, f"seed {seed}"
            assert not watch.broken, f"seed {seed}: {watch.broken[:5]}"
            world.healthy()
        world.figures |= {"seeds": len(tried), "jobs": len(tried) * count, "claimers": CLAIMERS}

    def _limited_claimer(self, world: World, name: str, dice: random.Random, watch: Watch, names: list[str]) -> Script:
        store, empty = world.store, 0
        for life in range(10**9):
            worker = f"{name}-{life}"
            yield store.beat([report(worker)])
            names.append(worker)
            for seq in range(1, 10**9):
                request = ClaimRequest(dice.randint(1, 4), tuple(Quota(queue, 3) for queue in dice.sample("ab", 2)))
                # What runs is looked up in the transaction of the claim: there the limits must hold.
                claimed, searched = yield chain(
                    store.claim(worker, seq, request), store.search(Filter(states=(State.RUNNING,)), 10_000)
                )
                if not claimed.alive:
                    break
                watch.saw([job.id for job in searched.jobs])
                done = [held for held in claimed.jobs if dice.random() < 0.8]
                yield store.settle(worker, [_over(held, held in done) for held in claimed.jobs])
                if (yield from all_ended(world, empty)):
                    return
                empty = 0 if claimed.jobs else empty + 1

    def _sweeper(self, world: World, dice: random.Random, names: list[str]) -> Script:
        """The leader, and a reaper."""
        for _ in range(10**9):
            if (yield from all_ended(world, 0)):
                return
            yield world.store.promote(100)
            if names and dice.random() < 0.3:
                yield world.store.reap([Death(worker=dice.choice(names), observed=True, explained=True)])


class Watch:
    """Counts what runs at once, from what was read, not from what the store says of its limits."""

    def __init__(self, most: Mapping[str, int], keys: Mapping[str, Sequence[str]]) -> None:
        self._most = most
        self._keys = keys
        self.broken: list[str] = []

    def saw(self, running: Sequence[str]) -> None:
        """These jobs were seen to run at one instant."""
        count = Counter(key for job in running for key in self._keys.get(job, ()))
        self.broken += [f"{count[key]} of {m} under {key!r}" for key, m in self._most.items() if count[key] > m]


def _over(held: Held, done: bool) -> Transition:
    return complete(held.token, "1", DAY) if done else release(held.token, "race")
