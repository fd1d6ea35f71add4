"""The supervisor with workers that have no engine: what it sees, decides and tells the store."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.runtime.harness import Away, Session, descendants, eventually, new_job
from windlass.core.job import State
from windlass.runtime import lockfile
from windlass.runtime.judge import Judge
from windlass.runtime.liaison import LAST_WORDS
from windlass.runtime.member import Member
from windlass.runtime.slots import now_ns
from windlass.runtime.supervisor import SAME_SIGNAL


def test_workers_are_started_registered_and_stopped() -> None:
    def driver(s: Session) -> None:
        members = s.running(2)
        known = {w.id: w for w in s.do(s.opened.store.workers())}
        assert {m.id for m in members} == set(known)
        assert {known[m.id].pid for m in members} == {m.pid for m in members}

    s = Session()
    assert s.run(driver) == 0
    assert [w for w in s.do(s.opened.store.workers()) if not w.taken] == []


def test_the_store_knows_what_its_workers_are_at() -> None:
    """What they are at is in their tables, and a change is told at once, not with the next beat."""

    def driver(s: Session) -> None:
        [member] = s.running(1)

        def told(state: str) -> None:
            eventually(lambda: [w.state for w in s.do(s.opened.store.workers()) if w.slots] == [state])

        told("running")
        member.table.turned = 0  # as before its start hooks have returned
        told("starting")
        member.table.turned = now_ns() - round(6e9)
        told("stalled")
        member.table.turned = now_ns()
        told("running")

    assert Session(processes=1, hold=60.0).run(driver) == 0


def test_a_killed_worker_is_recovered_and_replaced_at_once() -> None:
    """I8: the job of a dead worker is claimable in milliseconds, and I6: it ran alone, so the crash is its own."""

    def driver(s: Session) -> None:
        first, _ = s.running(2)
        ran, waited = s.claimed(first, 2)
        first.table.begin(0, ran.id, ran.fence)
        began = time.monotonic()
        os.kill(first.pid, signal.SIGKILL)
        eventually(lambda: s.job(waited).state is State.QUEUED)
        assert time.monotonic() - began < 0.5
        crashed, innocent = s.job(ran), s.job(waited)
        assert (crashed.state, crashed.crashes, crashed.losses, crashed.suspect) == (State.QUEUED, 1, 1, True)
        assert (innocent.crashes, innocent.losses, innocent.suspect, innocent.attempt) == (0, 0, False, 0)
        assert "signal 9" in s.do(s.opened.store.attempts(ran.id))[0].reason
        assert first.id not in {m.id for m in s.running(2)}

    assert Session().run(driver) == 0


def test_several_that_ran_are_suspects_and_a_quarantine_worker_takes_them() -> None:
    """I6: nobody is charged for a neighbour's crash; each runs next, alone."""

    def driver(s: Session) -> None:
        [first] = s.running(1)
        jobs = s.claimed(first, 3)
        for slot, job in enumerate(jobs):
            first.table.begin(slot, job.id, job.fence)
        os.kill(first.pid, signal.SIGSEGV)
        [quarantine] = s.running(1, quarantine=True)
        assert all(s.job(job).suspect and s.job(job).crashes == 0 for job in jobs)
        info = {w.id: w.state for w in s.do(s.opened.store.workers())}
        assert info[quarantine.id] == "quarantine"
        [again] = s.claimed(quarantine, 1, suspects=True)
        quarantine.table.begin(0, again.id, again.fence)
        os.kill(quarantine.pid, signal.SIGKILL)
        eventually(lambda: s.job(again).crashes == 1)
        assert s.running(1, quarantine=True) != [quarantine]

    assert Session(processes=1).run(driver) == 0


def test_an_idle_worker_becomes_the_quarantine_worker() -> None:
    """I8: a suspect does not wait until another process has loaded the application."""

    def driver(s: Session) -> None:
        first, second = s.running(2)
        [job] = s.claimed(first)
        first.table.begin(0, job.id, job.fence)
        os.kill(first.pid, signal.SIGKILL)
        eventually(lambda: second.quarantine)
        assert second.pid not in {m.pid for m in s.running(2)}

    assert Session().run(driver) == 0


