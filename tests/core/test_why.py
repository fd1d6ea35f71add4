"""Every job that is not running has one cause, and it is the first thing that somebody would have to change."""

from __future__ import annotations

import typing

import msgspec
import pytest

from windlass.core.job import Attempt, ErrorInfo, Job, Meta, Policy, State
from windlass.core.why import _STATES, Cause, explain
from windlass.ports.store import Why, WorkerInfo

NOW = 1_795_000_000_000_000  # 2026-11-18T11:06:40Z
SECOND = 1_000_000
ID = "019d8e3c-1111-7000-8000-000000000001"

PLAIN: dict[str, typing.Any] = {
    "id": ID, "task": "mail.send", "version": 1, "tenant": "", "queue": "mail", "state": State.QUEUED, "reason": None,
    "priority": 50, "created_at": NOW - 60 * SECOND, "due_at": NOW - 60 * SECOND, "expires_at": None,
    "payload": "[[],{}]", "meta": "{}", "attempt": 0, "crashes": 0, "losses": 0, "suspect": False, "fence": 0,
    "worker": None, "started_at": None, "finished_at": None, "cancelling": False, "result": None,
    "result_expired": False, "error": None, "progress": None,
}  # fmt: skip


def job(**fields: object) -> Job:
    return Job(**{**PLAIN, **fields})


def worker(name: str = "w1", **fields: object) -> WorkerInfo:
    plain: dict[str, typing.Any] = {
        "id": name, "supervisor": "s1", "host": "here", "pid": 1, "state": "running", "slots": 4, "busy": 0,
        "queues": ("mail",), "tasks": ("mail.send",), "started_at": NOW - 600 * SECOND, "beat_at": NOW - SECOND,
        "lease_until": NOW + 14 * SECOND, "taken": False,
    }  # fmt: skip
    return WorkerInfo(**{**plain, **fields})


def why(
    of: Job, *workers: WorkerInfo, paused: bool = False, ahead: int = 0, attempts: tuple[Attempt, ...] = ()
) -> Cause:
    return explain(Why(job=of, now=NOW, paused=paused, ahead=ahead, workers=workers, attempts=attempts))


def error(kind: str, message: str = "", trace: str = "") -> str:
    return msgspec.json.encode(ErrorInfo(kind, message, trace)).decode()


def meta(**policy: object) -> str:
    return msgspec.json.encode(Meta(policy=Policy(**policy))).decode()


# --- waiting for a time ---------------------------------------------------------------------------------------


def test_scheduled_until() -> None:
    cause = why(job(state=State.SCHEDULED, due_at=NOW + 600 * SECOND), worker())
    assert cause.code == "scheduled"
    assert cause.sentence == "scheduled until 2026-11-18T11:16:40.000Z (in 10m)"
    assert cause.facts == {"due_at": "2026-11-18T11:16:40.000Z", "due_in": 600.0}


def test_scheduled_says_what_will_stop_it_then() -> None:
    cause = why(job(state=State.SCHEDULED, due_at=NOW + 600 * SECOND), worker(), paused=True)
    assert cause.code == "scheduled"
    assert cause.facts["then"] == "queue_paused"
    assert cause.sentence.endswith("; as things stand it will wait even then: queue 'mail' is paused")


def test_scheduled_but_due_is_told_as_queued() -> None:
    assert why(job(state=State.SCHEDULED, due_at=NOW - 1), worker()).code == "next"
    assert why(job(state=State.RETRYING, due_at=NOW, reason="failed"), worker(), paused=True).code == "queue_paused"


def test_snoozed_until() -> None:
    cause = why(job(state=State.SCHEDULED, reason="snoozed", due_at=NOW + 90 * SECOND), worker())
    assert (cause.code, cause.facts["due_in"]) == ("snoozed", 90.0)
    cause = why(job(state=State.SCHEDULED, reason="bank is closed", due_at=NOW + 90 * SECOND), worker())
    assert cause.sentence == "put off until 2026-11-18T11:08:10.000Z (in 1m 30s): bank is closed"


def test_retrying_until_after_which_error() -> None:
    waits = job(
        state=State.RETRYING, reason="failed", due_at=NOW + 4 * SECOND, attempt=3, meta=meta(max_attempts=7),
        error=error("requests.HTTPError", "503 Server Error\nsecond line"),
    )  # fmt: skip
    cause = why(waits, worker())
    assert cause.code == "retrying"
    assert cause.sentence == (
        "retrying until 2026-11-18T11:06:44.000Z (in 4s), after attempt 3 of 7 failed with "
        "requests.HTTPError: 503 Server Error"
    )
    assert cause.facts["attempt"] == 3
    assert cause.facts["max_attempts"] == 7


