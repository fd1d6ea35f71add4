"""Settle: what runs produced, applied once, under their fences; and what else a running job may write."""

from __future__ import annotations

import msgspec
import pytest

from windlass.core.errors import ChildConflict, LeaseLost
from windlass.core.job import (
    Cancelled,
    Discarded,
    Expired,
    Failed,
    Held,
    LogLine,
    Lost,
    Outcome,
    Progress,
    Released,
    Settled,
    Snoozed,
    State,
    Succeeded,
    Token,
)
from windlass.core.job import ErrorInfo as Error
from windlass.core.machine import complete, park, release, retry
from windlass.ports.store import LOG_LINES, Death, Selection
from windlass.testing.conformance.world import DAY, HOUR, SECOND, World, readable, token_order

ENDS: tuple[tuple[Outcome, State, str, str | None], ...] = (
    (Succeeded("[1]"), State.COMPLETED, "succeeded", None),
    (Failed(Error("E", "no"), permanent=True, reason="bad_payload"), State.DEAD, "failed", "bad_payload"),
    (Discarded("no use"), State.DEAD, "discarded", "no use"),
    (Cancelled("stopped"), State.CANCELLED, "cancelled", "stopped"),
    (Expired(), State.EXPIRED, "expired", "expired"),
)
"""Outcome, and the state, outcome and reason that stand in the store afterwards."""


