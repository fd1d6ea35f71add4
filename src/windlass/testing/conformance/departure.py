"""From one store to another: set aside, arrived, forgotten; whatever is killed in between, and whoever is at work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from windlass.core.errors import StoreError
from windlass.core.flow import Bounds
from windlass.core.job import (
    Discarded,
    ErrorInfo,
    Failed,
    KeyLimit,
    LogLine,
    Meta,
    Progress,
    Released,
    State,
    Succeeded,
    UniqueKey,
)
from windlass.ports.parcel import Arrival, Tally, Word
from windlass.ports.plan import Plan
from windlass.ports.store import (
    ClaimRequest,
    Departure,
    Enqueued,
    Fired,
    PruneRules,
    QueueChange,
    QueueRules,
    Quota,
    ScheduleChange,
    Selection,
    Standing,
    Tick,
)
from windlass.testing.conformance.world import DAY, HOUR, MINUTE, SECOND, World, report


def meta(*limits: KeyLimit, unique: str = "", policy: str = "keep-last", window: int = 0) -> str:
    """Of a job with these limits, or this unique key."""
    key = UniqueKey(unique, policy, window=window) if unique else None
    return msgspec.json.encode(Meta(limits=limits, unique=key)).decode()


class Road:
    """From a world's store to another one, which is made for it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.there = world.elsewhere()
        self.here = world.opened

    def run(self, plan: Plan[Any]) -> Any:
        """Run a plan of the other store."""
        return self.world.run_on(self.there, plan)

    def depart(self, limit: int = 100, stay: Sequence[str] = ()) -> Departure:
        """Set aside what goes to the other store."""
        return self.world.run(self.world.store.depart("there", limit, stay))

    def arrive(self, departure: Departure) -> list[Arrival]:
        """And there it is."""
        answers: list[Arrival] = self.run(self.there.store.arrive("here", departure))
        return answers

    def dismiss(self, gone: Sequence[str], back: Sequence[str] = ()) -> list[str]:
        """And forgotten here."""
        return self.world.run(self.world.store.dismiss(gone, back))

    def all(self, limit: int = 100) -> dict[str, Word]:
        """Move until nothing leaves any more."""
        words: dict[str, Word] = {}
        while True:
            stay = [id for id, word in words.items() if word in {Word.CONFLICT, Word.UNFIT}]
            departure = self.depart(limit, stay)
            if departure == Departure():
                return words
            answers = self.arrive(departure)
            back = [each.id for each in answers if each.word in {Word.CONFLICT, Word.UNFIT}]
            assert self.dismiss([each.id for each in answers if each.id not in back], back) == []
            words |= {each.id: each.word for each in answers}

    def seen(self, id: str) -> dict[str, Any] | None:
        """All that can be read of a job there."""
        return look(self.world, self.there, id)

    def healthy(self) -> None:
        """I3, on both sides; and what left is what arrived."""
        self.world.healthy()
        assert self.run(self.there.store.audit()) == []
        left, _ = self.world.run(self.world.store.tallies("there"))
        _, come = self.run(self.there.store.tallies("here"))
        assert left == come


def look(world: World, opened: Any, id: str) -> dict[str, Any] | None:
    """All that can be read of a job in a store."""
    (job,) = world.run_on(opened, opened.store.fetch([id]))
    if job is None:
        return None
    progress = None if job.progress is None else msgspec.json.decode(job.progress)
    return {
        "job": msgspec.structs.replace(job, progress=None),
        "progress": progress,
        "attempts": world.run_on(opened, opened.store.attempts(id)),
        "logs": world.run_on(opened, opened.store.logs(id)),
    }


def open_limit(seen: dict[str, Any] | None) -> dict[str, Any] | None:
    """Whoever waited for a limit stands in line again, until the next claim."""
    if seen is None or seen["job"].reason != "limit":
        return seen
    return seen | {"job": msgspec.structs.replace(seen["job"], state=State.QUEUED, reason=None)}


