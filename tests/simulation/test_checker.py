"""The checker, told of what no planted violation is made for: scenes that one life in thousands comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from windlass.core.flow import Bounds, Line
from windlass.core.job import Meta, NewJob, State, UniqueKey
from windlass.core.machine import cancel
from windlass.ports.plan import drive
from windlass.ports.store import (
    BeatAnswer,
    ClaimRequest,
    Death,
    Enqueued,
    Filter,
    QueueChange,
    Quota,
    Selected,
    Selection,
    WorkerReport,
)
from windlass.stores.memory import MemoryStore
from windlass.stores.memory.tables import Owner, Row
from windlass.stores.memory.unique import place_of
from windlass.testing.simulation.checker import Checker
from windlass.testing.simulation.ledger import Commit, Ledger
from windlass.testing.simulation.world import Dump

SECOND = 1_000_000


class Scene:
    """A store, its clock, and the checker, which judges every answer."""

    def __init__(self, make: type[MemoryStore] = MemoryStore) -> None:
        self.store = make()
        self.now = 1_000 * SECOND
        self.ledger = Ledger()
        self.checker = Checker(self.ledger, Dump({}, {}, [], 0, []))
        self._made = 0

    def do(self, operation: str, *given: Any) -> Any:
        """One operation, committed."""
        answer = drive(iter(getattr(self.store, operation)(*given)), lambda _: [(self.now,)])
        self.store.data.commit()
        when = self.now / SECOND
        self.ledger.commit(Commit(self.now, when, when, "scene", operation, given, answer))
        self.checker.judge(self.ledger.lines[-1])
        return answer

    def over(self) -> list[str]:
        """What is said in the end, of all of it."""
        data = self.store.data
        jobs = {id: row.as_job() for id, row in data.jobs.items()}
        dump = Dump(jobs, {id: list(data.attempts.get(id, ())) for id in jobs}, [], self.now, [])
        return Checker(self.ledger, dump).check()

    def job(self, unique: UniqueKey | None = None, *, parent: str = "", **given: Any) -> NewJob:
        """A new one, to be enqueued."""
        self._made += 1
        meta = msgspec.json.encode(Meta(unique=unique, parent_id=parent)).decode()
        return NewJob(id=f"job-{self._made}", task="t", payload="[[],{}]", meta=meta, **given)

    def enqueue(self, unique: UniqueKey | None = None, **given: Any) -> Enqueued:
        """A new job."""
        [answer] = self.do("enqueue", [self.job(unique, **given)])
        return answer

    def revive(self, *ids: str) -> Selected:
        """These, again."""
        return self.do("revive", Selection(ids))

    def cancel(self, id: str) -> None:
        """The end of a job, without a worker."""
        self.do("cancel", Selection((id,)))

    def step(self, microseconds: int) -> None:
        """The store's clock is set."""
        self.ledger.fault(self.now / SECOND, "scene", "clock stepped", microseconds, self.now)
        self.now += microseconds

    def claim(self, worker: str = "w") -> None:
        """Whatever there is."""
        report = WorkerReport(id=worker, supervisor="s", host="h", pid=1, hold=SECOND, queues=("default",), tasks=(),
                              slots=9, busy=0, held=0, held_hash=0, state="running")  # fmt: skip
        self.do("beat", [report])
        self.do("claim", worker, 1, ClaimRequest(9, (Quota("default", 9),)))


def by(policy: str, **more: int) -> UniqueKey:
    """The one key of these scenes."""
    return UniqueKey("k", policy, **more)


# --- revived past its expiry, of which nobody is told ----------------------------------------------------------------


def revived_late(scene: Scene, swept: str) -> Enqueued:
    """It may have expired before somebody revived it, or after, or not yet; then another comes."""
    first = scene.enqueue(by("reject"), after=10 * SECOND, expires_after=SECOND)
    scene.now += 2 * SECOND
    for moment in ("before", "after"):
        if swept == moment:
            scene.do("promote", 100)
        if moment == "before":
            assert scene.revive(first.id).changed == (first.id,)
    answer = scene.enqueue(by("keep-last"))
    scene.claim()
    return answer


@pytest.mark.parametrize(("swept", "inserted"), [("before", False), ("after", True), ("never", False)])
def test_one_that_is_revived_past_its_expiry_may_expire_yet(swept: str, inserted: bool) -> None:
    """Seed 31621795: that it was revived does not say that it had expired."""
    scene = Scene()
    assert revived_late(scene, swept).inserted is inserted
    assert scene.checker.violations == []


