"""The judge of limits (I9) and of queues: never more running under a key, or in a queue, than its number; nothing from
a queue that is paused; nothing into one that is full, and nothing turned away from one that is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from windlass.core.flow import Bounds
from windlass.testing.simulation.judge import Judge
from windlass.testing.simulation.known import Known

if TYPE_CHECKING:
    from windlass.core.job import NewJob
    from windlass.ports.store import Enqueued, QueueChange
    from windlass.testing.simulation.checker import Checker
    from windlass.testing.simulation.ledger import Commit


class Permits(Judge):
    """See the head of this file."""

    def __init__(self, checker: Checker) -> None:
        super().__init__(checker)
        self._limits: dict[str, int] = {}
        """Of queues, as operators have set them."""
        self._bounds: dict[str, list[tuple[float, Bounds]]] = {}
        """Of each queue, every one that it had, with the virtual time since when."""
        self._paused: set[str] = set()

    def _on_queues(self, line: Commit, changes: Sequence[QueueChange], _answer: object) -> None:
        for change in changes:
            if change.paused is not None:
                (self._paused.add if change.paused else self._paused.discard)(change.queue)
            if change.limit is not None:
                self._limits[change.queue] = change.limit
            if change.bounds is not None:
                self._bounds.setdefault(change.queue, []).append((line.when, change.bounds))

    # --- what runs ---------------------------------------------------------------------------------------------------

    def granted(self, line: Commit, job: Known) -> None:
        """See Judge."""
        queue, id = job.new.queue, job.new.id
        if queue in self._paused:
            self.checker.broken("I9", line, f"{id} is granted from {queue}, which is paused")
        if not job.meta.limits and not self._limits.get(queue):
            return
        run = [each for each in self.checker.jobs.values() if each.holder is not None]
        for limit in job.meta.limits:
            count = sum(any(limit.key == other.key for other in each.meta.limits) for each in run)
            if count > limit.most:
                self.checker.broken("I9", line, f"{id} is number {count} under {limit.key}, of {limit.most}")
        count = sum(each.new.queue == queue for each in run)
        if count > (self._limits.get(queue) or count):
            self.checker.broken("I9", line, f"{id} is number {count} of queue {queue}, of {self._limits[queue]}")

    # --- what comes in -----------------------------------------------------------------------------------------------

    def arriving(self, line: Commit, job: NewJob, answer: Enqueued) -> None:
        """See Judge."""
        if self.checker.stopped(Known(job, line)):
            # It never stands in line: seed 382527815 brought one into a full queue. Nor is it told to come again.
            if answer.full is not None:
                self.checker.broken("bounds", line, f"{job.id} is cancelled as it comes, and is turned away: {answer}")
            return
        broken = [self._wrongly(line, job, answer, bounds) for bounds in self._bounds_of(job.queue, line.read)]
        if all(broken):
            self.checker.broken("bounds", line, f"{job.id} {broken[-1]}")

    def _bounds_of(self, queue: str, since: float) -> list[Bounds]:
        """Those that held at any time since then: on a server an operator may change them under an enqueue."""
        every = [(0.0, Bounds()), *self._bounds.get(queue, ())]
        ended = [*(when for when, _ in every[1:]), float("inf")]
        return [bounds for (_, bounds), until in zip(every, ended, strict=True) if until > since]

    def _wrongly(self, line: Commit, job: NewJob, answer: Enqueued, bounds: Bounds) -> str:
        """What is wrong with an answer where these bounds hold; nothing, perhaps."""
        if answer.full is None:
            if answer.inserted and bounds.depth is not None and job.after == 0:
                sure = sum(_in_line(each, job.queue) for each in self.checker.jobs.values())
                if sure >= bounds.depth:
                    return f"goes in where {sure} wait and {bounds.depth} may"
            return ""
        # How full a queue is is looked at before the batch: who went in counts, though another took its place since,
        # and so does who went out, since another that took its place goes elsewhere, and who left the line after that
        # look.
        known = self.checker.jobs.values()
        fresh = sum(each.queue == job.queue for each in self._came(line))
        moved = sum(_moved(each, line, job.queue) for each in known)
        wait = fresh + moved + sum(_waits(each, job.queue, line.read) for each in known)
        if bounds.depth is None or wait < bounds.depth or job.after > 0:
            return f"is turned away where {wait} wait and {bounds.depth} may"
        return "" if answer.inserted is bounds.shed else f"is turned away as it should not be: {answer}"

    def _came(self, line: Commit) -> list[NewJob]:
        """Of the batch, those whose place another one of it may have taken."""
        pairs = zip(*line.given, line.answer, strict=True)
        return [job for job, answer in pairs if answer.inserted and not answer.full]


def _in_line(job: Known, queue: str) -> bool:
    """Whether it surely stands in the line of that queue: it was due when it came, and nothing has touched it since."""
    untouched = job.fence == 0 and job.ended is None and not job.touched and job.expires_at is None
    plain = job.new.after == 0 and job.new.at is None and not job.meta.limits and job.meta.unique is None
    return job.new.queue == queue and untouched and plain and not job.suspect


def _moved(job: Known, line: Commit, queue: str) -> bool:
    """Whether it stood in that queue until this batch."""
    return job.moved is not None and job.moved[0] is line and job.moved[1] == queue != job.new.queue


def _waits(job: Known, queue: str, since: float) -> bool:
    """Whether it stands in the line of that queue, or has left it since then."""
    return job.new.queue == queue and (job.left > since or (job.ended is None and job.holder is None))
