"""A history held against all the rules, and what it went through: a run whose faults missed proves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import pairwise

import msgspec

from windlass.core.job import State
from windlass.testing.ledger.history import FOREVER, History, Story
from windlass.testing.ledger.line import Line
from windlass.testing.ledger.rules import RULES, Problem, crowds, explanation

__all__ = ["Problem", "Report", "check"]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, and what is wrong with it."""

    counts: dict[str, int]
    states: dict[str, int]
    """Jobs in the store's own record, by state; the dead by their reasons."""
    faults: dict[str, int]
    """Faults delivered, by name."""
    explained: dict[str, int]
    """Why jobs ran more than once."""
    crowds: dict[str, int]
    """How many ever ran at once, by limit."""
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        """Whether every rule holds."""
        return not self.problems


def check(history: History, *, without: Collection[str] = ()) -> Report:
    """Hold a history against every rule, but those in `without`."""
    problems = [each for name, rule in RULES.items() if name not in without for each in rule(history)]
    stories = history.jobs.values()
    stored = [story.stored for story in stories if story.stored is not None]
    return Report(
        counts={
            "ledgers": history.files,
            "lines": history.words.total(),
            "acknowledged": sum(story.acked for story in stories),
            "in the store": len(stored),
            "starts": sum(len(story.runs) for story in stories),
            "ran again": sum(len(story.runs) > 1 for story in stories),
            "ghosts": sum(ghosts(history, story) for story in stories),
            "effects": history.words["effect"] + history.words["written"],
            "refused": history.words["refused"],
            "ticks": sum(bool(line.schedule) for line in stored),
            "limits": len({key for story in stories for key in story.limits}),
            "unique keys": len({story.unique for story in stories if story.unique}),
            "faults": len(history.faults),
        },
        states=dict(sorted(Counter(_state(line) for line in stored).items())),
        faults=dict(sorted(Counter(fault.name for fault in history.faults).items())),
        explained=dict(sorted(explanations(history).items())),
        crowds=crowds(history)[1],
        problems=problems,
    )


def ghosts(history: History, story: Story) -> int:
    """Runs that went on, and came to their end, when the job had been taken from them: what they said was refused."""
    found = 0
    for run, again in pairwise(story.in_order() if len(story.runs) > 1 else ()):
        stops = (fault for fault in history.faults_of(story, run) if fault.kind == "stop")
        taken = min([again.start, *(fault.since for fault in stops if fault.since > run.start)])
        found += taken < run.end < FOREVER
    return found


def _state(line: Line) -> str:
    return f"dead ({line.note})" if line.state == State.DEAD and line.note else line.state


def explanations(history: History) -> Counter[str]:
    """Why jobs ran again, each time they did."""
    found: Counter[str] = Counter()
    for story in history.jobs.values():
        runs = story.in_order() if len(story.runs) > 1 else ()
        for run, again in pairwise(runs):
            found[explanation(history, story, run, again) or "nothing"] += 1
    return found
