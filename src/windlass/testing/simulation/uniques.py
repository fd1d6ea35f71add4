"""The judge of unique jobs (I10): of those that carry one key at most one lives, and one more waits for its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass.core.job import State
from windlass.ports.store import Enqueued
from windlass.testing.simulation.judge import Judge
from windlass.testing.simulation.known import Known

if TYPE_CHECKING:
    from windlass.core.job import NewJob, UniqueKey
    from windlass.testing.simulation.checker import Checker
    from windlass.testing.simulation.ledger import Commit

Place = tuple[str, str]
"""A task, and a key."""


class Uniques(Judge):
    """See the head of this file."""

    def __init__(self, checker: Checker) -> None:
        super().__init__(checker)
        self._owners: dict[Place, str] = {}
        self._successors: dict[Place, str] = {}
        self._windows: dict[Place, tuple[str, int]] = {}
        """Of throttles: whose, and until when."""
        self.merged: dict[str, str] = {}
        """Jobs that took the place of another, and whose."""

    # --- arrivals ----------------------------------------------------------------------------------------------------

    def knows(self, line: Commit, job: NewJob, answer: Enqueued) -> bool:
        """See Judge."""
        if job.id in self.merged:
            self._expect(line, job, answer, Enqueued(self.merged[job.id], inserted=False))
        return job.id in self.merged

    def arrived(self, line: Commit, job: NewJob, answer: Enqueued) -> bool:
        """See Judge: it stands beside the owner of its key, or in the place of another, or nowhere."""
        unique = Known(job, line).meta.unique if '"unique"' in job.meta else None
        if unique is None or answer.full is not None:
            return False
        place = (job.task, unique.key)
        self._doubt(line, place, unique, answer)
        owner = self._owners.get(place)
        if owner is None:
            return self._free(line, job, unique, answer)
        self._beside(line, job, unique, answer, self.checker.jobs[owner])
        return True

    def _doubt(self, line: Commit, place: Place, unique: UniqueKey, answer: Enqueued) -> None:
        """Who may have expired, which nobody is told, has, if this is the answer."""
        replaces = unique.policy in ("replace", "keep-last", "debounce")
        successor = self._successors.get(place)
        if replaces and successor not in (None, answer.id) and self.checker.lives(line, successor or "") is None:
            self.checker.end(line, self.checker.jobs[successor or ""], State.EXPIRED)
        while (owner := self._owners.get(place)) is not None and self.checker.lives(line, owner) is None:
            stands = not answer.inserted and answer.id in (owner, self._successors.get(place))
            if stands and (answer.id == owner or replaces):
                return
            self.checker.end(line, self.checker.jobs[owner], State.EXPIRED)

    def _free(self, line: Commit, job: NewJob, unique: UniqueKey, answer: Enqueued) -> bool:
        place = (job.task, unique.key)
        id, until = self._windows.get(place, ("", 0))
        if unique.policy == "throttle" and line.at < until and not (answer.inserted and self.checker.stepped):
            self._expect(line, job, answer, Enqueued(id, inserted=False))
            return True
        self._expect(line, job, answer, Enqueued(job.id, inserted=True))
        if not answer.inserted:
            return True
        self._owners[place] = job.id
        self._windows.pop(place, None)
        if unique.policy == "throttle":
            self._windows[place] = (job.id, line.at + unique.window)
        return False

    def _beside(self, line: Commit, job: NewJob, unique: UniqueKey, answer: Enqueued, owner: Known) -> None:
        place, id = (job.task, unique.key), owner.new.id
        successor = self._successors.get(place)
        if unique.policy in ("return-existing", "throttle"):
            self._expect(line, job, answer, Enqueued(id, inserted=False))
        elif unique.policy == "reject":
            self._expect(line, job, answer, Enqueued(id, inserted=False, refused=True))
        elif owner.holder is None or successor is not None:
            self._expect(line, job, answer, Enqueued(successor or id, inserted=False))
            self.merged[job.id] = successor or id
            self.checker.jobs[successor or id].replace(job, line, unique.max_wait)
        else:
            self._expect(line, job, answer, Enqueued(job.id, inserted=True))
            self.checker.store(line, job)
            self._successors[place] = job.id
            if unique.policy == "replace" and not owner.asked:
                owner.ask(line)

    def _expect(self, line: Commit, job: NewJob, answer: Enqueued, expected: Enqueued) -> None:
        if answer != expected:
            self.checker.broken("I10", line, f"{job.id} is answered {answer}, and its key says {expected}")

    # --- lives -------------------------------------------------------------------------------------------------------

    def granted(self, line: Commit, job: Known) -> None:
        """See Judge."""
        place = _place(job)
        if place is None:
            return
        owner = self._owners.get(place)
        if owner not in (None, job.new.id) and self.checker.lives(line, owner or "") is None:
            self.checker.end(line, self.checker.jobs[owner or ""], State.EXPIRED)
        if self._owners.get(place) != job.new.id:
            self.checker.broken("I10", line, f"{job.new.id} runs, and its key belongs to {owner}")

    def ended(self, job: Known) -> None:
        """See Judge."""
        place, id = _place(job), job.new.id
        if place is None:
            return
        if self._successors.get(place) == id:
            del self._successors[place]
        elif self._owners.get(place) == id:
            del self._owners[place]
            if place in self._successors:
                self._owners[place] = self._successors.pop(place)
                self._windows.pop(place, None)

    def revived(self, line: Commit, job: Known) -> None:
        """See Judge."""
        place = _place(job)
        if place is None:
            return
        owner, id = self._owners.get(place), job.new.id
        if owner not in (None, id) and self.checker.lives(line, owner or "") is None:
            # It has, as another has its key. Whether this one had expired, its next run says.
            self.checker.end(line, self.checker.jobs[owner or ""], State.EXPIRED)
            owner = self._owners.get(place)
        if owner not in (None, id):
            self.checker.broken("I10", line, f"{id} is revived, and its key belongs to {owner}")
        self._owners[place] = id
        if place in self._windows:  # what is left of it is handed on with the key
            self._windows[place] = (id, self._windows[place][1])

    def may_live(self, job: Known) -> bool:
        """Whether its key is free, so that it may be revived."""
        place = _place(job)
        return place is None or place not in self._owners

    def deleted(self, job: Known) -> None:
        """See Judge."""
        place, id = _place(job), job.new.id
        if place is not None and self._windows.get(place, ("", 0))[0] == id:
            del self._windows[place]
        for merged in [merged for merged, into in self.merged.items() if into == id]:
            del self.merged[merged]


def _place(job: Known) -> Place | None:
    unique = job.meta.unique
    return None if unique is None else (job.new.task, unique.key)