def test_records_that_cannot_be_read_do_not_hide_the_cause() -> None:
    """I23: a row written by a version that knew more is still explained."""
    broken = job(state=State.RETRYING, due_at=NOW + SECOND, attempt=1, meta="[]", error="nonsense")
    assert why(broken, worker()).code == "retrying"


# --- parked: nobody could run it ------------------------------------------------------------------------------


def test_parked_for_an_unknown_task() -> None:
    """I22: unknown is parked, visibly."""
    parked = job(state=State.SCHEDULED, reason="unknown_task", due_at=NOW + 32 * SECOND)
    cause = why(parked, worker(tasks=("other",)))
    assert cause.code == "unknown_task"
    assert cause.sentence == (
        "no worker knows task 'mail.send'; 1 worker serves queue 'mail' without it; "
        "it is looked at again at 2026-11-18T11:07:12.000Z (in 32s)"
    )


def test_parked_for_an_unknown_version() -> None:
    parked = job(state=State.SCHEDULED, reason="unknown_version", version=3, due_at=NOW + 32 * SECOND)
    cause = why(parked, worker(tasks=("mail.send@2",)))
    assert cause.code == "unknown_version"
    assert "no worker knows version 3 of task 'mail.send': the newest known is 2" in cause.sentence


def test_parked_although_a_worker_has_come_that_can() -> None:
    parked = job(state=State.SCHEDULED, reason="unknown_version", version=3, due_at=NOW + 32 * SECOND)
    cause = why(parked, worker(tasks=("mail.send@3",)))
    assert cause.code == "unknown_version"
    assert cause.sentence.startswith("the workers that saw it did not know version 3 of task 'mail.send'; one that does")


def test_a_handler_may_say_the_words_that_mean_parked() -> None:
    waits = job(state=State.SCHEDULED, reason="unknown_task", due_at=NOW + 90 * SECOND)
    said = Attempt(1, 7, "w1", NOW - 9, NOW - 5, "snoozed", "unknown_task")
    cause = why(waits, worker(), attempts=(said,))
    assert (cause.code, cause.sentence.rpartition(": ")[2]) == ("snoozed", "unknown_task")
    handed_back = msgspec.structs.replace(said, outcome="released")
    assert why(waits, worker(), attempts=(said, handed_back)).code == "unknown_task"


# --- due ------------------------------------------------------------------------------------------------------


def test_queue_paused() -> None:
    cause = why(job(), worker(), paused=True)
    assert (cause.code, cause.sentence) == ("queue_paused", "queue 'mail' is paused")


def test_no_worker_alive() -> None:
    assert why(job()).sentence == "no worker is alive"
    silent = worker(lease_until=NOW - 90 * SECOND)
    cause = why(job(), silent)
    assert (cause.code, cause.facts["workers"]) == ("no_workers", 0)
    assert cause.sentence == (
        "no worker is alive; the lease of the last one lapsed at 2026-11-18T11:05:10.000Z (1m 30s ago): "
        "it is stopped, stuck or gone"
    )
    assert cause.facts["lapsed_at"] == "2026-11-18T11:05:10.000Z"


def test_a_supervisor_that_lives_is_not_the_last_worker_that_did() -> None:
    assert why(job(), worker(slots=0)).sentence == "no worker is alive"


def test_a_supervisor_is_no_worker() -> None:
    assert why(job(), worker(slots=0)).code == "no_workers"
    assert why(job(), worker(state="quarantine")).code == "no_workers"


def test_no_worker_serves_the_queue() -> None:
    cause = why(job(), worker("w1", queues=("default",)), worker("w2", queues=("default", "video:3")))
    assert cause.code == "queue_unserved"
    assert cause.sentence == "no worker serves queue 'mail' (2 workers alive, for 'default', 'video')"
    assert cause.facts == {"queue": "mail", "workers": 2, "served": ["default", "video"]}


def test_no_worker_knows_the_task() -> None:
    cause = why(job(), worker(tasks=("mail.sendmore", "other@2")), worker("w2", tasks=()))
    assert cause.code == "unknown_task"
    assert cause.sentence == "no worker knows task 'mail.send'; 2 workers serve queue 'mail' without it"


def test_no_worker_knows_the_version() -> None:
    cause = why(job(version=3), worker(tasks=("mail.send",)), worker("w2", tasks=("mail.send@2",)))
    assert cause.code == "unknown_version"
    assert cause.facts["known"] == 2