class Departures:
    """The chapter `departure`."""

    def zoo(self, world: World) -> list[str]:
        """A job of every kind that does not run."""
        done = world.running(queue="a", task="t1", idempotency_key="done", digest="d")
        world.run(world.store.report([(done.token, Progress(1, 2))], [(done.token, LogLine(1, "info", "äöü"))]))
        world.run(world.store.once(done.token, "first", '"kept"'))
        world.end(done, Succeeded('{"n":1}'))
        dead = world.running(task="t2")
        world.end(dead, Failed(ErrorInfo("E", "no")))
        world.clock.advance("1h")
        (dead,) = world.run(world.store.claim_ids("w1", world.next_seq("w1"), [dead.id])).jobs
        world.end(dead, Discarded("enough", ErrorInfo("E", "no more")))
        retrying = world.running()
        world.end(retrying, Failed(ErrorInfo("E", "later")))
        parked = world.running(after=0)
        world.end(parked, Released("unknown_task", delay=5.0))
        released = world.running()
        world.end(released, Released("stop"))
        dropped = world.running()
        world.end(dropped, Released("stop"))
        world.run(world.store.cancel(Selection((dropped.id,))))
        revived = world.running()
        world.end(revived, Succeeded("1"))
        world.run(world.store.revive(Selection((revived.id,))))
        merged = world.job(meta=meta(unique="m", policy="replace"), after=HOUR)
        world.enqueue(merged, world.job(meta=meta(unique="m", policy="replace"), payload="[[2],{}]", after=HOUR))
        expired = world.put(expires_after=SECOND, after=2 * HOUR)
        late = world.put(expires_after=DAY, after=2 * HOUR)
        world.clock.advance("2s")
        world.run(world.store.promote(100))
        plain = [world.put(priority=n, head_start=n * MINUTE, tenant="x", queue="q'; --") for n in (0, 50, 100)]
        keyed = world.put(idempotency_key="k", digest="d", version=3)
        ids = [done.id, dead.id, retrying.id, parked.id, released.id, dropped.id, revived.id, merged.id, expired, late]
        return [*ids, *plain, keyed]

    def test_everything_moves_as_it_is(self, world: World) -> None:
        """I1, I2, I4: under its id, with its times, counts, fence, history, result and log; and the source is empty."""
        ids, road = self.zoo(world), Road(world)
        key, holder = KeyLimit("l", 1), world.running(meta=meta(KeyLimit("l", 1)))
        blocked = world.put(meta=meta(key))
        assert world.claim().jobs is not None
        ids += [blocked]
        before = {id: open_limit(look(world, world.opened, id)) for id in ids}
        words = road.all(3)
        moved = {id for id, word in words.items() if word is Word.MOVED}
        running = {held.id for held in world.run(world.store.held("w1"))}
        assert moved == set(words)
        assert holder.id in running
        for id in set(ids) - running:
            assert road.seen(id) == before[id], id
            assert look(world, world.opened, id) is None
        road.healthy()

    def test_what_runs_stays_until_it_has_ended(self, world: World) -> None:
        road, held = Road(world), world.running()
        assert road.all() == {}
        world.end(held, Succeeded("7"))
        before = look(world, world.opened, held.id)
        assert road.all() == {held.id: Word.MOVED}
        assert road.seen(held.id) == before
        road.healthy()

    def test_what_is_set_aside_is_out_of_reach(self, world: World) -> None:
        """Nobody claims, changes or prunes it; the next copier finds it, in the same order."""
        road, done, waiting = Road(world), world.running(), world.put(after=SECOND)
        world.end(done, Succeeded("1"))
        queued = world.put()
        first = road.depart(1)
        assert [each.job.id for each in first.jobs] == [queued]
        assert road.depart(100) == first
        assert world.run(world.store.standing(None, 10)).departing == 1
        world.beat("w1")
        assert world.claim().jobs == []
        for act in (world.store.cancel, world.store.revive, world.store.delete):
            assert world.run(act(Selection((queued,)))).missing == (queued,)
        assert world.run(world.store.edit(queued, "[]")).missing == (queued,)
        assert world.run(world.store.fetch([queued, waiting]))[0] is None
        with pytest.raises(StoreError):
            world.run(world.store.depart("elsewhere", 1))
        road.arrive(first)
        road.dismiss([queued])
        second = road.depart(1)
        assert [each.job.id for each in second.jobs] == [waiting]
        road.arrive(second)
        road.dismiss([waiting])
        world.clock.advance("1s")
        assert [each.job.id for each in road.depart(9).jobs] == [done.id]
        assert world.run(world.store.prune(PruneRules(completed=0), 10)).jobs == 0
        road.arrive(road.depart(9))
        road.dismiss([done.id])
        road.healthy()

    def test_a_copier_may_die_between_any_two_steps(self, world: World) -> None:
        """Sent again, an arrival changes nothing, whatever became of the job meanwhile; nor does a dismissal."""
        road, ids = Road(world), [world.put() for _ in range(4)]
        departure = road.depart(2)
        assert [each.word for each in road.arrive(departure)] == [Word.MOVED] * 2
        road.run(road.there.store.cancel(Selection((ids[0],))))
        assert road.depart(2) == departure
        assert [each.word for each in road.arrive(departure)] == [Word.PRESENT] * 2
        assert road.seen(ids[0])["job"].state is State.CANCELLED  # type: ignore[index]
        gone = [each.job.id for each in departure.jobs]
        assert road.dismiss(gone) == road.dismiss(gone) == road.dismiss([], gone) == []
        assert list(road.all()) == ids[2:]
        road.healthy()

    def test_a_job_that_somebody_else_had_brought_is_left_alone(self, world: World) -> None:
        """A client whose enqueue was lost here has sent it there: it is one job, and it counts."""
        job, road = world.job(), Road(world)
        world.enqueue(job)
        road.run(road.there.store.enqueue([job]))
        departure = road.depart(9)
        assert [each.word for each in road.arrive(departure)] == [Word.PRESENT]
        assert [each.word for each in road.arrive(departure)] == [Word.PRESENT]
        road.dismiss([job.id])
        assert road.all() == {}
        road.healthy()

    def test_a_copier_that_was_stopped_brings_nothing_a_second_time(self, world: World) -> None:
        """I4: also where what it once held in its hands has come, and gone, meanwhile."""
        road, first, second = Road(world), world.put(), world.put(after=HOUR)
        old = road.depart(1)
        assert road.all(1) == dict.fromkeys((first, second), Word.MOVED)
        assert road.run(road.there.store.delete(Selection((first,)))).changed == (first,)
        with pytest.raises(StoreError, match="ahead"):
            road.arrive(old)
        assert road.dismiss([first]) == road.dismiss([], [first]) == []
        assert (road.seen(first), look(world, world.opened, first)) == (None, None)
        road.healthy()

    def test_ranks_and_fences_go_on(self, world: World) -> None:
        """I4: the next grant has a larger fence, also where the clock there is behind; the order is the same."""
        road, held = Road(world), world.running(priority=1)
        world.end(held, Released("stop"))
        ids = [world.put(priority=p, head_start=p * SECOND) for p in (10, 90, 50)]
        road.all(2)
        world.clock.set(world.clock() - HOUR)
        road.run(road.there.store.beat([report("w9")]))
        granted = road.run(road.there.store.claim("w9", 1, ClaimRequest(9, (Quota("default", 9),)))).jobs
        assert [each.id for each in granted] == [ids[1], ids[2], ids[0], held.id]
        assert granted[-1].fence > held.fence
        assert granted[-1].attempt == 1
        road.healthy()

    # --- keys ----------------------------------------------------------------------------------------------

    def test_an_idempotency_key_goes_with_its_job(self, world: World) -> None:
        """I10b: there it is taken, and here as well; the job itself, sent again, is no second one."""
        job, plain, road = world.job(idempotency_key="k", digest="d"), world.job(), Road(world)
        world.enqueue(job, plain)
        road.all()
        again = world.job(idempotency_key="k", digest="d")
        other = world.job(idempotency_key="k", digest="other")
        answers = [Enqueued(job.id, False), Enqueued(job.id, False, conflict=True), Enqueued(job.id, True)]
        assert world.enqueue(again, other, job) == answers
        assert road.run(road.there.store.enqueue([again, other, job])) == answers
        assert world.enqueue(plain) == [Enqueued(plain.id, True)]
        assert world.run(world.store.fetch([job.id, plain.id])) == [None, None]
        assert road.all() == {}
        road.healthy()

    def test_what_went_is_known_for_a_day(self, world: World) -> None:
        """For an enqueue whose answer was lost; then it is as if the job had been deleted."""
        job, road = world.job(), Road(world)
        world.enqueue(job)
        road.all()
        world.clock.advance("1d")
        world.run(world.store.prune(PruneRules(), 10))
        assert world.enqueue(job) == [Enqueued(job.id, True)]
        assert world.run(world.store.fetch([job.id])) == [None]
        world.clock.advance("1s")
        world.run(world.store.prune(PruneRules(), 10))
        assert world.enqueue(job) == [Enqueued(job.id, True)]
        assert world.fetch(job.id).state is State.QUEUED
        world.healthy()

    def test_a_key_that_is_taken_there_is_a_conflict(self, world: World) -> None:
        """Never silently doubled: who lives goes back to where it was; who has ended comes without its key."""
        road = Road(world)
        ended, alive = world.running(idempotency_key="e", digest="1"), world.put(idempotency_key="a", after=HOUR)
        world.end(ended, Succeeded("1"))
        theirs = [world.job(idempotency_key="e", digest="2"), world.job(idempotency_key="a")]
        road.run(road.there.store.enqueue(theirs))
        before = look(world, world.opened, alive)
        assert road.all() == {alive: Word.CONFLICT, ended.id: Word.KEYLESS}
        assert look(world, world.opened, alive) == before
        assert road.seen(alive) is None
        assert world.enqueue(world.job(idempotency_key="a")) == [Enqueued(alive, False)]
        asked = [world.job(idempotency_key="e", digest="2"), world.job(idempotency_key="a")]
        assert road.run(road.there.store.enqueue(asked)) == [Enqueued(each.id, False) for each in theirs]
        assert road.run(road.there.store.revive(Selection((ended.id,)))).untouched == (ended.id,)
        road.healthy()
        road.run(road.there.store.delete(Selection((theirs[1].id,))))
        assert road.all() == {alive: Word.MOVED}
        road.healthy()

    def test_a_unique_key_goes_with_its_owner_and_its_successor(self, world: World) -> None:
        """I10: in one batch, however small; the owner's end there lets the successor go."""
        road, owner = Road(world), world.running(meta=meta(unique="u"))
        successor = world.put(meta=meta(unique="u"))
        assert road.all() == {}, "it runs, and its successor waits for it"
        world.end(owner, Failed(ErrorInfo("E")))
        before = look(world, world.opened, successor)
        assert [each.job.id for each in road.depart(1).jobs] == [owner.id, successor]
        assert road.all() == dict.fromkeys((owner.id, successor), Word.MOVED)
        assert road.seen(successor) == before
        road.healthy()
        road.run(road.there.store.cancel(Selection((owner.id,))))
        assert road.seen(successor)["job"].state is State.QUEUED  # type: ignore[index]
        road.healthy()

    def test_a_unique_key_stays_taken_where_its_owner_was(self, world: World) -> None:
        """What is enqueued here all the same waits behind it, and then there."""
        road, owner = Road(world), world.put(meta=meta(unique="u"))
        road.all()
        refused = world.enqueue(world.job(meta=meta(unique="u", policy="reject")))
        assert refused == [Enqueued(owner, False, refused=True)]
        follower = world.put(meta=meta(unique="u"))
        assert world.fetch(follower).state is State.BLOCKED
        world.healthy()
        assert road.all() == {follower: Word.MOVED}
        seen = road.seen(follower)
        assert seen is not None
        assert (seen["job"].state, seen["job"].reason) == (State.BLOCKED, "unique")
        road.healthy()
        road.run(road.there.store.cancel(Selection((owner,))))
        late = world.put(meta=meta(unique="u"))
        assert road.all() == {late: Word.CONFLICT} or world.fetch(late).state is State.BLOCKED
        road.run(road.there.store.cancel(Selection((follower,))))
        assert road.all() == {late: Word.MOVED}
        assert road.seen(late)["job"].state is State.QUEUED  # type: ignore[index]
        road.healthy()

    def test_a_unique_key_that_is_taken_there_is_a_conflict(self, world: World) -> None:
        """I10: both go back, the successor behind its owner."""
        road, owner = Road(world), world.running(meta=meta(unique="u", policy="reject"))
        successor = world.put(meta=meta(unique="u"))
        world.end(owner, Failed(ErrorInfo("E")))
        theirs = world.job(meta=meta(unique="u"))
        road.run(road.there.store.enqueue([theirs]))
        before = [look(world, world.opened, id) for id in (owner.id, successor)]
        assert road.all() == dict.fromkeys((owner.id, successor), Word.CONFLICT)
        assert [look(world, world.opened, id) for id in (owner.id, successor)] == before
        road.healthy()
        road.run(road.there.store.cancel(Selection((theirs.id,))))
        assert road.all() == dict.fromkeys((owner.id, successor), Word.MOVED)
        road.healthy()

    def test_a_job_may_come_back(self, world: World) -> None:
        """With its keys; what they left behind on the first way keeps nobody out."""
        road = Road(world)
        job = world.put(meta=meta(unique="u"), idempotency_key="k")
        before = look(world, world.opened, job)
        road.all()
        back = road.run(road.there.store.depart("here again", 10))
        answers = world.run(world.store.arrive("there", back))
        assert [each.word for each in answers] == [Word.MOVED]
        road.run(road.there.store.dismiss([job], []))
        assert look(world, world.opened, job) == before
        assert world.enqueue(world.job(idempotency_key="k")) == [Enqueued(job, False)]
        world.healthy()
        assert road.all() == {job: Word.MOVED}
        world.healthy()

    # --- what is only handed on ----------------------------------------------------------------------------

    def test_a_delivery_comes_once(self, world: World) -> None:
        """Whatever becomes of its jobs meanwhile; an older one does not come at all (I4)."""
        run, store = world.run, world.store
        first, second = world.jobs(3), world.jobs(2)
        world.known |= dict.fromkeys(job.id for job in (*first, *second))
        assert run(store.deliver("there", 1, first))
        assert not run(store.deliver("there", 1, first))
        run(store.delete(Selection((first[0].id,))))
        assert not run(store.deliver("there", 1, first))
        assert run(store.deliver("there", 3, second))
        assert not run(store.deliver("there", 2, first))
        assert run(store.deliver("elsewhere", 2, ()))
        found = run(store.fetch([job.id for job in (*first, *second)]))
        assert [job and job.id for job in found] == [None, *(job.id for job in (*first[1:], *second))]
        world.healthy()

    def test_a_delivery_is_an_enqueue(self, world: World) -> None:
        """I10: keys are of the store to which it is delivered, and no queue is too full for it."""
        run, store = world.run, world.store
        taken = world.put(idempotency_key="k", digest="d")
        owner = world.put(meta=meta(unique="u", policy="reject"))
        run(store.queues([QueueChange("full", bounds=Bounds(depth=1))]))
        jobs = [
            world.job(idempotency_key="k", digest="d"),
            world.job(meta=meta(unique="u", policy="reject")),
            world.job(meta=meta(unique="u", policy="replace"), payload="[[2],{}]"),
            *(world.job(queue="full") for _ in range(3)),
            world.job(after=HOUR),
        ]
        world.known |= dict.fromkeys(job.id for job in jobs)
        assert run(store.deliver("there", 1, jobs))
        found = run(store.fetch([job.id for job in jobs]))
        assert [job and job.state for job in found] == [None, None, None, *[State.QUEUED] * 3, State.SCHEDULED]
        assert world.fetch(owner).payload == "[[2],{}]"
        assert world.fetch(taken).state is State.QUEUED
        world.healthy()

    # --- the rest ------------------------------------------------------------------------------------------

    def test_schedules_go_on_there(self, world: World) -> None:
        """I11: from the same cursor, in the same revision; here they are paused, also for code that shows them."""
        road = Road(world)
        put = ScheduleChange(name="s", action="put", definition="d", digest="#d", timing="t", origin="code")
        world.run(world.store.change_schedules([put, msgspec.structs.replace(put, name="p")]))
        world.run(world.store.change_schedules([ScheduleChange(name="p", action="pause")]))
        world.clock.advance("1m")
        job, (s,) = world.job(), world.run(world.store.schedules(["s"]))
        tick = Tick(schedule="s", revision=1, cursor=s.cursor, to=world.clock(), next_at=None, job=job)
        assert world.run(world.store.fire([tick])) == [Fired.FIRED]
        held = world.run(world.store.claim_ids(*self.claims(world, job.id))).jobs
        assert road.all() == {"p": Word.MOVED}, "the other waits for the end of its job"
        world.end(held[0], Succeeded("1"))
        before = {each.name: each for each in world.run(world.store.schedules())}
        assert road.all() == {"s": Word.MOVED, job.id: Word.MOVED}
        (p, s) = road.run(road.there.store.schedules())
        assert msgspec.structs.replace(s, next_at=None) == msgspec.structs.replace(before["s"], next_at=None)
        assert (s.next_at, s.paused, p.paused) == (world.clock(), False, True)
        world.run(world.store.change_schedules([put]))
        assert [each.paused for each in world.run(world.store.schedules())] == [True, True]
        assert road.all() == {}
        later = Tick(schedule="s", revision=1, cursor=s.cursor, to=s.cursor, next_at=None)
        assert world.run(world.store.fire([later])) == [Fired.STALE]
        assert road.run(road.there.store.fire([later])) == [Fired.MOVED]
        road.healthy()

    def claims(self, world: World, job: str) -> tuple[str, int, list[str]]:
        """How a beating worker claims that job."""
        world.beat("w1")
        return "w1", world.next_seq("w1"), [job]

    def test_a_schedule_that_is_there_goes_on_unless_it_has_ticked(self, world: World) -> None:
        road = Road(world)
        put = ScheduleChange(name="s", action="put", definition="d", digest="#d", timing="t", origin="code")
        other = msgspec.structs.replace(put, name="ticked")
        world.run(world.store.change_schedules([put, other]))
        began = world.clock()
        world.clock.advance("1m")
        road.run(road.there.store.change_schedules([put, other]))
        (_, ticked) = road.run(road.there.store.schedules())
        tick = Tick(schedule="ticked", revision=1, cursor=ticked.cursor, to=world.clock(), next_at=1, manual=True)
        road.run(road.there.store.fire([msgspec.structs.replace(tick, job=world.job())]))
        assert road.all() == {"s": Word.MOVED, "ticked": Word.PRESENT}
        (s, ticked) = road.run(road.there.store.schedules())
        assert (s.cursor, ticked.cursor) == (began, began + MINUTE)
        assert [each.paused for each in world.run(world.store.schedules())] == [True, True]

    def test_what_is_said_of_queues_and_left_of_keys_is_known_there(self, world: World) -> None:
        """Rules where nobody has said anything else; keys that outlived their jobs; terms that never go back."""
        road = Road(world)
        world.run(world.store.queues([QueueChange("q", paused=True, limit=3, bounds=Bounds(depth=4))]))
        world.run(world.store.queues([QueueChange("r", paused=True)]))
        road.run(road.there.store.queues([QueueChange("r", limit=1)]))
        old = world.running(idempotency_key="k", digest="d")
        window = world.running(meta=meta(unique="w", policy="throttle", window=HOUR))
        for held in (old, window):
            world.end(held, Succeeded("1"))
        world.clock.advance("1s")
        assert world.run(world.store.prune(PruneRules(completed=0), 100)).jobs == 2
        for _ in range(3):
            world.run(world.store.lead("lock", "a", SECOND))
            world.clock.advance("2s")
        standing = world.run(world.store.standing(None, 10))
        for _ in range(2):
            road.run(road.there.store.adopt(standing))
        rules = road.run(road.there.store.queues())
        assert rules == {"q": QueueRules(True, 3, Bounds(depth=4)), "r": QueueRules(limit=1)}
        asked = [world.job(idempotency_key="k", digest="d"), world.job(meta=meta(unique="w", policy="throttle"))]
        answers = road.run(road.there.store.enqueue(asked))
        assert answers == [Enqueued(old.id, False), Enqueued(window.id, False)]
        assert road.run(road.there.store.lead("lock", "b", SECOND)).term > standing.term >= 3
        assert len(standing.keys) == 1
        assert world.run(world.store.standing(standing.keys[-1], 10)).keys == ()
        road.healthy()

    def test_a_store_has_one_name(self, world: World) -> None:
        assert world.run(world.store.identity("a")) == world.run(world.store.identity("b")) == "a"
        assert world.run(world.store.tallies("nobody")) == (Tally(), Tally())
        assert world.run(world.store.standing(None, 10)) == Standing()
