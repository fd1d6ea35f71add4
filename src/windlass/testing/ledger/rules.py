"""What must hold, one function for each rule: every problem that it finds is a sentence about one job."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

import msgspec

from windlass.core.job import TERMINAL, State
from windlass.testing.ledger.history import AGAIN, FOREVER, History, Run, Story
from windlass.testing.ledger.line import STEP, Line

Step = tuple[float, int, str, dict[str, int]]
"""At this instant, so many more of this job under these keys."""
OWN = {"failed", "snoozed"}
"""Outcomes in the store's history of attempts that are the handler's own doing."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is not as it must be."""

    rule: str
    job: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


def lost(history: History) -> Iterator[Problem]:
    """Nothing that was acknowledged is lost: the store has it, or where nobody asked the store, it ended."""
    for job, story in history.jobs.items():
        if not story.acked or story.stored is not None:
            continue
        if history.exported:
            yield Problem("lost", job, f"job {job} was acknowledged, and the store does not have it")
        elif not any(run.end < FOREVER and run.how not in AGAIN for run in story.runs.values()):
            yield Problem("lost", job, f"job {job} was acknowledged, and never ended")


def unended(history: History) -> Iterator[Problem]:
    """Every job that the store has came to an end; one that was completed did so in the run that says so."""
    for job, story in history.jobs.items():
        stored = story.stored
        if stored is None:
            continue
        if stored.state not in TERMINAL:
            yield Problem("unended", job, f"job {job} ({stored.task}) is {stored.state}, not ended")
        elif stored.state == State.COMPLETED and (story.acked or story.runs):
            run = story.runs.get(stored.fence)
            if run is None or run.end == FOREVER:
                yield Problem("unended", job, f"job {job} ({stored.task}) is completed, and that run never ended")


def fences(history: History) -> Iterator[Problem]:
    """A job starts once under each fence, and a later grant has a larger one."""
    for job, story in history.jobs.items():
        for line in story.repeated:
            yield Problem("fence", job, f"job {job} started twice under the fence {line.fence}")
        runs = story.in_order()
        for n, run in enumerate(runs):
            before = [later for later in runs[n + 1 :] if later.start < run.start]
            # Stopped between its claim and its start, it begins when another has the job; what it does is refused.
            if before and not any(fault.kind == "stop" for fault in history.faults_of(story, run)):
                text = f"job {job} started under {run.fence} after it had under {before[0].fence}, and was not stopped"
                yield Problem("fence", job, text)


def unexplained(history: History) -> Iterator[Problem]:
    """Whatever ran more than once had a reason to: its own end, or a fault that somebody wrote down."""
    for job, story in history.jobs.items():
        runs = story.in_order()
        for run, again in pairwise(runs):
            if not explanation(history, story, run, again):
                how = run.how or ("ended" if run.end < FOREVER else "has no end")
                text = f"job {job} ran under {run.fence} ({how}) and again under {again.fence}; no fault explains it"
                yield Problem("unexplained", job, text)


def explanation(history: History, story: Story, run: Run, again: Run) -> str:
    """Why a job ran again; nothing, if nobody knows."""
    if run.how in AGAIN:
        return run.how
    attempt = story.attempt(run)
    if attempt is not None and attempt.state in OWN:
        return attempt.state
    begun = max(again.start, run.start)
    return next((fault.name for fault in history.faults_of(story, run) if fault.since <= begun), "")


def stale(history: History) -> Iterator[Problem]:
    """Nothing that a run did after another had been granted the job took effect."""
    for job, story in history.jobs.items():
        for line in story.effects:
            newer = [run for run in story.runs.values() if run.fence > line.fence and run.start < line.since]
            if newer:
                text = f"{line.note or 'an effect'} of job {job} was applied under {line.fence}, when {newer[0].fence}"
                yield Problem("stale", job, f"{text} was running")
        newest = max(story.runs, default=0)
        if story.stored is not None and story.stored.fence < newest:
            text = f"job {job} is {story.stored.state} under {story.stored.fence}, and ran under {newest}"
            yield Problem("stale", job, text)
        if story.stored is not None and story.stored.result not in {0, story.stored.fence}:
            text = f"job {job} is {story.stored.state} under {story.stored.fence}, with the result of"
            yield Problem("stale", job, f"{text} {story.stored.result}")
        yield from _written(job, story)