def test_an_at_sign_in_a_task_name_is_no_version() -> None:
    assert why(job(task="a@b"), worker(tasks=("a@b",))).code == "next"
    assert why(job(task="a@b", version=2), worker(tasks=("a@b@2",))).code == "next"


def test_workers_stopping() -> None:
    cause = why(job(), worker(state="draining"))
    assert cause.code == "workers_stopping"


def test_slots_full_and_place_in_line() -> None:
    cause = why(job(), worker(busy=4), worker("w2", busy=4), ahead=11)
    assert cause.code == "slots_full"
    assert cause.sentence == "all 8 slots of 2 workers are busy, with 11 jobs of queue 'mail' before it"
    assert (cause.facts["place"], cause.facts["free"]) == (12, 0)


def test_slots_of_workers_that_cannot_run_it_do_not_count() -> None:
    others = worker("w2", queues=("other",)), worker("w3", tasks=("other",)), worker("w4", state="draining")
    cause = why(job(), worker(busy=1, slots=1), *others, worker("w5", lease_until=NOW - 1))
    assert cause.code == "slots_full"
    assert cause.sentence.startswith("the only slot of the only worker is busy")


def test_a_long_line_is_counted_no_further() -> None:
    assert "with 10,000 or more jobs of queue" in why(job(), worker(), ahead=10_000).sentence


def test_in_line_and_next() -> None:
    assert why(job(), worker(busy=1), ahead=1).sentence == "in line, with 1 job of queue 'mail' before it"
    cause = why(job(), worker(busy=1))
    assert cause.code == "next"
    assert cause.sentence == "next of queue 'mail': a worker with a free slot is about to take it"


def test_a_start_hook_that_does_not_return() -> None:
    starting = worker(state="starting", started_at=NOW - 40 * SECOND)
    cause = why(job(), starting, worker("w2", queues=("other",)), worker("w3", tasks=()), worker("w4", state="draining"))
    assert cause.code == "worker_starting"
    assert cause.sentence == (
        "worker w1 serves queue 'mail' and cannot claim yet: it has been starting for 40s, and its start hook has not "
        "returned"
    )
    assert cause.facts == {"queue": "mail", "worker": "w1", "workers": 1, "starting_for": 40.0}
    assert why(job(), starting, worker("w2")).code == "next"
    cause = why(job(), worker("w2", state="starting", started_at=NOW - SECOND), starting)
    assert "worker w1 serves queue 'mail' and cannot claim yet, nor can the 1 other: it has" in cause.sentence
    assert why(job(suspect=True), starting).code == "suspect"


def test_a_loop_that_does_not_turn() -> None:
    stalled = worker(state="stalled", busy=1)
    cause = why(job(), stalled)
    assert cause.code == "worker_stalled"
    assert cause.sentence == (
        "worker w1 serves queue 'mail' and cannot claim: its event loop does not turn, so something in it blocks"
    )
    assert cause.facts == {"queue": "mail", "worker": "w1", "workers": 1}
    assert why(job(), stalled, worker("w2")).code == "next"
    assert why(job(), stalled, worker("w2", state="starting")).facts["workers"] == 2
    then = why(job(state=State.SCHEDULED, due_at=NOW + SECOND), stalled)
    assert (then.code, then.facts["then"]) == ("scheduled", "worker_stalled")


def test_suspect_waiting_for_quarantine() -> None:
    lost = Attempt(1, 7, "w0", NOW - 9, NOW - 5, "lost", "killed by signal 11 (SIGSEGV)")
    cause = why(job(suspect=True, losses=1), worker(), attempts=(lost,))
    assert cause.code == "suspect"
    assert cause.sentence == (
        "suspect: a worker died while it ran (killed by signal 11 (SIGSEGV)), so it waits to run alone; "
        "a quarantine process has yet to be started"
    )
    busy = worker("q", state="quarantine", slots=1, busy=1)
    cause = why(job(suspect=True, losses=1), worker(), busy, ahead=3, attempts=(lost,))
    assert cause.sentence.endswith("so it waits to run alone, after 3 jobs; a quarantine process is at work")


def test_suspect_without_anybody_alive() -> None:
    assert why(job(suspect=True)).code == "no_workers"


def test_blocked() -> None:
    assert why(job(state=State.BLOCKED, reason="parents"), worker()).sentence == "blocked: parents"


# --- running, and ended ---------------------------------------------------------------------------------------

RUNS = {"state": State.RUNNING, "worker": "w1", "started_at": NOW - 12 * SECOND, "attempt": 2}


