"""Before a release: would the new code be able to run the jobs that wait now, and those that schedules will enqueue?
Reads the store, changes nothing.

Each payload is bound as a worker of the new code would bind it, upcasters included; nothing else of the new code runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

import msgspec

from windlass.core.errors import InvalidSchedule, PayloadInvalid
from windlass.core.job import State
from windlass.core.schedule import read
from windlass.core.words import brief
from windlass.ports.plan import Plan
from windlass.ports.store import Backlog, Pending, Schedule, Store
from windlass.runtime.registry import Registry, TaskDef
from windlass.schedule import has_ended

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


class Unfit(msgspec.Struct, frozen=True):
    """A schedule whose jobs the new code could not run."""

    schedule: str
    problem: Problem
    """Its kind may also be newer_windlass: what nobody here can read."""

    @property
    def sentence(self) -> str:
        """The problem in words."""
        p, name = self.problem, f"schedule `{self.schedule}`"
        match p.kind:
            case "unknown_task":
                return f"{name} enqueues task `{p.task}`, which no longer exists"
            case "newer_version":
                return f"{name} enqueues version {p.version} of `{p.task}`, newer than the {p.known} of this code"
            case "newer_windlass":
                return f"{name} was made by a newer version of Windlass, or for a zone that is not here"
            case "payload" if p.detail.startswith("is missing"):
                return f"{name} enqueues `{p.task}` without the required `{p.field}`"
            case "payload" if p.detail.startswith("is no argument"):
                return f"{name} enqueues `{p.task}` with `{p.field}`, which the task takes no more"
        return f"{name} enqueues `{p.task}` with what cannot be bound: {p.field}: {p.detail}"


class Report(msgspec.Struct):
    """What a check found."""

    looked: int
    """Jobs that were looked at."""
    complete: bool
    """False: it stopped at its limit, and there were more."""
    found: list[Found]
    """The most frequent first."""
    schedules: int = 0
    """Schedules that were looked at."""
    unfit: list[Unfit] = []
    queues: set[str] = set()
    """All those of which there is a job or a schedule."""

    @property
    def fits(self) -> bool:
        """Whether the new code can run everything that was looked at."""
        return not self.found and not self.unfit

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
    looked, complete, seen = 0, True, set()
    for page in backlog:
        complete = page.next is None
        for job in page.jobs:
            seen.add(job.queue)
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
    return Report(looked, complete, sorted(found.values(), key=lambda each: (-each.count, each.sentence)), queues=seen)


def check_schedules(
    report: Report, registry: Registry, schedules: list[Schedule], own: Container[str], queues: tuple[str, ...] = ()
) -> None:
    """Compare the jobs that schedules will enqueue with the tasks that are to be released, and add to the report; of
    `queues` only, if any are named. Those of `own` the new code defines itself, and replaces unless a person edited
    them."""
    for each in schedules:
        if each.name in own and each.origin != "edited":
            continue
        try:
            said = read(each.definition)
            if has_ended(each, said):
                continue
        except (InvalidSchedule, ValueError, ArithmeticError):  # or it names a zone that this machine does not have
            report.schedules += 1
            report.unfit.append(Unfit(each.name, Problem("newer_windlass", "", 0)))
            continue
        report.queues.add(said.queue)
        if queues and said.queue not in queues:
            continue
        report.schedules += 1
        job = Pending(each.name, said.task, said.version, said.queue, State.SCHEDULED, said.payload)
        problem = misfit(registry.tasks.get(said.task), job)
        if problem is not None:
            report.unfit.append(Unfit(each.name, problem))


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
    except (Exception, SystemExit) as error:  # an upcaster is the user's own code; its exit must not be a green check
        kind: Any = type(error)
        return Problem("payload", job.task, job.version, "upcaster", f"raised {kind.__name__}", task.version)
    return None