def test_hints_are_passed_on_once_and_none_is_lost() -> None:
    def driver(s: Session) -> None:
        [member] = s.running(1)
        eventually(lambda: member.table.busy >= 1)  # made up for: there was no looking before it was ready
        seen = member.table.busy
        for _ in range(200):
            s.do(s.opened.store.enqueue([new_job()]))
            s.opened.shell.hint()
        eventually(lambda: member.table.busy > seen)
        time.sleep(0.2)
        assert member.table.busy - seen < 50  # it looked for 20 ms at a time, and was not told meanwhile

    assert Session(processes=1, look=0.02, count_wakes=True).run(driver) == 0


def test_a_hint_wakes_every_worker_that_waits() -> None:
    def driver(s: Session) -> None:
        members = s.running(2)
        eventually(lambda: all(member.wants for member in members))
        seen = [member.table.busy for member in members]
        s.opened.shell.hint()
        eventually(lambda: all(m.table.busy > before for m, before in zip(members, seen, strict=True)))

    assert Session(processes=2, count_wakes=True).run(driver) == 0


def test_a_worker_that_will_not_stop_is_killed_and_its_jobs_are_not_charged() -> None:
    """I26: handed back without costing an attempt; the exit code says that it was not clean."""
    job = None

    def driver(s: Session) -> None:
        nonlocal job
        [member] = s.running(1)
        [job] = s.claimed(member)
        member.table.begin(0, job.id, job.fence)

    s = Session(processes=1, stop_timeout=0.2, stubborn=True)
    assert s.run(driver) == 1
    after = s.job(job)
    assert (after.state, after.attempt, after.crashes, after.losses, after.suspect) == (State.QUEUED, 0, 0, 0, False)


def test_a_second_signal_ends_patience() -> None:
    def driver(s: Session) -> None:
        s.running(1)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # the same one, passed on by a wrapper
        eventually(lambda: s.supervisor._stopping == 1)
        time.sleep(SAME_SIGNAL + 0.05)
        assert s.supervisor._stopping == 1
        os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    assert Session(processes=1, stop_timeout=60.0, stubborn=True).run(driver) == 1
    assert time.monotonic() - began < 5


def test_a_stop_does_not_wait_for_a_store_that_was_away_before_it() -> None:
    """I26: a worker whose jobs the store has not taken back yet is left to the next supervisor."""

    def driver(s: Session) -> None:
        [member] = s.running(1)
        away = s.opened.shell = Away(s.opened.shell)
        away.away = True
        os.kill(member.pid, signal.SIGKILL)
        eventually(lambda: member.burying)
        s.stop()
        try:
            eventually(lambda: not s.members, LAST_WORDS * 2)
        finally:
            away.away = False

    assert Session(processes=1).run(driver) == 0


def test_an_application_that_cannot_be_loaded_ends_the_supervisor(capfd: object) -> None:
    assert Session(broken="there is no module `shop`").run(lambda s: eventually(lambda: s.supervisor._stopping)) == 2


def test_a_store_that_each_process_has_for_itself_ends_the_supervisor() -> None:
    s = Session(shared=False)
    assert s.run(lambda s: eventually(lambda: s.supervisor._stopping)) == 2
    assert s.do(s.opened.store.workers()) == []


def test_a_worker_that_dies_as_it_starts_is_tried_again_later(tmp_path: Path) -> None:
    def driver(s: Session) -> None:
        s.running(1)
        assert s.supervisor._crew._failures == 1

    assert Session(processes=1, die_once=str(tmp_path / "died")).run(driver) == 0


def test_a_taken_worker_is_replaced() -> None:
    """I4: whose jobs were taken over must not go on under the same name."""

    def driver(s: Session) -> None:
        from windlass.ports.store import Death

        [member] = s.running(1)
        s.do(s.opened.store.reap([Death(worker=member.id, observed=True)]))
        [other] = eventually(lambda: [m for m in s.running(1) if m is not member])
        assert other.id != member.id

    assert Session(processes=1, hold=0.6).run(driver) == 0


def test_a_stuck_job_costs_its_worker_but_not_its_neighbours() -> None:
    """A thread cannot be killed alone: drain, replace, kill, and charge the stuck one only."""

    def driver(s: Session) -> None:
        [member] = s.running(1)
        stuck, neighbour = s.claimed(member, 2)
        member.table.begin(0, stuck.id, stuck.fence, now_ns() + 50_000_000)
        member.table.begin(1, neighbour.id, neighbour.fence, now_ns() + 10**12)
        eventually(lambda: member.condemned_at)
        [replacement] = eventually(lambda: [m for m in s.running(1) if m is not member])
        assert member.alive
        member.table.end(1)  # the neighbour finished, and was settled
        eventually(lambda: not member.alive)
        eventually(lambda: s.job(stuck).state is State.RETRYING)
        assert s.do(s.opened.store.attempts(stuck.id))[0].reason == "hard_timeout"
        after = s.job(neighbour)
        assert (after.state, after.attempt, after.losses) == (State.QUEUED, 0, 0)
        assert replacement.alive

    assert Session(processes=1, stubborn=True, stop_timeout=0.1).run(driver) in (0, 1)