def test_one_that_is_revived_past_its_expiry_may_begin_anew() -> None:
    """What it lost before is not counted then, and nobody says so if it never runs again."""
    scene = Scene()
    job = scene.enqueue(expires_after=SECOND).id
    scene.claim()
    scene.do("reap", [Death(worker="w", observed=True)])
    scene.now += 2 * SECOND
    scene.do("promote", 100)
    assert scene.revive(job).changed == (job,)
    scene.cancel(job)
    assert scene.over() == []


def test_one_that_began_anew_has_no_expiry() -> None:
    """Though the clock was set back before its next run, which says that it did."""
    scene = Scene()
    job = scene.enqueue(expires_after=SECOND).id
    scene.now += 2 * SECOND
    scene.do("promote", 100)
    scene.step(-2 * SECOND)
    scene.revive(job)
    scene.claim("w1")
    scene.do("reap", [Death(worker="w1", observed=True, stopped=True)])
    scene.now += 5 * SECOND
    scene.claim("w2")
    scene.cancel(job)
    scene.do("reap", [Death(worker="w2", observed=True, stopped=True)])
    assert scene.over() == []


class KeysForAll(MemoryStore):
    """A unique key keeps nobody out."""

    def _keeps_out(self, entry: Owner, unique: UniqueKey, now: int) -> bool:
        return False


@pytest.mark.parametrize("swept", ["before", "never"])
def test_that_it_may_have_expired_does_not_let_two_live(swept: str) -> None:
    """If another has its key it must have, and does not run."""
    scene = Scene(KeysForAll)
    assert revived_late(scene, swept).inserted
    found = [text.split()[0] for text in scene.checker.violations]
    assert found == (["I2", "I10"] if swept == "before" else [])  # never: it is past its time, and no claim grants it


# --- revived within the window of another ----------------------------------------------------------------------------


def revived_in_a_window(scene: Scene, *, own: bool) -> tuple[str, Enqueued]:
    """Who was revived and has ended again, and the answer to a throttle after that."""
    throttle = by("throttle", window=10 * SECOND)
    old = scene.enqueue(throttle if own else by("reject")).id
    scene.cancel(old)
    if not own:
        scene.cancel(scene.enqueue(throttle).id)
    scene.revive(old)
    scene.cancel(old)
    return old, scene.enqueue(throttle)


@pytest.mark.parametrize("own", [True, False])
def test_the_rest_of_a_window_goes_with_the_key(own: bool) -> None:
    """Seed 31628339: to whoever is revived within it."""
    scene = Scene()
    old, answer = revived_in_a_window(scene, own=own)
    assert answer == Enqueued(old, inserted=False)
    assert scene.checker.violations == []


class WindowsEndWithRevivals(MemoryStore):
    """A job that is revived has the key, and no window."""

    def _take_key(self, row: Row) -> None:
        super()._take_key(row)
        place = place_of(row)
        if place:
            self.data.owners[place] = Owner(row.new.id)


@pytest.mark.parametrize("own", [True, False])
def test_a_window_that_ends_with_a_revival_is_found(own: bool) -> None:
    scene = Scene(WindowsEndWithRevivals)
    revived_in_a_window(scene, own=own)
    assert [text[:4] for text in scene.checker.violations] == ["I10 "]


# --- revived for the first time --------------------------------------------------------------------------------------


def shed(scene: Scene, count: int) -> list[str]:
    """Jobs with one idempotency key, none of which had it: their queue was full."""
    scene.do("queues", [QueueChange("default", bounds=Bounds(depth=1, shed=True))])
    scene.enqueue()
    return [scene.enqueue(idempotency_key="i", digest="d").id for _ in range(count)]


def test_what_was_shed_has_its_key_once_it_is_revived() -> None:
    """Seed 872162951: then it answers for it."""
    scene = Scene()
    [job] = shed(scene, 1)
    scene.revive(job)
    assert scene.enqueue(idempotency_key="i", digest="d") == Enqueued(job, inserted=False)
    assert scene.enqueue(idempotency_key="i", digest="e") == Enqueued(job, inserted=False, conflict=True)
    assert scene.checker.violations == []


def test_of_two_that_were_shed_one_is_revived() -> None:
    """By a filter, too, which finds all that may live."""
    for selection in (Selection(("job-2", "job-3")), Selection(filter=Filter(states=(State.CANCELLED,)))):
        scene = Scene()
        shed(scene, 2)
        assert len(scene.do("revive", selection).changed) == 1
        assert scene.checker.violations == []


class NoKeyTwice(MemoryStore):
    """What is revived does without its idempotency key."""

    def _take_idempotency_key(self, row: Row) -> None:
        pass


class KeysOfAll(MemoryStore):
    """Whose an idempotency key is by now is not asked."""

    def _may_have_idempotency_key(self, row: Row, now: int) -> bool:
        return True


