"""Schedules: one job for each tick, whoever fires it and however often; and what happens to definitions."""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.core.errors import LeaseLost
from windlass.core.job import NewJob, Released, State, Succeeded
from windlass.core.placement import job_id
from windlass.ports.plan import Plan
from windlass.ports.store import (
    CODE_SEEN,
    PAST_DEFINITIONS,
    DueSchedules,
    Enqueued,
    Fired,
    Schedule,
    ScheduleChange,
    ScheduleChanged,
    Selection,
    Tick,
)
from windlass.testing.conformance.sizes import size
from windlass.testing.conformance.world import MINUTE, SECOND, Script, World

NAMES = ("nightly", "ünï", "'; --", "a b", "🙂", "x" * 200)
RACERS = 8


def put(name: str = "s", definition: str = "d1", timing: str = "t", origin: str = "operator") -> ScheduleChange:
    """A put. What a definition says is nothing to a store, so these say nothing."""
    return ScheduleChange(
        name=name, action="put", definition=definition, digest=f"#{definition}", timing=timing, origin=origin
    )


def act(action: str, name: str = "s") -> ScheduleChange:
    """Any other change."""
    return ScheduleChange(name=name, action=action)


class Scheduling:
    """The chapter `schedules`."""

    def change(self, world: World, *changes: ScheduleChange) -> list[str]:
        """Apply changes and answer how each went; what they answer must be what is read."""
        answers = world.run(world.store.change_schedules(changes))
        for change, answer in zip(changes, answers, strict=True):
            if len({each.name for each in changes}) == len(changes):
                found = world.run(world.store.schedules((change.name,)))
                assert found == ([] if answer.schedule is None else [answer.schedule])
        return [answer.word for answer in answers]

    def read(self, world: World, name: str = "s") -> Schedule:
        """One schedule that must be there."""
        (found,) = world.run(world.store.schedules((name,)))
        return found

    def tick(self, world: World, name: str = "s", **given: Any) -> Tick:
        """The tick that is due now, as a scheduler would make it, whose next one is a minute later."""
        at = self.read(world, name)
        now = world.clock()
        given.setdefault("job", tick_job(name, at.revision, now))
        known: dict[str, Any] = {"schedule": name, "revision": at.revision, "cursor": at.cursor, "to": now}
        tick = Tick(**known | {"next_at": now + MINUTE} | given)
        world.known |= dict.fromkeys([tick.job.id] if tick.job else [])
        return tick

    def fire(self, world: World, *ticks: Tick) -> list[Fired]:
        """Fire them in one transaction."""
        return world.run(world.store.fire(ticks))

    def made(self, world: World, name: str = "s", **given: Any) -> None:
        """A new schedule whose first tick is due."""
        assert self.change(world, put(name, **given)) == ["created"]
        world.clock.advance(MINUTE / SECOND)

    # --- definitions ---------------------------------------------------------------------------------------

    def test_a_schedule_is_made(self, world: World) -> None:
        assert world.run(world.store.schedules()) == []
        now = world.clock()
        assert self.change(world, put()) == ["created"]
        assert self.read(world) == Schedule(
            name="s",
            revision=1,
            definition="d1",
            origin="operator",
            paused=False,
            cursor=now,
            next_at=now,
            created_at=now,
            changed_at=now,
            seen_at=None,
        )

    def test_any_text_names_a_schedule(self, world: World) -> None:
        """I23"""
        assert self.change(world, *(put(name, definition=name) for name in NAMES)) == ["created"] * len(NAMES)
        found = world.run(world.store.schedules())
        assert [each.name for each in found] == sorted(NAMES)
        assert [each.definition for each in found] == sorted(NAMES)
        assert world.run(world.store.schedules(("🙂", "none"))) == [each for each in found if each.name == "🙂"]

    def test_the_same_definition_changes_nothing(self, world: World) -> None:
        self.made(world)
        before = self.read(world)
        assert self.change(world, put()) == ["unchanged"]
        assert self.read(world) == before

    def test_another_definition_is_another_revision(self, world: World) -> None:
        self.made(world)
        self.fire(world, self.tick(world))
        before = self.read(world)
        world.clock.advance(1)
        now = world.clock()
        assert self.change(world, put(definition="d2")) == ["replaced"]
        kept = self.read(world)
        assert (kept.revision, kept.definition, kept.changed_at, kept.next_at) == (2, "d2", now, now)
        assert (kept.cursor, kept.fired, kept.last_tick, kept.created_at) == (
            before.cursor,
            1,
            before.last_tick,
            before.created_at,
        )

    def test_another_timing_begins_now(self, world: World) -> None:
        self.made(world)
        now = world.clock()
        self.change(world, put(definition="d2", timing="other"))
        assert self.read(world).cursor == now

    def test_a_clock_that_went_back_takes_no_cursor_with_it(self, world: World) -> None:
        """I11: what was fired before stays fired."""
        self.made(world)
        self.fire(world, self.tick(world))
        cursor = self.read(world).cursor
        world.clock.set(world.clock() - 10 * MINUTE)
        self.change(world, put(definition="d2", timing="other"))
        assert self.read(world).cursor == cursor
        self.change(world, act("pause"), act("resume"))
        assert self.read(world).cursor == cursor

    def test_revisions_never_come_back(self, world: World) -> None:
        self.change(world, put(), put(definition="d2"), put(definition="d3"))
        assert self.change(world, act("delete"), put("other")) == ["deleted", "created"]
        assert self.read(world, "other").revision > 3
        self.change(world, put())
        assert self.read(world).revision > 3

    def test_what_is_not_there(self, world: World) -> None:
        actions = ("pause", "resume", "delete")
        answers = world.run(world.store.change_schedules([act(action) for action in actions]))
        assert answers == [ScheduleChanged("missing")] * 3

    # --- code ----------------------------------------------------------------------------------------------

    def test_code_is_seen(self, world: World) -> None:
        self.change(world, put(origin="code"))
        world.clock.advance(1)
        assert self.change(world, put(origin="code")) == ["unchanged"]
        found = self.read(world)
        assert (found.origin, found.seen_at, found.revision) == ("code", world.clock(), 1)

    def test_two_versions_of_the_code_do_not_take_turns(self, world: World) -> None:
        """I25: while both run, the one that came last is obeyed."""
        old, new = put(definition="old", origin="code"), put(definition="new", origin="code")
        assert self.change(world, old) == ["created"]
        assert self.change(world, new) == ["replaced"]
        for _ in range(20):
            world.clock.advance(60)
            assert self.change(world, old) == ["superseded"]
            assert self.change(world, new) == ["unchanged"]
        assert (self.read(world).definition, self.read(world).revision) == ("new", 2)

    def test_a_roll_back_is_believed_once_the_new_code_is_gone(self, world: World) -> None:
        old, new = put(definition="old", origin="code"), put(definition="new", origin="code")
        self.change(world, old, new)
        world.clock.set(world.clock() + CODE_SEEN)
        assert self.change(world, old) == ["superseded"]
        world.clock.set(world.clock() + 1)
        assert self.change(world, old) == ["replaced"]
        assert self.change(world, new) == ["superseded"]
        assert (self.read(world).definition, self.read(world).revision) == ("old", 3)

    def test_a_person_is_believed_until_the_code_says_something_new(self, world: World) -> None:
        self.change(world, put(definition="old", origin="code"), put(definition="mine"))
        assert self.read(world).origin == "edited"
        world.clock.set(world.clock() + 2 * CODE_SEEN)
        assert self.change(world, put(definition="old", origin="code")) == ["superseded"]
        assert self.read(world).seen_at == world.clock()
        assert self.change(world, put(definition="new", origin="code")) == ["replaced"]
        assert (self.read(world).origin, self.read(world).definition) == ("code", "new")
        self.change(world, put(definition="mine"))
        assert self.change(world, put(definition="mine", origin="code")) == ["unchanged"]
        assert self.read(world).origin == "code"

    def test_an_operators_schedule_stays_an_operators(self, world: World) -> None:
        self.change(world, put(), put(definition="d2"))
        assert (self.read(world).origin, self.read(world).seen_at) == ("operator", None)

    def test_so_many_definitions_are_known_again(self, world: World) -> None:
        every = [put(definition=f"d{n}", origin="code") for n in range(PAST_DEFINITIONS + 2)]
        for each in every:
            self.change(world, each)
        assert self.change(world, every[1]) == ["superseded"]
        assert self.change(world, every[0]) == ["replaced"]

    # --- pauses --------------------------------------------------------------------------------------------

    def test_a_paused_schedule_is_not_due_and_fires_nothing(self, world: World) -> None:
        self.made(world)
        ready = self.tick(world)
        assert self.change(world, act("pause")) == ["paused"]
        assert self.change(world, act("pause")) == ["unchanged"]
        assert world.run(world.store.due(10)) == DueSchedules(world.clock(), [])
        before = world.dump()
        assert self.fire(world, ready) == [Fired.STALE]
        assert world.dump() == before

    def test_a_resume_does_not_catch_up(self, world: World) -> None:
        self.made(world)
        self.change(world, act("pause"))
        world.clock.advance("1d")
        now = world.clock()
        assert self.change(world, act("resume")) == ["resumed"]
        assert self.change(world, act("resume")) == ["unchanged"]
        found = self.read(world)
        assert (found.paused, found.cursor, found.next_at) == (False, now, now)

    def test_an_edit_keeps_a_pause(self, world: World) -> None:
        self.change(world, put(), act("pause"), put(definition="d2", timing="other"))
        assert self.read(world).paused

    # --- what is due ---------------------------------------------------------------------------------------

    def test_due_follows_the_stores_clock(self, world: World) -> None:
        for n, name in enumerate(("c", "b", "a")):
            self.change(world, put(name))
            to = world.clock()
            self.fire(world, self.tick(world, name, job=None, to=to, next_at=to + (n + 1) * SECOND))
        start = world.clock()
        assert world.run(world.store.due(10)) == DueSchedules(start, [], start + SECOND)
        for until, names in ((SECOND - 1, ""), (SECOND, "c"), (2 * SECOND, "cb"), (3 * SECOND, "cba")):
            world.clock.set(start + until)
            found = world.run(world.store.due(10))
            assert [each.name for each in found.schedules] == list(names)
            assert found.now == start + until
        assert found.next_at is None
        assert [each.name for each in world.run(world.store.due(2)).schedules] == ["c", "b"]

    def test_what_will_not_tick_any_more_is_never_due(self, world: World) -> None:
        self.made(world)
        assert self.fire(world, self.tick(world, next_at=None)) == [Fired.FIRED]
        world.clock.advance("1d")
        assert world.run(world.store.due(10)) == DueSchedules(world.clock(), [])

    # --- ticks ---------------------------------------------------------------------------------------------

    def test_a_tick_becomes_a_job(self, world: World) -> None:
        self.made(world)
        tick = self.tick(world)
        assert tick.job is not None
        assert self.fire(world, tick) == [Fired.FIRED]
        job = world.fetch(tick.job.id)
        assert (job.state, job.task, job.due_at) == (State.QUEUED, "tests.task", tick.to)
        found = self.read(world)
        assert (found.cursor, found.next_at, found.last_tick) == (tick.to, tick.next_at, tick.to)
        assert (found.last_outcome, found.last_job, found.fired, found.skipped) == ("fired", job.id, 1, 0)

    def test_a_tick_that_is_sent_again_is_fired_once(self, world: World) -> None:
        """I11"""
        self.made(world)
        tick = self.tick(world)
        assert self.fire(world, tick, tick) == [Fired.FIRED, Fired.ALREADY]
        before = world.dump()
        assert self.fire(world, tick) == [Fired.ALREADY]
        assert world.dump() == before

    def test_a_tick_before_the_cursor_is_not_fired(self, world: World) -> None:
        """I11: a scheduler that was stopped across ticks."""
        self.made(world)
        slept = self.tick(world)
        for _ in range(3):
            world.clock.advance("1m")
            assert self.fire(world, self.tick(world, overlap="queue")) == [Fired.FIRED]
        before = world.dump()
        assert self.fire(world, slept) == [Fired.ALREADY]
        assert world.dump() == before

    def test_a_tick_from_elsewhere_is_stale(self, world: World) -> None:
        self.made(world)
        tick = self.tick(world, cursor=1)
        assert self.fire(world, tick) == [Fired.STALE]
        assert self.fire(world, self.tick(world, revision=2)) == [Fired.STALE]
        ready = self.tick(world)
        self.change(world, put(definition="d2"))
        assert self.fire(world, ready) == [Fired.STALE]
        self.change(world, act("delete"))
        assert self.fire(world, ready) == [Fired.STALE]
        assert world.run(world.store.stats(exact=True)).states["queued"] == 0

    def test_no_tick_is_early(self, world: World) -> None:
        """I11: a scheduler whose own clock is an hour ahead fires nothing before its time."""
        self.made(world)
        tick = self.tick(world, to=world.clock() + 1)
        before = world.dump()
        assert self.fire(world, tick) == [Fired.EARLY]
        assert world.dump() == before
        world.clock.set(tick.to)
        assert self.fire(world, tick) == [Fired.FIRED]

    def test_ticks_follow_each_other_in_one_batch(self, world: World) -> None:
        self.made(world)
        world.clock.advance("10m")
        at = self.read(world)
        ticks, cursor = [], at.cursor
        for n in range(1, 4):
            to = at.cursor + n * MINUTE
            job = tick_job("s", at.revision, to)
            ticks.append(self.tick(world, cursor=cursor, to=to, next_at=to + MINUTE, job=job, overlap="queue"))
            cursor = to
        assert self.fire(world, *ticks) == [Fired.FIRED] * 3
        assert self.read(world).cursor == cursor
        assert [world.fetch(tick.job.id).due_at for tick in ticks if tick.job] == [tick.to for tick in ticks]

    def test_a_tick_without_a_job_moves_the_cursor(self, world: World) -> None:
        self.made(world)
        tick = self.tick(world, job=None)
        assert self.fire(world, tick) == [Fired.MOVED]
        found = self.read(world)
        assert (found.cursor, found.next_at, found.last_tick, found.fired) == (tick.to, tick.next_at, None, 0)
        later = self.tick(world, job=None, next_at=tick.to + 5)
        assert self.fire(world, later) == [Fired.MOVED]
        assert self.read(world).next_at == tick.to + 5

    def test_a_clock_that_goes_back_fires_nothing_twice(self, world: World) -> None:
        """I11: the store's clock, an hour ahead for a while."""
        self.made(world)
        world.clock.advance("1h")
        ahead = self.tick(world)
        assert self.fire(world, ahead) == [Fired.FIRED]
        world.clock.set(world.clock() - 60 * MINUTE)
        assert world.run(world.store.due(10)).schedules == []
        again, back = self.tick(world), world.clock()
        before = world.dump()
        assert self.fire(world, again) == [Fired.ALREADY]
        world.clock.set(ahead.to)
        assert self.fire(world, ahead) == [Fired.ALREADY]
        world.clock.set(back)
        assert world.dump() == before

    def test_a_job_that_is_there_already_is_not_stored_again(self, world: World) -> None:
        """A tick that was backfilled before it was fired."""
        self.made(world)
        tick = self.tick(world)
        assert tick.job is not None
        assert world.enqueue(tick.job) == [Enqueued(tick.job.id, inserted=True)]
        assert self.fire(world, tick) == [Fired.FIRED]
        assert world.run(world.store.stats(exact=True)).states["queued"] == 1

    # --- overlap -------------------------------------------------------------------------------------------

    def test_skip(self, world: World) -> None:
        self.made(world)
        world.beat("w1")
        first = self.tick(world)
        self.fire(world, first)
        assert first.job is not None
        for _ in range(2):
            world.clock.advance("1m")
            tick = self.tick(world)
            assert self.fire(world, tick) == [Fired.SKIPPED]
            assert tick.job is not None
            assert world.run(world.store.fetch([tick.job.id])) == [None]
        found = self.read(world)
        assert (found.last_tick, found.last_outcome, found.last_job) == (tick.to, "skipped", first.job.id)
        assert (found.fired, found.skipped, found.cursor, found.next_at) == (1, 2, tick.to, tick.next_at)
        (held,) = world.claim().jobs
        world.clock.advance("1m")
        assert self.fire(world, self.tick(world)) == [Fired.SKIPPED]
        world.end(held, Succeeded())
        world.clock.advance("1m")
        assert self.fire(world, self.tick(world)) == [Fired.FIRED]

    def test_skip_forgets_what_was_deleted(self, world: World) -> None:
        self.made(world)
        first = self.tick(world)
        self.fire(world, first)
        assert first.job is not None
        world.run(world.store.delete(Selection((first.job.id,))))
        world.clock.advance("1m")
        assert self.fire(world, self.tick(world)) == [Fired.FIRED]

    def test_queue(self, world: World) -> None:
        self.made(world)
        for _ in range(3):
            assert self.fire(world, self.tick(world, overlap="queue")) == [Fired.FIRED]
            world.clock.advance("1m")
        assert world.run(world.store.stats(exact=True)).states["queued"] == 3

    def test_cancel_previous(self, world: World) -> None:
        self.made(world)
        world.beat("w1")
        ticks = []
        for n in range(3):
            ticks.append(self.tick(world, overlap="cancel-previous"))
            assert self.fire(world, ticks[-1]) == [Fired.FIRED]
            if n == 0:
                (held,) = world.claim().jobs
            world.clock.advance("1m")
        first, second, third = [world.fetch(tick.job.id) for tick in ticks if tick.job]
        assert (first.state, first.cancelling) == (State.RUNNING, True)
        assert (second.state, third.state) == (State.CANCELLED, State.QUEUED)
        world.end(held, Succeeded())
        assert self.fire(world, self.tick(world, overlap="cancel-previous")) == [Fired.FIRED]
        assert world.fetch(third.id).state is State.CANCELLED

    def test_a_unique_key_that_is_taken_skips_the_tick(self, world: World) -> None:
        owner = world.put(task="t", meta='{"unique":["k","return-existing"]}')
        self.made(world)
        job = tick_job("s", 1, world.clock(), task="t", meta='{"unique":["k","return-existing"]}')
        assert self.fire(world, self.tick(world, job=job)) == [Fired.SKIPPED]
        found = self.read(world)
        assert (found.last_job, found.last_outcome, found.skipped) == (None, "skipped", 1)
        assert world.fetch(owner).state is State.QUEUED

    def test_no_job_is_cancelled_that_is_not_the_schedules(self, world: World) -> None:
        """I13: a tick that merges into a job, or gives way to it, does not make it the schedule's own."""
        for n, policy in enumerate(("return-existing", "reject", "replace", "keep-last")):
            name, meta = f"s{n}", f'{{"unique":["k{n}","{policy}"]}}'
            theirs = world.put(task="t", meta=meta)
            self.made(world, name)
            for _ in range(3):
                job = tick_job(name, self.read(world, name).revision, world.clock(), task="t", meta=meta)
                tick = self.tick(world, name, job=job, overlap="cancel-previous")
                assert self.fire(world, tick) == [Fired.SKIPPED]
                world.clock.advance("1m")
            assert world.fetch(theirs).state is State.QUEUED
            found = self.read(world, name)
            assert (found.last_job, found.fired, found.skipped) == (None, 0, 3)

    # --- by hand -------------------------------------------------------------------------------------------

    def test_a_run_by_hand_moves_nothing(self, world: World) -> None:
        self.made(world)
        self.change(world, act("pause"))
        before = self.read(world)
        by_hand = self.tick(world, manual=True, overlap="queue", revision=0, cursor=0, to=0, job=world.job())
        assert self.fire(world, by_hand) == [Fired.FIRED]
        after = self.read(world)
        assert (after.cursor, after.next_at, after.paused) == (before.cursor, before.next_at, True)
        assert (after.last_tick, after.fired) == (None, 1)
        assert self.fire(world, self.tick(world, name="s", schedule="none", manual=True)) == [Fired.STALE]

    def test_a_run_by_hand_counts_where_ticks_must_not_overlap(self, world: World) -> None:
        self.made(world)
        first = self.tick(world)
        self.fire(world, first)
        by_hand = self.tick(world, manual=True, overlap="queue", job=world.job())
        self.fire(world, by_hand)
        assert by_hand.job is not None
        world.run(world.store.cancel(Selection((by_hand.job.id,))))
        world.clock.advance("1m")
        assert self.fire(world, self.tick(world)) == [Fired.SKIPPED]  # the tick before that is still there

    def test_a_run_by_hand_that_is_sent_again_is_the_same_run(self, world: World) -> None:
        """Its answer was lost: neither may it be counted twice, nor cancelled as the one before itself."""
        self.made(world)
        by_hand = self.tick(world, manual=True, overlap="cancel-previous", job=world.job())
        later = self.tick(world, manual=True, overlap="queue", job=world.job())
        assert by_hand.job is not None
        assert later.job is not None
        assert self.fire(world, by_hand, later) == [Fired.FIRED, Fired.FIRED]
        before = self.read(world)
        assert self.fire(world, by_hand) == [Fired.FIRED]
        assert self.read(world) == before
        assert {world.fetch(id).state for id in (by_hand.job.id, later.job.id)} == {State.QUEUED}

    # --- races ---------------------------------------------------------------------------------------------

    def test_of_many_schedulers_one_fires(self, world: World) -> None:
        """I11: five schedulers and more, each with a view of its own, some of it old."""
        self.made(world)
        count = size(20, 200, 2_000)

        def scheduler(ticks: list[Tick]) -> Script:
            answers: list[Fired] = []
            for tick in ticks:
                answers += yield world.store.fire([tick])
            return answers

        fired = 0
        for _ in range(count):
            tick = self.tick(world, overlap="queue")
            answers = world.together(*(scheduler([tick]) for _ in range(RACERS)))
            fired += sum(answer == [Fired.FIRED] for answer in answers)
            assert {answer for each in answers for answer in each} <= {Fired.FIRED, Fired.ALREADY}
            world.clock.advance("1m")
        assert fired == count
        assert world.run(world.store.stats(exact=True)).states["queued"] == count
        assert self.read(world).fired == count
        world.figures |= {"ticks": count, "schedulers": RACERS, "jobs": count}

    def test_schedulers_race_edits(self, world: World) -> None:
        """I11: a tick is fired under the revision that it was decided by, or not at all."""
        self.made(world)
        rounds = size(20, 200, 2_000)

        def editor(n: int) -> Script:
            yield world.store.change_schedules([put(definition=f"e{n}")])

        def scheduler(tick: Tick) -> Script:
            return (yield world.store.fire([tick]))

        fired = 0
        for n in range(rounds):
            tick = self.tick(world, overlap="queue")
            _, *answers = world.together(editor(n), *(scheduler(tick) for _ in range(RACERS - 1)))
            got = [answer for [answer] in answers]
            assert got.count(Fired.FIRED) <= 1
            fired += got.count(Fired.FIRED)
            world.clock.advance("1m")
        assert self.read(world).fired == fired
        assert world.run(world.store.stats(exact=True)).states["queued"] == fired
        world.figures |= {"rounds": rounds, "fired": fired}

    # --- fan-out -------------------------------------------------------------------------------------------

    def test_children_are_stored_and_counted(self, world: World) -> None:
        held = world.running()
        jobs = world.jobs(5)
        world.known |= dict.fromkeys(job.id for job in jobs)
        store = world.store
        assert world.run(store.fan_out(held.token, "x", 0, ())) == 0
        assert world.run(store.fan_out(held.token, "x", 0, jobs[:3])) == 3
        assert world.run(store.fan_out(held.token, "x", 0, jobs[:3])) == 3  # its answer was lost
        assert world.run(store.fan_out(held.token, "x", 0, jobs)) == 3
        assert world.run(store.fan_out(held.token, "x", 3, jobs[3:])) == 5
        assert world.run(store.fan_out(held.token, "y", 0, ())) == 0
        assert {world.fetch(job.id).state for job in jobs} == {State.QUEUED}
        assert world.run(store.stats(exact=True)).states["queued"] == 5

    def test_a_ghost_fans_out_nothing(self, world: World) -> None:
        """I4"""
        held = world.running()
        ghost = type(held.token)(held.id, held.fence - 1)
        jobs = world.jobs(3)
        for token in (ghost, type(held.token)(world.job().id, 1)):
            assert refuses(world, world.store.fan_out(token, "x", 0, jobs))
        world.end(held, Succeeded())
        assert refuses(world, world.store.fan_out(held.token, "x", 0, jobs))
        assert world.run(world.store.stats(exact=True)).states["queued"] == 0

    def test_the_next_attempt_goes_on(self, world: World) -> None:
        held = world.running()
        jobs = world.jobs(4)
        world.run(world.store.fan_out(held.token, "x", 0, jobs[:2]))
        world.end(held, Released("stop"))
        (again,) = world.run(world.store.claim_ids("w1", world.next_seq("w1"), [held.id])).jobs
        assert world.run(world.store.fan_out(again.token, "x", 0, ())) == 2
        assert world.run(world.store.fan_out(again.token, "x", 2, jobs[2:])) == 4


def refuses(world: World, plan: Plan[Any]) -> bool:
    """Whether it raises LeaseLost."""
    try:
        world.run(plan)
    except LeaseLost:
        return True
    return False


def tick_job(name: str, revision: int, tick: int, **given: Any) -> NewJob:
    """The job of a tick, under the same id whoever makes it."""
    noise = hash_of(f"{name} {revision} {tick}")
    job = NewJob(id=job_id(tick // 1_000, noise), task="tests.task", payload="[[],{}]", at=tick)
    return msgspec.structs.replace(job, **given)


def hash_of(text: str) -> bytes:
    """Ten bytes that follow from a text."""
    from hashlib import blake2b

    return blake2b(text.encode(), digest_size=10).digest()
