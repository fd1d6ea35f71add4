"""One subject of the checker: what it knows of it, and what it has to say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from windlass.core.job import NewJob
    from windlass.ports.store import Enqueued
    from windlass.testing.simulation.checker import Checker
    from windlass.testing.simulation.known import Known
    from windlass.testing.simulation.ledger import Commit, Deed
    from windlass.testing.simulation.world import Dump


class Judge:
    """Has a method `_on_<operation>` for each operation that concerns it; the jobs are the checker's."""

    def __init__(self, checker: Checker) -> None:
        self.checker = checker

    def copy(self, checker: Checker) -> Self:
        """One that knows the same, for a copy of the checker."""
        made = type(self)(checker)
        known = {name: _copied(value) for name, value in self.__dict__.items() if name != "checker"}
        made.__dict__.update(known)
        return made

    def deed(self, deed: Deed) -> None:
        """Somebody did or saw something."""

    def arriving(self, line: Commit, job: NewJob, answer: Enqueued) -> None:
        """A job that nobody has seen before was enqueued; it is not among the jobs yet."""

    def knows(self, line: Commit, job: NewJob, answer: Enqueued) -> bool:
        """Whether a job was sent before, and is remembered here only."""
        return False

    def arrived(self, line: Commit, job: NewJob, answer: Enqueued) -> bool:
        """Whether this has seen to what becomes of it."""
        return False

    def granted(self, line: Commit, job: Known) -> None:
        """A worker was given a job."""

    def ended(self, job: Known) -> None:
        """A job has ended."""

    def revived(self, line: Commit, job: Known) -> None:
        """A job lives again."""

    def may_live(self, job: Known) -> bool:
        """Whether a job that has ended may be revived."""
        return True

    def deleted(self, job: Known) -> None:
        """A job is gone; if it had not ended, it has now."""

    def final(self, dump: Dump) -> None:
        """Hold what it knows against what the store holds in the end."""


def _copied(value: Any) -> Any:
    """As deep as what a judge remembers can change."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return value.copy() if hasattr(value, "copy") else value