def test_a_revival_without_its_key_is_found() -> None:
    scene = Scene(NoKeyTwice)
    scene.revive(*shed(scene, 1))
    scene.enqueue(idempotency_key="i", digest="d")
    assert [text[:4] for text in scene.checker.violations] == ["I10b"]


def test_a_revival_with_the_key_of_another_is_found() -> None:
    scene = Scene(KeysOfAll)
    first, second = shed(scene, 2)
    scene.revive(first)
    scene.revive(second)
    assert [text[:4] for text in scene.checker.violations] == ["I10b"]


# --- turned away -----------------------------------------------------------------------------------------------------


def too_late(scene: Scene) -> Enqueued:
    """The answer to a child of a parent that was cancelled with its children; it is for a queue that is full."""
    scene.do("queues", [QueueChange("full", bounds=Bounds(depth=1))])
    scene.enqueue(queue="full")
    parent = scene.enqueue().id
    scene.claim()
    scene.do("cancel", Selection((parent,), children=True))
    return scene.enqueue(parent=parent, queue="full")


def test_what_is_cancelled_as_it_comes_needs_no_place() -> None:
    """Seed 382527815."""
    scene = Scene()
    assert too_late(scene) == Enqueued("job-3", inserted=True)
    assert scene.checker.violations == []


class PlacesForAll(MemoryStore):
    """What is cancelled as it comes must find a place first."""

    def _enqueue(self, job: NewJob, now: int, line: Line | None = None, stopped: bool = False) -> Enqueued:
        full = line.take(job, now) if line and self._is_stopped(job) else None
        return self._turn_away(job, full, now) if full else super()._enqueue(job, now, line, stopped)


def test_a_child_that_is_turned_away_too_late_is_found() -> None:
    scene = Scene(PlacesForAll)
    assert too_late(scene).full
    [found] = scene.checker.violations
    assert "is cancelled as it comes, and is turned away" in found


def leaves_a_full_queue(scene: Scene) -> list[str]:
    """Whoever fills it leaves it, as another in its place is for another queue; then come two more, as a batch does."""
    scene.do("queues", [QueueChange("full", bounds=Bounds(depth=1))])
    scene.enqueue(by("keep-last"), queue="full")
    batch = [scene.job(by("keep-last")), scene.job(queue="full")]
    assert [bool(answer.full) for answer in scene.do("enqueue", batch)] == [False, True]
    scene.enqueue(queue="full")
    return scene.checker.violations


def test_how_full_a_queue_is_is_looked_at_before_the_batch() -> None:
    """Seed 71001271, with five times as many unique jobs: who leaves it with the batch has filled it."""
    assert leaves_a_full_queue(Scene()) == []


class CountsTheLeft(MemoryStore):
    """Whoever left a queue fills it for good."""

    def _line(self, jobs: Sequence[NewJob], now: int) -> Line:
        found = super()._line(jobs, now)
        for queue in found.bounds if self.data.merged else ():
            found.looks(queue, 1, 0)
        return found


def test_who_left_before_the_batch_is_not_counted() -> None:
    [found] = leaves_a_full_queue(Scene(CountsTheLeft))
    assert found.startswith("bounds at")
    assert "is turned away where 0 wait and 1 may" in found


# --- a beat beside a settle ------------------------------------------------------------------------------------------


def told_of_one_that_is_settled(began: float) -> list[str]:
    """A beat that tells of a job that was asked to cancel, and was settled meanwhile, or `began` seconds before."""
    scene = Scene()
    id = scene.enqueue().id
    scene.claim()
    scene.cancel(id)
    [token] = scene.do("held", "w")
    scene.do("settle", "w", [cancel(token, "asked", 0)])
    settled = scene.now / SECOND
    scene.now += SECOND
    report = WorkerReport(id="w", supervisor="s", host="h", pid=1, hold=SECOND)
    answer = BeatAnswer(id="w", taken=False, cancel=(id,), mismatch=False, lease_until=scene.now + SECOND)
    when = scene.now / SECOND
    scene.ledger.commit(Commit(scene.now, settled - began, when, "scene", "beat", ([report],), [answer]))
    scene.checker.judge(scene.ledger.lines[-1])
    return scene.checker.violations


def test_a_beat_may_tell_of_what_was_settled_beside_it() -> None:
    """Seed 622690769 on PostgreSQL, where the two are not one after the other."""
    assert told_of_one_that_is_settled(0.5) == []


def test_a_beat_that_tells_of_what_was_settled_before_it_is_found() -> None:
    [found] = told_of_one_that_is_settled(-0.5)
    assert found.startswith("I13 at")