def test_orphans_are_gone_before_the_job_runs_again() -> None:
    """An ffmpeg that a job started must not write the same file as its successor's."""

    def driver(s: Session) -> None:
        [member] = s.running(1)
        [job] = s.claimed(member)
        member.table.begin(0, job.id, job.fence)
        time.sleep(0.1)
        began = time.monotonic()
        os.kill(member.pid, signal.SIGKILL)
        eventually(lambda: s.job(job).state is State.QUEUED)
        assert 0.3 < time.monotonic() - began < 2.0

    assert Session(processes=1, orphan=0.6).run(driver) == 0


def test_nobody_takes_a_dead_worker_over_while_its_supervisor_buries_it(tmp_path: Path) -> None:
    """I6 and I8: only its supervisor knows that the job ran alone, and waits for what it had started."""

    def driver(s: Session) -> None:
        [member] = s.running(1)
        [job] = s.claimed(member)
        member.table.begin(0, job.id, job.fence)
        [orphan] = eventually(lambda: descendants(member.pid))
        os.kill(member.pid, signal.SIGKILL)
        eventually(lambda: not member.alive)
        another = Judge(s.opened, str(tmp_path), 1.0, list, lambda: None)
        another.tick()
        assert s.job(job).state is State.RUNNING
        os.kill(orphan, signal.SIGKILL)
        eventually(lambda: s.job(job).state is State.QUEUED)
        assert s.job(job).crashes == 1

    assert Session(str(tmp_path), processes=1, orphan=60).run(driver) == 0


def test_a_dead_worker_is_beaten_for_until_its_burial() -> None:
    """Where leases judge, the wait for what its jobs started must not look like silence."""

    def driver(s: Session) -> None:
        [member] = s.running(1)
        [orphan] = eventually(lambda: descendants(member.pid))
        [job] = s.claimed(member)
        member.table.begin(0, job.id, job.fence)
        os.kill(member.pid, signal.SIGKILL)
        eventually(lambda: not member.alive)
        [dead] = [w for w in s.do(s.opened.store.workers()) if w.id == member.id]
        eventually(lambda: next(w for w in s.do(s.opened.store.workers()) if w.id == dead.id).beat_at > dead.beat_at)
        assert s.job(job).state is State.RUNNING
        os.kill(orphan, signal.SIGKILL)
        eventually(lambda: s.job(job).crashes == 1)

    assert Session(processes=1, orphan=60, hold=0.6).run(driver) == 0


def test_the_lock_is_held_until_the_worker_is_buried_and_removed_with_it(tmp_path: Path) -> None:
    def driver(s: Session) -> None:
        [member] = s.running(1)
        assert lockfile.exists(str(tmp_path), member.id)
        assert lockfile.obtain(str(tmp_path), member.id) is None
        os.kill(member.pid, signal.SIGKILL)
        eventually(lambda: not lockfile.exists(str(tmp_path), member.id))

    assert Session(str(tmp_path), processes=1).run(driver) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_dead_of_another_supervisor_are_taken_over_by_their_lock(tmp_path: Path) -> None:
    from windlass.ports.store import WorkerReport

    s = Session(str(tmp_path), processes=1, hold=0.6)
    ghost, alive = "w-ghost", "w-alive"
    lockfile.create(str(tmp_path), ghost).close()
    held_by_another = lockfile.create(str(tmp_path), alive)
    for worker in (ghost, alive):
        s.do(s.opened.store.beat([WorkerReport(id=worker, supervisor="s", host="h", pid=1, hold=60_000_000)]))

    def driver(s: Session) -> None:
        s.running(1)
        eventually(lambda: not lockfile.exists(str(tmp_path), ghost))
        known = {w.id for w in s.do(s.opened.store.workers()) if not w.taken}
        assert ghost not in known
        assert alive in known

    try:
        assert s.run(driver) == 0
    finally:
        held_by_another.remove()