def _written(job: str, story: Story) -> Iterator[Problem]:
    """What was written with a completion is there once, and is that completion's."""
    for name, rows in Counter(line.note for line in story.written).items():
        if rows > 1:
            yield Problem("stale", job, f"{name or 'an effect'} of job {job} was written {rows} times")
    for line in story.written:
        stored = story.stored
        if stored is not None and (stored.state, stored.fence) != (State.COMPLETED, line.fence):
            text = f"{line.note or 'an effect'} of job {job} was written under {line.fence}, and it is {stored.state}"
            yield Problem("stale", job, f"{text} under {stored.fence}")


def ticks(history: History) -> Iterator[Problem]:
    """Each tick of a schedule became one job; of a schedule whose ticks are known, none is missing."""
    jobs: dict[tuple[str, int], set[str]] = defaultdict(set)
    for job, story in history.jobs.items():
        if story.stored is not None and story.stored.schedule:
            jobs[story.stored.schedule, story.stored.tick].add(job)
    for (name, tick), found in sorted(jobs.items()):
        if len(found) > 1:
            yield Problem("tick", min(found), f"the tick {tick} of {name!r} became {len(found)} jobs: {sorted(found)}")
    for line in history.schedules:
        for tick in range(line.created, line.ended + 1, line.step or STEP):
            if (line.schedule, tick) not in jobs:
                yield Problem("tick", "", f"the tick {tick} of {line.schedule!r} became no job")


def limits(history: History) -> Iterator[Problem]:
    """Never more jobs ran at once under a key than it allows."""
    yield from crowds(history)[0]


def crowds(history: History) -> tuple[list[Problem], dict[str, int]]:
    """Where more ran at once than a key allows, and how many ever did, by key."""
    steps: list[Step] = []
    for job, story in history.jobs.items():
        if story.limits:
            steps += _steps(history, job, story, story.limits)
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    found = []
    for at, step, job, keys in sorted(steps, key=lambda each: each[:2]):
        for key, limit in keys.items():
            now[key] += step
            most[key] = max(most[key], now[key])
            if step > 0 and now[key] > limit:
                text = f"{now[key]} of {limit} ran under {key!r} at {at:.3f}, the last one job {job}"
                found.append(Problem("limit", job, text))
    return found, dict(most)


def unique(history: History) -> Iterator[Problem]:
    """Of one key, one job runs at a time; and where it has no successor, one job lives at a time."""
    steps: list[Step] = []
    living: dict[str, list[tuple[Line, Story]]] = defaultdict(list)
    for job, story in history.jobs.items():
        if story.unique:
            steps += _steps(history, job, story, {story.unique: 1})
            if story.alone and story.stored is not None:
                living[story.unique].append((story.stored, story))
    now: Counter[str] = Counter()
    for at, step, job, keys in sorted(steps, key=lambda each: each[:2]):
        (key,) = keys
        now[key] += step
        if step > 0 and now[key] > 1:
            yield Problem("unique", job, f"{now[key]} jobs ran with the key {key!r} at {at:.3f}, the last one {job}")
    for key, found in living.items():
        found.sort(key=lambda each: each[0].created)
        for (first, before), (second, story) in pairwise(found):
            if (not first.ended or first.ended > second.created) and not _waited(before, story):
                text = f"job {second.job} with the key {key!r} was stored while {first.job} lived"
                yield Problem("unique", second.job, text)


def _waited(first: Story, second: Story) -> bool:
    """Whether the second was acknowledged when all runs of the first were over; or if its answer was lost, whether it
    began after that. On a server a transaction may read the clock, and then wait for the key until the first has ended:
    it is stored later than it says."""
    begun = min((run.start for run in second.runs.values()), default=-FOREVER)
    known = second.acked_at if second.acked else begun
    return known > max((run.end for run in first.runs.values()), default=FOREVER)


def _steps(history: History, job: str, story: Story, keys: dict[str, int]) -> Iterator[Step]:
    for run, until in history.valid_until(story):
        if until > run.start:
            yield run.start, 1, job, keys
            yield until, -1, job, keys


RULES = {
    "lost": lost,
    "unended": unended,
    "fence": fences,
    "unexplained": unexplained,
    "stale": stale,
    "tick": ticks,
    "limit": limits,
    "unique": unique,
}
