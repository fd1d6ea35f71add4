"""Before a release: would the new code be able to run the jobs that wait now? Reads the store, changes nothing.

Each payload is bound as a worker of the new code would bind it, upcasters included; nothing else of the new code runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from windlass.core.errors import PayloadInvalid
from windlass.core.words import brief
from windlass.ports.plan import Plan
from windlass.ports.store import Backlog, Pending, Store
from windlass.runtime.registry import Registry, TaskDef

PAGE = 1_000
"""Jobs of one reading transaction."""
IDS_MOST = 3
PROBLEMS_MOST = 1_000
"""Kinds of problems told apart: a bound on memory, and on what anybody would read."""

_INDEX = re.compile(r"\[\d+\]")
_QUOTED = re.compile(r"'[^']*'")


class Problem(msgspec.Struct, frozen=True):
    """One way in which jobs do not fit the new code."""

    kind: str
    """unknown_task | newer_version | payload | other"""
    task: str
    version: int
    """Of the payloads; 0 where it does not matter."""
    field: str = ""
    """The guilty argument, or the path in it, with [] for every index."""
    detail: str = ""
    known: int = 0
    """The version of the task in the new code, 0 where it has none."""


class Found(msgspec.Struct):
    """How many jobs have a problem, and the first few of them."""

    problem: Problem
    count: int = 0
    ids: list[str] = []

    @property
    def sentence(self) -> str:
        """The problem in words."""
        p, jobs = self.problem, f"{self.count:,} `{self.problem.task}` job{'s' if self.count > 1 else ''}"
        have = "have" if self.count > 1 else "has"
        of = f" of version {p.version}" if p.known > 1 else ""
        match p.kind:
            case "unknown_task":
                return f"{jobs}: task `{p.task}` no longer exists"
            case "newer_version":
                return f"{jobs} {have} version {p.version}, newer than the {p.known} of this code: they would wait"
            case "payload" if p.detail.startswith("is missing"):
                return f"{jobs}{of} lack{'' if self.count > 1 else 's'} the required `{p.field}`"
            case "payload" if p.detail.startswith("is no argument"):
                return f"{jobs}{of} {have} `{p.field}`, which the task takes no more"
            case "payload":
                return f"{jobs}{of} cannot be bound: {p.field}: {p.detail}"
        return f"{self.count:,} jobs have still other problems"


class Report(msgspec.Struct):
    """What a check found."""

    looked: int
    """Jobs that were looked at."""
    complete: bool
    """False: it stopped at its limit, and there were more."""
    found: list[Found]
    """The most frequent first."""

    @property
    def misfits(self) -> int:
        """Jobs with a problem."""
        return sum(each.count for each in self.found)


def pages(run: Callable[[Plan[Backlog]], Backlog], store: Store, limit: int | None) -> Iterator[Backlog]:
    """The backlog page by page; at most `limit` jobs, and then whether there are more."""
    after: str | None = None
    left = limit
    while True:
        page = run(store.backlog(PAGE if left is None else min(PAGE, left), after))
        yield page
        after = page.next
        left = None if left is None else left - len(page.jobs)
        if after is None or left == 0:
            return


def check(registry: Registry, backlog: Iterable[Backlog], queues: tuple[str, ...] = ()) -> Report:
    """Compare jobs with the tasks that are to be released; of `queues` only, if any are named."""
    found: dict[Problem, Found] = {}
    looked, complete = 0, True
    for page in backlog:
        complete = page.next is None
        for job in page.jobs:
            if queues and job.queue not in queues:
                continue
            looked += 1
            problem = misfit(registry.tasks.get(job.task), job)
            if problem is not None:
                if problem not in found and len(found) >= PROBLEMS_MOST:
                    problem = Problem("other", "", 0)
                entry = found.setdefault(problem, Found(problem))
                entry.count += 1
                if len(entry.ids) < IDS_MOST:
                    entry.ids.append(job.id)
    return Report(looked, complete, sorted(found.values(), key=lambda each: (-each.count, each.sentence)))


def misfit(task: TaskDef | None, job: Pending) -> Problem | None:
    """Why a worker of this code could not run a job; None if it could."""
    if task is None:
        return Problem("unknown_task", job.task, 0)
    if job.version > task.version:
        return Problem("newer_version", job.task, job.version, known=task.version)
    try:
        task.bind(job.payload, job.version)
    except PayloadInvalid as error:
        # Values and indexes differ from job to job; the problem is one.
        field, detail = _INDEX.sub("[]", error.field), _QUOTED.sub("'...'", error.problem)
        return Problem("payload", job.task, job.version, field, brief(detail), task.version)
    except Exception as error:  # an upcaster is the user's own code
        kind: Any = type(error)
        return Problem("payload", job.task, job.version, "upcaster", f"raised {kind.__name__}", task.version)
    return None
