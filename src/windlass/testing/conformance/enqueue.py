"""Enqueue: each job is stored once, whatever is sent how often."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from windlass.core.flow import Bounds
from windlass.core.job import Discarded, NewJob, State, Succeeded
from windlass.ports.plan import Plan, Steps
from windlass.ports.store import KEY_KEEP, Enqueued, Filter, PruneRules, QueueChange, Selected, Selection
from windlass.testing.conformance.values import NAMES, NUMBERS, PAYLOADS
from windlass.testing.conformance.world import DAY, HOUR, MINUTE, World


class KeptOut(Exception):
    """What a client makes of an answer."""


class Enqueueing:
    """The chapter `enqueue`."""

    def test_a_new_job_is_stored_as_it_was_sent(self, world: World) -> None:
        """Nothing that was said about a job may be lost or changed."""
        sent = world.job(
            payload='[[1, "a"], {"b": null}]',
            meta='{"tags":["x"],"headers":{"h":"v"}}',
            version=3,
            tenant="acme",
            queue="mail",
            priority=80,
            head_start=4_000,
            expires_after=HOUR,
        )
        world.enqueue(sent)
        job = world.fetch(sent.id)
        now = world.clock()
        assert (job.task, job.version, job.tenant, job.queue) == ("tests.task", 3, "acme", "mail")
        assert (job.payload, job.meta, job.priority) == (sent.payload, sent.meta, 80)
        assert (job.state, job.reason, job.created_at, job.due_at) == (State.QUEUED, None, now, now)
        assert job.expires_at == now + HOUR
        assert (job.attempt, job.crashes, job.losses, job.suspect, job.cancelling) == (0, 0, 0, False, False)
        assert (job.worker, job.started_at, job.finished_at) == (None, None, None)
        assert (job.result, job.result_expired, job.error, job.progress) == (None, False, None, None)

    def test_an_empty_batch_is_a_batch(self, world: World) -> None:
        assert world.enqueue() == []

    def test_answers_come_in_the_order_given(self, world: World) -> None:
        first = world.job(idempotency_key="k")
        world.enqueue(first)
        new, twin, last = world.job(), world.job(idempotency_key="k"), world.job()
        assert world.enqueue(new, twin, first, last) == [
            Enqueued(new.id, inserted=True),
            Enqueued(first.id, inserted=False),
            Enqueued(first.id, inserted=True),
            Enqueued(last.id, inserted=True),
        ]
        assert world.run(world.store.fetch([twin.id])) == [None]

    def test_a_large_batch(self, world: World) -> None:
        """More than a database would take as parameters of one statement."""
        jobs = world.jobs(2_000)
        assert world.enqueue(*jobs) == [Enqueued(job.id, inserted=True) for job in jobs]
        assert world.run(world.store.stats(exact=True)).states["queued"] == 2_000

    def test_a_delayed_job_is_scheduled_by_the_stores_clock(self, world: World) -> None:
        """I14: durations travel, instants do not, so the client's clock does not matter."""
        job = world.fetch(world.put(after=10 * MINUTE))
        assert (job.state, job.due_at) == (State.SCHEDULED, world.clock() + 10 * MINUTE)

    def test_an_instant_is_taken_as_it_is(self, world: World) -> None:
        later, sooner = world.clock() + HOUR, world.clock() - HOUR
        assert world.fetch(world.put(at=later, after=5)).due_at == later
        past = world.fetch(world.put(at=sooner))
        assert (past.state, past.due_at) == (State.QUEUED, sooner)
        now = world.fetch(world.put(at=world.clock()))
        assert now.state is State.QUEUED

    def test_an_explicit_expiry_wins_over_a_relative_one(self, world: World) -> None:
        instant = world.clock() + DAY
        assert world.fetch(world.put(expires_at=instant, expires_after=5)).expires_at == instant
        assert world.fetch(world.put()).expires_at is None

    # --- sent again ----------------------------------------------------------------------------------------

    def test_a_resent_batch_answers_as_the_first_time(self, world: World) -> None:
        """I1: a client whose answer was lost sends the same again, and nothing runs twice."""
        jobs = world.jobs(3)
        first = world.enqueue(*jobs)
        assert world.enqueue(*jobs) == first
        world.beat("w1")
        assert len(world.claim().jobs) == 3
        assert world.enqueue(*jobs) == first
        assert world.claim().jobs == []

    def test_a_batch_with_one_id_twice(self, world: World) -> None:
        job = world.job()
        assert world.enqueue(job, job) == [Enqueued(job.id, inserted=True)] * 2
        world.beat("w1")
        assert len(world.claim().jobs) == 1

    def test_resending_an_ended_job_changes_nothing(self, world: World) -> None:
        """I2: what has ended stays as it ended."""
        held = world.running()
        job = world.job(id=held.id)
        world.end(held, Succeeded("1"))
        before = world.dump()
        assert world.enqueue(job) == [Enqueued(job.id, inserted=True)]
        assert world.dump() == before

    # --- idempotency keys ----------------------------------------------------------------------------------

    def test_all_or_none(self, world: World) -> None:
        """What is kept out keeps out the whole batch, and what came with it has left no trace."""
        old = world.job(idempotency_key="k", digest="old")
        unique = '{"unique":["u","reject"]}'
        world.enqueue(old, world.job(meta=unique))
        world.run(world.store.queues([QueueChange("full", bounds=Bounds(depth=1))]))
        world.put(queue="full")
        for out in (world.job(idempotency_key="k", digest="new"), world.job(meta=unique), world.job(queue="full")):
            beside = [world.job(idempotency_key="other"), world.job(meta='{"unique":["v","replace"]}')]
            after = world.job(meta='{"unique":["v","replace"]}', payload="[[1],{}]")
            world.known |= dict.fromkeys(job.id for job in (out, *beside, after))
            before = world.dump()

            def steps(jobs: Sequence[NewJob] = (*beside, out, after)) -> Steps[None]:
                answers = yield from world.store.enqueue(jobs, whole=True)
                assert [answer.inserted for answer in answers] == [True, True, False, False]
                raise KeptOut

            with pytest.raises(KeptOut):
                world.run(Plan(steps, "enqueue", write=True))
            assert world.dump() == before
        assert all(answer.inserted for answer in world.enqueue(*beside))
        world.healthy()

    def test_a_key_has_one_owner(self, world: World) -> None:
        """I10b: every later caller gets the id of the first, and is told when its own payload was another."""
        owner = world.job(idempotency_key="k", digest="a")
        same, other = (world.job(idempotency_key="k", digest=digest) for digest in "ab")
        assert world.enqueue(owner, same) == [
            Enqueued(owner.id, inserted=True),
            Enqueued(owner.id, inserted=False),
        ]
        assert world.enqueue(other, same) == [
            Enqueued(owner.id, inserted=False, conflict=True),
            Enqueued(owner.id, inserted=False),
        ]
        assert world.run(world.store.fetch([same.id, other.id])) == [None, None]

    def test_a_resent_owner_is_no_duplicate_of_itself(self, world: World) -> None:
        owner = world.job(idempotency_key="k", digest="a")
        assert world.enqueue(owner) == world.enqueue(owner) == [Enqueued(owner.id, inserted=True)]

    def test_a_key_belongs_to_its_tenant_and_task(self, world: World) -> None:
        """I32: another tenant's key is not even seen."""
        jobs = [world.job(idempotency_key="k", tenant=tenant, task=task) for tenant in ("", "t") for task in "ab"]
        assert all(answer.inserted for answer in world.enqueue(*jobs))

    def test_a_key_is_kept_for_its_time_after_the_end(self, world: World) -> None:
        """I10b: as long as the job lives, however long, and KEY_KEEP beyond."""
        held = world.running(idempotency_key="k")
        world.clock.advance("3d")
        assert world.enqueue(world.job(idempotency_key="k"))[0].id == held.id
        world.end(held, Succeeded("1"))
        world.clock.set(world.clock() + KEY_KEEP - 1)
        assert world.enqueue(world.job(idempotency_key="k"))[0].id == held.id
        world.clock.set(world.clock() + 1)
        heir = world.job(idempotency_key="k")
        assert world.enqueue(heir) == [Enqueued(heir.id, inserted=True)]
        assert world.enqueue(world.job(idempotency_key="k"))[0].id == heir.id

    def test_a_key_outlives_the_pruned_owner(self, world: World) -> None:
        """I10b: keeping results for an hour does not let the same request run again after an hour."""
        sent = world.job(idempotency_key="k")
        world.enqueue(sent)
        world.beat("w1")
        world.end(world.claim().jobs[0], Succeeded("1"))
        world.clock.advance("2h")
        world.run(world.store.prune(PruneRules(completed=HOUR), 1_000))
        assert world.run(world.store.fetch([sent.id])) == [None]
        assert world.enqueue(world.job(idempotency_key="k")) == [Enqueued(sent.id, inserted=False)]
        assert world.enqueue(sent) == [Enqueued(sent.id, inserted=True)]
        assert world.claim().jobs == [], "a re-sent enqueue ran again once its row was pruned"
        world.clock.advance("22h")
        heir = world.job(idempotency_key="k")
        assert world.enqueue(heir) == [Enqueued(heir.id, inserted=True)]

    def test_a_key_without_its_owner_is_nobody_elses(self, world: World) -> None:
        """I10b: a store that numbers its rows may give the owner's number to the next job."""
        owner = world.put(idempotency_key="k")
        world.run(world.store.cancel(Selection((owner,))))
        world.run(world.store.prune(PruneRules(cancelled=0), 1_000))
        next_one, keyed = world.put(), world.put(idempotency_key="other")
        world.run(world.store.cancel(Selection((keyed,))))
        world.run(world.store.delete(Selection((next_one,))))
        assert world.enqueue(world.job(idempotency_key="k")) == [Enqueued(owner, inserted=False)]
        assert world.enqueue(world.job(idempotency_key="other")) == [Enqueued(keyed, inserted=False)]
        world.healthy()

    def test_a_shorter_rule_frees_keys_sooner(self, world: World) -> None:
        held = world.running(idempotency_key="k")
        world.end(held, Succeeded("1"))
        world.clock.advance("1h")
        world.run(world.store.prune(PruneRules(keys=HOUR + 1), 1_000))
        assert not world.enqueue(world.job(idempotency_key="k"))[0].inserted
        world.run(world.store.prune(PruneRules(keys=HOUR), 1_000))
        assert world.enqueue(world.job(idempotency_key="k"))[0].inserted
        assert world.fetch(held.id).state is State.COMPLETED

    def test_deleting_the_owner_frees_its_key(self, world: World) -> None:
        owner = world.put(idempotency_key="k")
        world.run(world.store.delete(Selection((owner,))))
        assert world.enqueue(world.job(idempotency_key="k"))[0].inserted

    def test_a_revived_owner_has_its_key_again(self, world: World) -> None:
        """I10b: the clock of the key starts over when the job ends again."""
        held = world.running(idempotency_key="k")
        world.end(held, Discarded())
        world.clock.advance("20h")
        world.run(world.store.revive(Selection((held.id,))))
        world.clock.advance("20h")
        assert world.enqueue(world.job(idempotency_key="k"))[0].id == held.id

    def test_a_revived_job_takes_its_key_again(self, world: World) -> None:
        """I10b: also where it was freed, by its time or by a prune; or the next request would be a second one."""
        prune: Callable[[], object] = lambda: world.run(world.store.prune(PruneRules(), 1_000))
        for free in (lambda: None, prune):
            held = world.running(idempotency_key="k", digest="d")
            world.end(held, Discarded())
            world.clock.set(world.clock() + KEY_KEEP)
            free()
            assert world.run(world.store.revive(Selection((held.id,)))).changed == (held.id,)
            assert world.enqueue(world.job(idempotency_key="k", digest="d")) == [Enqueued(held.id, inserted=False)]
            other = world.job(idempotency_key="k", digest="other")
            assert world.enqueue(other) == [Enqueued(held.id, inserted=False, conflict=True)]
            world.clock.advance("3d")
            assert not world.enqueue(world.job(idempotency_key="k", digest="d"))[0].inserted
            world.run(world.store.delete(Selection((held.id,))))
            world.healthy()

    def test_a_job_whose_idempotency_key_is_anothers_is_not_revived(self, world: World) -> None:
        """I10b: two live jobs of one key would both answer for it. By id, by filter, or both at once."""
        old = world.running(idempotency_key="k")
        world.end(old, Discarded())
        world.clock.set(world.clock() + KEY_KEEP)
        heir = world.running(idempotency_key="k")
        for _ in range(2):
            assert world.run(world.store.revive(Selection((old.id,)))).untouched == (old.id,)
            assert world.run(world.store.revive(Selection(filter=Filter(states=(State.DEAD,))))) == Selected()
            world.end(heir, Succeeded("1"))  # the key is its own for a day longer
        world.clock.set(world.clock() + KEY_KEEP)
        both = Selection((old.id, heir.id), dry_run=True)
        assert world.run(world.store.revive(both)) == Selected(changed=(old.id,), untouched=(heir.id,))
        assert world.run(world.store.revive(replace(both, dry_run=False))).changed == (old.id,)
        assert world.run(world.store.revive(Selection((heir.id,)))).untouched == (heir.id,)
        assert world.enqueue(world.job(idempotency_key="k")) == [Enqueued(old.id, inserted=False)]
        world.healthy()
        world.run(world.store.delete(Selection((old.id,))))
        assert world.run(world.store.revive(Selection((heir.id,)))).changed == (heir.id,)
        assert world.enqueue(world.job(idempotency_key="k")) == [Enqueued(heir.id, inserted=False)]
        world.healthy()

    def test_the_key_of_a_pruned_job_keeps_others_from_being_revived(self, world: World) -> None:
        old = world.running(idempotency_key="k")
        world.end(old, Discarded())
        world.clock.set(world.clock() + KEY_KEEP)
        heir = world.running(idempotency_key="k")
        world.end(heir, Succeeded("1"))
        world.run(world.store.prune(PruneRules(completed=0), 1_000))
        assert world.run(world.store.revive(Selection((old.id,)))).untouched == (old.id,)
        world.clock.set(world.clock() + KEY_KEEP)
        assert world.run(world.store.revive(Selection((old.id,)))).changed == (old.id,)
        assert world.enqueue(world.job(idempotency_key="k")) == [Enqueued(old.id, inserted=False)]
        world.healthy()

    def test_a_cancelled_or_dead_owner_keeps_its_key_too(self, world: World) -> None:
        cancelled = world.put(idempotency_key="a")
        world.run(world.store.cancel(Selection((cancelled,))))
        dead = world.running(idempotency_key="b")
        world.end(dead, Discarded())
        for key, owner in (("a", cancelled), ("b", dead.id)):
            assert world.enqueue(world.job(idempotency_key=key)) == [Enqueued(owner, inserted=False)]

    # --- odd values ----------------------------------------------------------------------------------------

    def test_payloads_come_back_to_the_letter(self, world: World) -> None:
        """I24: a payload is text to the store; no number is rounded, no key dropped, no escape resolved."""
        jobs = [world.job(payload=payload) for payload in PAYLOADS]
        world.enqueue(*jobs)
        world.beat("w1")
        found = world.run(world.store.fetch([job.id for job in jobs]))
        assert [job and job.payload for job in found] == list(PAYLOADS)
        granted = world.claim(limit=len(jobs)).jobs
        assert [held.payload for held in granted] == list(PAYLOADS)

    def test_any_text_is_a_name(self, world: World) -> None:
        """I23: names are data, never identifiers: what looks like syntax, is empty or is long stays what it is."""
        for name in NAMES:
            held = world.running(queue=name, task=name, tenant=name, idempotency_key=name)
            assert (held.queue, held.task, held.tenant) == (name, name, name)
            again = world.job(queue=name, task=name, tenant=name, idempotency_key=name)
            assert world.enqueue(again)[0].id == held.id
            world.end(held, Succeeded("1"))
        world.healthy()

    def test_numbers_at_their_limits(self, world: World) -> None:
        """I23: one job with counters at their maximum does not stop the others."""
        world.need("wide_numbers")
        jobs = [
            *(world.job(priority=0, version=number, head_start=-number) for number in NUMBERS),
            *(world.job(priority=100, version=number, head_start=number) for number in NUMBERS),
            *(world.job(at=number, expires_at=number + 1) for number in NUMBERS if number > world.clock()),
        ]
        plain = world.job()
        assert all(answer.inserted for answer in world.enqueue(*jobs, plain))
        world.beat("w1")
        granted = world.claim(limit=100).jobs
        assert sorted(held.version for held in granted) == sorted([1, *NUMBERS, *NUMBERS])
        found = world.run(world.store.fetch([job.id for job in jobs]))
        assert [(job.version, job.priority) for job in found if job] == [(j.version, j.priority) for j in jobs]
        assert [job.due_at for job in found if job and job.state is State.SCHEDULED] == [
            job.at for job in jobs if job.at is not None
        ]