class Settling:
    """The chapter `settle`."""

    def test_every_end(self, world: World) -> None:
        """I2: the job ends once, and shows how."""
        for outcome, state, word, reason in ENDS:
            held = world.running()
            now = world.clock.advance("3s")
            assert world.end(held, outcome) is Settled.APPLIED
            job = world.fetch(held.id)
            assert (job.state, job.reason, job.finished_at) == (state, reason, now)
            assert (job.worker, job.started_at, job.fence) == ("w1", held.started_at, held.fence)
            (past,) = world.attempts(held.id)
            assert (past.number, past.fence, past.worker) == (1, held.fence, "w1")
            assert (past.started_at, past.ended_at) == (held.started_at, now)
            assert (past.outcome, past.reason, past.error) == (word, reason, job.error)
        assert world.run(world.store.held("w1")) == []

    def test_a_result_is_kept_to_the_letter(self, world: World) -> None:
        """I24: `null` is a result too, and not the absence of one."""
        for result in ("null", '""', '"a\\u0000b"', "9" * 5_000, '"' + "x" * 1_000_000 + '"'):
            held = world.running()
            world.end(held, Succeeded(result))
            job = world.fetch(held.id)
            assert (job.result, job.result_expired) == (result, False)

    def test_a_failure_waits_for_its_backoff(self, world: World) -> None:
        """I12: due after the wait, ranked by the new due time, charged."""
        held = world.running(head_start=HOUR)
        now = world.clock.advance("3s")
        world.end(held, Failed(Error("E", "no"), reason="flaky"))
        job = world.fetch(held.id)
        assert (job.state, job.reason, job.due_at) == (State.RETRYING, "flaky", now + SECOND)
        assert (job.attempt, job.worker, job.started_at, job.finished_at) == (1, None, None, None)
        assert job.error is not None
        assert msgspec.json.decode(job.error, type=Error) == Error("E", "no")

    def test_ranks_are_made_anew_or_kept(self, world: World) -> None:
        """A retry and a snooze go to the back of the line; what was handed back keeps its place."""
        outcomes: list[Outcome] = [
            Failed(Error("E")),
            Snoozed(1.0),
            Released("stop"),
            Released("busy", delay=1.0),
            Lost(False),
        ]
        helds = []
        for _ in outcomes:
            helds.append(world.running())
            world.clock.advance("1ms")
        world.clock.advance("1m")
        middle = world.put()
        for held, outcome in zip(helds, outcomes, strict=True):
            world.end(held, outcome)
        world.clock.advance("1m")
        late = world.put()
        failed, snoozed, *kept = (held.id for held in helds)
        granted = [held.id for held in world.claim().jobs]
        assert granted == [*kept, middle, failed, snoozed, late]

    def test_only_charged_attempts_count(self, world: World) -> None:
        """I22, I26: a run that was snoozed, handed back or lost shares its number with the next."""
        world.beat("w1")
        job = world.put()
        outcomes: list[tuple[Outcome, int]] = [
            (Snoozed(0.0, "later"), 1),
            (Released("stop"), 1),
            (Failed(Error("E")), 1),
            (Released("unknown_task", delay=1.0), 2),
            (Lost(False), 2),
            (Succeeded("1"), 2),
        ]
        for outcome, number in outcomes:
            (held,) = world.claim().jobs
            assert held.attempt == number
            world.end(held, outcome)
            world.clock.advance("1h")
        assert [(a.number, a.outcome) for a in world.attempts(job)] == [
            (1, "snoozed"),
            (1, "released"),
            (1, "failed"),
            (2, "released"),
            (2, "released"),
            (2, "succeeded"),
        ]
        assert world.fetch(job).attempt == 2

    def test_what_waits_shows_why(self, world: World) -> None:
        snoozed, parked, handed_back = (world.running() for _ in range(3))
        now = world.clock()
        world.end(snoozed, Snoozed(60.0, "not yet"))
        world.settle(park(parked.token, HOUR, "unknown_version"))
        world.end(handed_back, Released("stop"))
        jobs = [world.fetch(held.id) for held in (snoozed, parked, handed_back)]
        assert [(job.state, job.reason, job.due_at) for job in jobs] == [
            (State.SCHEDULED, "not yet", now + 60 * SECOND),
            (State.SCHEDULED, "unknown_version", now + HOUR),
            (State.QUEUED, None, handed_back.due_at),
        ]
        assert world.attempts(handed_back.id)[0].reason == "stop"

    def test_errors_show_while_they_matter(self, world: World) -> None:
        """A job that waits shows its last error; one that ended, the error it ended by, if it did."""
        held = world.running()
        world.end(held, Failed(Error("First")))
        world.clock.advance("1h")
        (held,) = world.claim().jobs
        world.end(held, Snoozed(1.0))
        assert "First" in (world.fetch(held.id).error or "")
        world.clock.advance("1h")
        (held,) = world.claim().jobs
        world.end(held, Failed(Error("Second"), permanent=True))
        assert "Second" in (world.fetch(held.id).error or "")
        world.run(world.store.revive(Selection((held.id,))))
        assert world.fetch(held.id).error is None
        (held,) = world.claim().jobs
        world.end(held, Failed(Error("Third")))
        world.clock.advance("1h")
        (held,) = world.claim().jobs
        world.end(held, Succeeded("1"))
        assert world.fetch(held.id).error is None, "a job that completed was not ended by an error"

    # --- sent again, sent by ghosts ------------------------------------------------------------------------

    def test_a_resent_settle_is_told_so(self, world: World) -> None:
        """The answer was lost: the settle is no ghost's, and changes nothing the second time."""
        some: list[Outcome] = [Succeeded("1"), Failed(Error("E")), Snoozed(5.0), Released("stop"), Discarded()]
        for outcome in some:
            held = world.running()
            assert world.end(held, outcome) is Settled.APPLIED
            before = world.dump()
            world.clock.advance("1ms")
            assert world.end(held, outcome) is Settled.ALREADY
            assert world.end(held, Succeeded("2")) is Settled.ALREADY
            assert world.dump() == before

    def test_a_resent_settle_finds_its_receipt_later_too(self, world: World) -> None:
        """I4: the same worker has the job again; the old token neither applies nor looks like a ghost's."""
        first = world.running()
        world.end(first, Released("stop"))
        (second,) = world.claim().jobs
        assert world.end(first, Succeeded("1")) is Settled.ALREADY
        assert world.fetch(first.id).state is State.RUNNING
        assert world.run(world.store.report([(first.token, Progress(1.0))], [])) == [first.token]
        world.end(second, Failed(Error("E")))
        assert world.end(first, Succeeded("1")) is Settled.ALREADY
        world.clock.advance("1h")
        (third,) = world.claim().jobs
        world.end(third, Succeeded("3"))
        for held in (first, second, third):
            assert world.end(held, Succeeded("x")) is Settled.ALREADY
        assert world.fetch(first.id).result == "3"
        world.run(world.store.revive(Selection((first.id,))))
        assert world.end(third, Succeeded("x")) is Settled.ALREADY

    def test_a_ghost_writes_nothing(self, world: World) -> None:
        """I4: after a takeover, while nobody, another worker, or the ghost itself under a new id runs the job."""
        ghost = world.running("w1")
        world.run(world.store.reap([Death(worker="w1", observed=True, explained=True)]))
        self._refuses(world, ghost)
        world.beat("w2")
        (second,) = world.claim("w2").jobs
        assert second.fence > ghost.fence
        self._refuses(world, ghost)
        world.end(second, Released("stop"), worker="w2")
        world.beat("w1-again")
        (third,) = world.claim("w1-again").jobs
        assert third.fence > second.fence
        self._refuses(world, ghost)
        assert world.end(third, Succeeded("3"), worker="w1-again") is Settled.APPLIED
        self._refuses(world, ghost)
        assert world.fetch(ghost.id).result == "3"

    def _refuses(self, world: World, ghost: Held) -> None:
        child = world.job()
        before = world.dump()
        for outcome in (Succeeded("1", children=(child,)), Failed(Error("E")), Released("x"), Cancelled()):
            assert world.end(ghost, outcome) is Settled.STALE
        line = LogLine(world.clock(), "info", "boo")
        answer = world.run(world.store.report([(ghost.token, Progress(1.0))], [(ghost.token, line)]))
        assert answer == [ghost.token]
        for value in ("1", None):
            with pytest.raises(LeaseLost):
                world.run(world.store.once(ghost.token, "charge", value))
        assert world.dump() == before
        assert world.run(world.store.fetch([child.id])) == [None]

    def test_tokens_that_never_were(self, world: World) -> None:
        held = world.running()
        waiting = world.put()
        wrong = [
            (Token(held.id, held.fence + 1), Settled.STALE),
            (Token(held.id, 0), Settled.STALE),
            (Token(waiting, 0), Settled.STALE),
            (Token(waiting, world.clock()), Settled.STALE),
            (Token(world.job().id, 1), Settled.GONE),
        ]
        before = world.dump()
        answers = world.settle(*(complete(token, "1", DAY) for token, _ in wrong))
        assert answers == [answer for _, answer in wrong]
        assert world.dump() == before

    def test_a_deleted_job_is_gone(self, world: World) -> None:
        held = world.running()
        world.end(held, Succeeded("1"))
        world.run(world.store.delete(Selection((held.id,))))
        assert world.end(held, Succeeded("1")) is Settled.GONE

    def test_a_mixed_batch_is_answered_in_order(self, world: World) -> None:
        """I23: one bad token spoils nothing for the others; one that stands twice is applied once."""
        a, b, c = (world.running() for _ in range(3))
        ghost = world.running("w9")
        world.run(world.store.reap([Death(worker="w9", observed=True)]))
        answers = world.settle(
            complete(a.token, "1", DAY),
            complete(ghost.token, "1", DAY),
            retry(b.token, SECOND, Error("E"), "failed"),
            complete(a.token, "2", DAY),
            complete(Token(world.job().id, 5), "1", DAY),
            release(c.token, "stop"),
            release(b.token, "stop"),
        )
        assert answers == [
            Settled.APPLIED,
            Settled.STALE,
            Settled.APPLIED,
            Settled.ALREADY,
            Settled.GONE,
            Settled.APPLIED,
            Settled.ALREADY,
        ]
        states = [world.fetch(held.id).state for held in (a, b, c)]
        assert states == [State.COMPLETED, State.RETRYING, State.QUEUED]
        assert world.fetch(a.id).result == "1"

    def test_an_empty_batch(self, world: World) -> None:
        assert world.settle() == []

    # --- children ------------------------------------------------------------------------------------------

    def test_children_come_with_the_completion(self, world: World) -> None:
        """I7: both or neither; a re-sent completion does not enqueue them again."""
        held = world.running()
        now, later = world.job(queue="kids"), world.job(queue="kids", after=HOUR)
        outcome = Succeeded("1", children=(now, later))
        assert world.end(held, outcome) is Settled.APPLIED
        assert [world.fetch(job.id).state for job in (now, later)] == [State.QUEUED, State.SCHEDULED]
        assert [job.id for job in world.claim(queue="kids").jobs] == [now.id]
        assert world.end(held, outcome) is Settled.ALREADY
        assert world.claim(queue="kids").jobs == []

    def test_children_respect_keys(self, world: World) -> None:
        """I10: as any enqueue would; the completion stands all the same."""
        owner = world.put(idempotency_key="k")
        held = world.running()
        children = (world.job(idempotency_key="k"), world.job(idempotency_key="n"), world.job(idempotency_key="n"))
        assert world.end(held, Succeeded("1", children=children)) is Settled.APPLIED
        found = world.run(world.store.fetch([child.id for child in children]))
        assert [job is not None for job in found] == [False, True, False]
        assert world.fetch(owner).state is State.QUEUED

    # --- cancelled meanwhile -------------------------------------------------------------------------------

    def test_a_requested_cancel_wins_over_another_run(self, world: World) -> None:
        """I13: whatever the run produced but success, the job is cancelled and does not run again."""
        outcomes = (
            (Failed(Error("E")), "failed"),
            (Failed(Error("E"), permanent=True), "failed"),
            (Snoozed(1.0), "snoozed"),
            (Released("stop"), "released"),
            (Released("unknown_task", delay=5.0), "released"),
            (Lost(True), "lost"),
            (Discarded(), "discarded"),
            (Cancelled(), "cancelled"),
        )
        for outcome, word in outcomes:
            held = world.running()
            world.run(world.store.cancel(Selection((held.id,))))
            assert world.end(held, outcome) is Settled.APPLIED
            job = world.fetch(held.id)
            assert (job.state, job.reason, job.cancelling) == (State.CANCELLED, "cancelled", False)
            assert job.finished_at == world.clock()
            assert world.outcomes(held.id) == [word], "the history says how the attempt itself ended"
        world.clock.advance("1h")
        assert world.claim().jobs == world.claim(suspects=True).jobs == []

    def test_a_cancel_that_came_too_late(self, world: World) -> None:
        """I13: the work is done, with its children; whichever committed first has won."""
        held = world.running()
        child = world.job()
        world.run(world.store.cancel(Selection((held.id,))))
        world.end(held, Succeeded("1", children=(child,)))
        job = world.fetch(held.id)
        assert (job.state, job.result, job.cancelling) == (State.COMPLETED, "1", False)
        assert world.fetch(child.id).state is State.QUEUED

    # --- progress and logs ---------------------------------------------------------------------------------

    def test_the_latest_progress_is_kept(self, world: World) -> None:
        held = world.running()
        first, second = Progress(1.0, 3.0, "one \x00 é", 5), Progress(2.5, None, "", 6)
        assert world.run(world.store.report([(held.token, first), (held.token, second)], [])) == []
        assert readable(world.fetch(held.id))[1] == msgspec.to_builtins(second)
        assert world.run(world.store.report([(held.token, first)], [])) == []
        world.end(held, Failed(Error("E")))
        job = world.fetch(held.id)
        assert job.progress is not None
        assert msgspec.json.decode(job.progress, type=Progress) == first

    def test_log_lines_are_appended(self, world: World) -> None:
        """Over all attempts, in order; a reader goes on where it stopped."""
        held = world.running()
        lines = [LogLine(world.clock() + n, "info", f"line {n} é \n \U0001f600") for n in range(5)]
        world.run(world.store.report([], [(held.token, line) for line in lines[:3]]))
        world.end(held, Released("stop"))
        (held,) = world.claim().jobs
        world.run(world.store.report([], [(held.token, line) for line in lines[3:]]))
        assert world.run(world.store.logs(held.id)) == lines
        assert world.run(world.store.logs(held.id, 3)) == lines[3:]
        assert world.run(world.store.logs(held.id, 5)) == []
        assert world.run(world.store.logs(world.job().id)) == []

    def test_log_lines_have_a_bound(self, world: World) -> None:
        """A handler that logs in a loop does not fill the disk; the first lines are those that are kept."""
        held = world.running()
        lines = [LogLine(n, "info", str(n)) for n in range(LOG_LINES + 10)]
        for part in (lines[: LOG_LINES - 5], lines[LOG_LINES - 5 :], lines[-3:]):
            assert world.run(world.store.report([], [(held.token, line) for line in part])) == []
        assert world.run(world.store.logs(held.id)) == lines[:LOG_LINES]

    def test_a_child_whose_key_is_anothers_undoes_the_completion(self, world: World) -> None:
        """The same key with another payload is an error, also for a child: it must not vanish without a word."""
        parent = world.running()
        owner = world.put(idempotency_key="k", digest="one")
        child = world.job(idempotency_key="k", digest="two")
        before = world.dump()
        with pytest.raises(ChildConflict, match=owner):
            world.end(parent, Succeeded("1", children=(world.job(), child)))
        assert world.dump() == before
        same = world.job(idempotency_key="k", digest="one")
        assert world.end(parent, Succeeded("1", children=(same,))) is Settled.APPLIED
        assert world.run(world.store.fetch([same.id])) == [None]  # it is the one that has the key

    def test_last_words_are_kept(self, world: World) -> None:
        """A handler that committed its own completion may have logged before; until somebody else has the job."""
        held = world.running()
        world.end(held, Failed(Error("E")))
        line = LogLine(1, "info", "x")
        assert world.run(world.store.report([(held.token, Progress(1.0))], [(held.token, line)])) == []
        world.clock.advance("1h")
        (again,) = world.claim().jobs
        assert world.run(world.store.report([], [(held.token, line)])) == [held.token]
        world.end(again, Succeeded("1"))
        assert world.run(world.store.report([], [(again.token, line)])) == []
        assert world.run(world.store.report([], [(held.token, line)])) == [held.token]
        assert world.run(world.store.logs(held.id)) == [line, line]
        assert world.fetch(held.id).progress is not None
        world.run(world.store.revive(Selection((held.id,))))
        assert world.run(world.store.report([], [(again.token, line)])) == [again.token]

    def test_a_mixed_report_writes_for_the_living(self, world: World) -> None:
        """I23: the dead are named, each once, and the rest is written."""
        alive, done = world.running(), world.running()
        world.end(done, Released("stop"))
        world.claim()
        never = Token(world.job().id, 1)
        line = LogLine(1, "info", "x")
        answer = world.run(
            world.store.report(
                [(done.token, Progress(1.0)), (alive.token, Progress(2.0)), (never, Progress(3.0))],
                [(done.token, line), (alive.token, line)],
            )
        )
        assert sorted(answer, key=token_order) == sorted([done.token, never], key=token_order)
        assert world.fetch(done.id).progress is None
        assert readable(world.fetch(alive.id))[1]["done"] == 2.0
        assert world.run(world.store.logs(alive.id)) == [line]

    # --- once ----------------------------------------------------------------------------------------------

    def test_the_first_result_is_kept(self, world: World) -> None:
        """Exactly-once effects elsewhere: a retry is given what the first attempt recorded."""
        store = world.store
        held = world.running()
        assert world.run(store.once(held.token, "charge", None)) is None
        assert world.run(store.once(held.token, "charge", '{"id":1}')) == '{"id":1}'
        assert world.run(store.once(held.token, "charge", '{"id":2}')) == '{"id":1}'
        assert world.run(store.once(held.token, "mail", "null")) == "null"
        world.end(held, Failed(Error("E"), permanent=True))
        world.run(store.revive(Selection((held.id,))))
        (again,) = world.claim().jobs
        assert world.run(store.once(again.token, "charge", None)) == '{"id":1}'
        assert world.run(store.once(again.token, "mail", "5")) == "null"
        other = world.running()
        assert world.run(store.once(other.token, "charge", None)) is None

    def test_first_results_are_fenced(self, world: World) -> None:
        held = world.running()
        world.end(held, Released("stop"))
        for value in ("1", None):
            with pytest.raises(LeaseLost):
                world.run(world.store.once(held.token, "charge", value))
        (again,) = world.claim().jobs
        assert world.run(world.store.once(again.token, "charge", None)) is None

    # --- what has ended ------------------------------------------------------------------------------------

    def test_what_has_ended_stays_as_it_is(self, world: World) -> None:
        """I2: nothing but a person's revive changes a job that has ended."""
        helds = []
        for outcome, *_ in ENDS:
            helds.append(world.running())
            world.end(helds[-1], outcome)
        ids = tuple(held.id for held in helds)
        world.clock.advance("1d")
        world.beat("w1")
        before = world.dump()
        assert world.claim().jobs == world.claim(suspects=True).jobs == []
        assert world.run(world.store.claim_ids("w1", 99, ids)).jobs == []
        world.run(world.store.promote(100))
        assert world.run(world.store.cancel(Selection(ids))).untouched == ids
        world.run(world.store.reap([Death(worker="w1", observed=True)]))
        after = world.dump()
        before["workers"] = after["workers"] = []
        assert after == before
