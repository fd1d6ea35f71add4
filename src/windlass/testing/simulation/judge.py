"""One subject of the checker: what it knows of it, and what it has to say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from windlass.testing.simulation.checker import Checker
    from windlass.testing.simulation.world import Dump


class Judge:
    """Has a method `_on_<operation>` for each operation that concerns it; the jobs are the checker's."""

    def __init__(self, checker: Checker) -> None:
        self.checker = checker

    def copy(self, checker: Checker) -> Self:
        """One that knows the same, for a copy of the checker."""
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made.checker = checker
        return made

    def final(self, dump: Dump) -> None:
        """Hold what it knows against what the store holds in the end."""