def test_a_process_slot_is_handed_over_and_killed_alone() -> None:
    def driver(s: Session) -> None:
        [member] = s.running(1)
        pool = s.supervisor._pool
        [slot] = eventually(lambda: [each for each in list(pool._slots.values()) if each.owner is member])
        [job] = s.claimed(member)
        member.table.begin(0, job.id, job.fence, now_ns() + 50_000_000, slot.pid)
        eventually(lambda: slot.pid not in pool.pids)
        eventually(lambda: member.table.held()[1] != 0)
        assert member.alive

    assert Session(processes=1, needs_slot=True).run(driver) == 0


# --- workers that no longer answer -----------------------------------------------------------------------------------


def test_a_worker_that_does_not_turn_is_asked_for_its_stacks_and_left_alone() -> None:
    """A long computation is no crime."""

    def driver(s: Session) -> None:
        [member] = s.running(1)
        [job] = s.claimed(member)
        member.table.begin(0, job.id, job.fence)
        member.table.turned = 1  # as long ago as can be, however young the machine is
        eventually(lambda: member.stalled)
        time.sleep(0.6)
        assert member.alive
        member.table.turned = now_ns()
        eventually(lambda: not member.stalled)

    assert Session(processes=1).run(driver) == 0


def _long_well(s: Session) -> bool:
    """Said again and again: on a busy machine one late beat makes it "since now"."""
    s.supervisor._limits._well_since = now_ns() - 8 * 10**9
    return True


def _long_deaf(member: Member) -> bool:
    """The stand-in for a worker turns now and then."""
    member.table.turned = now_ns() - 8 * 10**9
    return True


@pytest.mark.parametrize("unsettled", [False, True])
def test_it_is_killed_if_that_was_asked_for_or_if_finished_work_stays_in_it(unsettled: bool) -> None:
    def driver(s: Session) -> None:
        [member] = s.running(1)
        [job] = s.claimed(member)
        member.table.begin(0, job.id, job.fence)
        if unsettled:
            member.table.unsettled_since = now_ns() - 8 * 10**9
        eventually(lambda: _long_well(s) and _long_deaf(member) and not member.alive)
        eventually(lambda: s.job(job).suspect)

    limits = {"hold": 3.0} if unsettled else {"stall_timeout": 7.0}
    assert Session(processes=1, **limits).run(driver) == 0


def test_one_that_turns_and_does_not_settle_is_killed_too_and_no_job_is_blamed() -> None:
    def driver(s: Session) -> None:
        [member] = s.running(1)
        [job] = s.claimed(member)
        member.table.begin(0, job.id, job.fence)
        member.table.turned = now_ns()
        member.table.unsettled_since = now_ns() - 8 * 10**9
        eventually(lambda: _long_well(s) and not member.alive)
        eventually(lambda: s.job(job).state is State.QUEUED)
        assert not s.job(job).suspect

    assert Session(processes=1, hold=3.0).run(driver) == 0


def test_what_could_not_be_settled_while_the_store_was_away_gets_time_once_it_is_back() -> None:
    def driver(s: Session) -> None:
        [member] = s.running(1)
        limits = s.supervisor._limits
        limits._healthy = lambda: False
        member.table.turned = now_ns()
        member.table.unsettled_since = now_ns() - 8 * 10**9
        limits._well_since = looked = 1
        eventually(lambda: limits._well_since > looked)
        limits._healthy = lambda: True
        looked = limits._looked
        eventually(lambda: limits._looked > looked)
        assert member.alive

    assert Session(processes=1, hold=3.0).run(driver) == 0


def test_after_a_pause_of_its_own_the_supervisor_judges_nobody_at_once() -> None:
    """The whole tree was stopped (a laptop's lid, SIGSTOP): everybody gets a moment to turn first."""

    def driver(s: Session) -> None:
        [member] = s.running(1)
        s.supervisor._limits._looked -= 3600 * 10**9
        member.table.turned = 1  # as long ago as can be, however young the machine is
        time.sleep(1.2)
        assert member.alive
        assert not member.stalled
        member.table.turned = now_ns()

    assert Session(processes=1, stall_timeout=7.0).run(driver) == 0


def test_a_worker_that_talks_nonsense_is_replaced() -> None:
    def driver(s: Session) -> None:
        eventually(lambda: s.supervisor._crew._failures >= 2)

    assert Session(processes=1, nonsense=True).run(driver) == 0