def test_running() -> None:
    cause = why(job(**RUNS), worker())
    assert cause.code == "running"
    assert cause.sentence == "running on worker w1 since 2026-11-18T11:06:28.000Z (12s), attempt 2"


def test_cancelling() -> None:
    cause = why(job(**RUNS, cancelling=True), worker())
    assert cause.code == "cancelling"
    assert cause.sentence.startswith("cancelling: it was asked to stop and still runs on worker w1")


def test_running_on_a_silent_worker() -> None:
    cause = why(job(**RUNS), worker(lease_until=NOW - 3 * SECOND))
    assert cause.code == "worker_silent"
    assert cause.sentence.endswith("whose lease lapsed 3s ago")


ENDED = {"finished_at": NOW - 5 * SECOND, "started_at": NOW - 7 * SECOND, "worker": "w1"}


def test_completed() -> None:
    cause = why(job(state=State.COMPLETED, attempt=2, **ENDED))
    assert cause.sentence == "completed at 2026-11-18T11:06:35.000Z in attempt 2 after running for 2s"


def test_cancelled() -> None:
    assert "before it started" in why(job(state=State.CANCELLED, reason="cancelled", finished_at=NOW)).sentence
    assert "while it ran" in why(job(state=State.CANCELLED, reason="cancelled", **ENDED)).sentence


def test_cancelled_and_expired_between_attempts() -> None:
    ran = Attempt(1, 7, "w1", NOW - 9, NOW - 5, "failed", "failed")
    put_off = Attempt(1, 7, "w1", NOW - 9, NOW - 5, "snoozed", "snoozed")
    cancelled = {"state": State.CANCELLED, "reason": "cancelled", "finished_at": NOW}
    expired = {"state": State.EXPIRED, "reason": "expired", "expires_at": NOW - 9 * SECOND, "finished_at": NOW}
    assert why(job(**cancelled, attempt=1), attempts=(ran,)).sentence.endswith(", after attempt 1")
    assert why(job(**cancelled), attempts=(put_off,)).sentence.endswith(", after a run that was not counted")
    assert why(job(**expired, attempt=1), attempts=(ran,)).sentence == (
        "expired: it was to start before 2026-11-18T11:06:31.000Z, and it ended after attempt 1, before the next"
    )
    assert "no worker had come to it by then" in why(job(**expired)).sentence


def test_expired() -> None:
    cause = why(job(state=State.EXPIRED, reason="expired", expires_at=NOW - 9 * SECOND, finished_at=NOW))
    assert cause.code == "expired"
    assert "it was to start before 2026-11-18T11:06:31.000Z" in cause.sentence


@pytest.mark.parametrize(
    ("reason", "outcome", "fields", "said"),
    [
        ("attempts_exhausted", "failed", {"attempt": 5}, "all 5 attempts that it was allowed were used, the last failed"),
        ("attempts_exhausted", "failed", {"attempt": 1}, "its only attempt failed: ValueError: no"),
        ("failed", "failed", {"attempt": 1}, "attempt 1 failed in a way that trying again cannot mend: ValueError: no"),
        ("hard_timeout", "failed", {"attempt": 2}, "cannot mend (hard_timeout)"),
        ("payload", "failed", {}, "its payload does not fit the task: ValueError: no"),
        ("crashed", "crashed", {"crashes": 3}, "it brought down its process 3 times, running alone"),
        ("lost_too_often", "lost", {"losses": 10}, "its worker was lost 10 times while it ran"),
        ("customer left", "discarded", {"attempt": 1}, "its handler gave it up in attempt 1: customer left"),
        ("result_unserialisable", "failed", {}, "what it returned cannot be stored: ValueError: no"),
        ("result_too_large", "failed", {}, "what it returned is too large to be stored"),
        ("{job.meta}", "failed", {}, "({job.meta})"),
    ],
)  # fmt: skip
def test_dead_and_why(reason: str, outcome: str, fields: dict[str, object], said: str) -> None:
    ended = Attempt(1, 7, "w1", NOW - 9, NOW - 5, outcome, reason)
    cause = why(job(state=State.DEAD, reason=reason, error=error("ValueError", "no"), **ENDED, **fields), attempts=(ended,))
    assert cause.code == "dead"
    assert cause.sentence.startswith("dead since 2026-11-18T11:06:35.000Z: ")
    assert said in cause.sentence
    assert cause.facts["reason"] == reason


def test_every_state_has_a_cause() -> None:
    assert set(_STATES) == set(State)
    for state in State:
        assert why(job(state=state)).sentence
