"""What the lines of all actors come to: the runs of each job, what the store says of it, and the faults."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from windlass.testing.ledger.line import Line, files, lines

LAG = 10.0
"""Seconds within which a run that has ended is settled, while the store is well, and a worker that was stopped has
begun what it had claimed."""
AGAIN = {"raised", "snoozed"}
"""Ends after which a job is meant to run again."""
FOREVER = float("inf")
KINDS = ("kill", "stop", "term", "disk", "store")


class Run:
    """One grant of a job, as its handler wrote it down."""

    __slots__ = ("actor", "end", "fence", "how", "parent", "start")

    def __init__(self, line: Line) -> None:
        self.start = line.at
        self.end = FOREVER
        """When it ended; never, for one that was cut off."""
        self.how = ""
        self.fence = line.fence
        self.actor = line.actor
        self.parent = line.parent


class Fault:
    """Something that was done to some processes."""

    __slots__ = ("kind", "name", "pids", "since", "until")

    def __init__(self, line: Line) -> None:
        self.since = line.since or line.at
        self.until = line.at
        self.kind = line.kind if line.kind in KINDS else KINDS[-1]
        self.name = line.note or line.kind
        self.pids = line.pids

    def struck(self, run: Run, kept: float) -> bool:
        """Whether it may have cut `run` off, or kept its end from the store, which may not have had it until `kept`.
        Only a worker that was stopped can, after it, begin what it had claimed before; the number of one that was
        killed may belong to another by then."""
        late = LAG if self.kind == "stop" else 0.0
        return run.start <= self.until + late and self.since <= kept


class Story:
    """All that is known of one job."""

    __slots__ = (
        *("acked", "acked_at", "alone", "attempts", "effects", "limits", "repeated", "runs", "stored", "unique"),
        "written",
    )

    def __init__(self) -> None:
        self.acked = False
        self.acked_at = -FOREVER
        self.runs: dict[int, Run] = {}
        """By fence."""
        self.repeated: list[Line] = []
        """Starts under a fence under which it had started before."""
        self.stored: Line | None = None
        self.attempts: list[Line] = []
        """What the store remembers of its runs."""
        self.effects: list[Line] = []
        self.written: list[Line] = []
        self.limits: dict[str, int] = {}
        self.unique = ""
        self.alone = False

    def attempt(self, run: Run) -> Line | None:
        """What the store remembers of a run: under its fence, or the one by which it was taken over."""
        following = min((fence for fence in self.runs if fence > run.fence), default=FOREVER)
        found = [line for line in self.attempts if run.fence <= line.fence < following]
        return min(found, key=lambda line: line.fence, default=None)

    def in_order(self) -> list[Run]:
        """Its runs as they were granted; one may begin late, after its successor."""
        return [self.runs[fence] for fence in sorted(self.runs)]


class History:
    """Every line, put where it belongs."""

    def __init__(self, found: Iterable[Line] = ()) -> None:
        self.jobs: dict[str, Story] = defaultdict(Story)
        self.faults: list[Fault] = []
        self.schedules: list[Line] = []
        self.exported = False
        """Whether it is known what the store held in the end."""
        self.words: Counter[str] = Counter()
        self.files = 0
        self._workers: dict[str, int] = {}
        """The processes of workers, by their ids."""
        self._faults_of: dict[int, list[Fault]] = defaultdict(list)
        self._outages: list[tuple[float, float]] = []
        """Faults of the store: from when until when, in order."""
        for line in found:
            self.take(line)

    @classmethod
    def of(cls, directory: Path) -> History:
        """The history in a folder of ledgers. Raises DamagedLedger."""
        history = cls()
        for path in files(directory):
            history.files += 1
            for line in lines(path):
                history.take(line)
        return history

    def take(self, line: Line) -> None:
        """Note one line; those that nobody has to judge are only counted."""
        self.words[line.what] += 1
        method = getattr(self, f"_on_{line.what}", None)
        if method is not None:
            method(line)

    def faults_of(self, story: Story, run: Run) -> Iterator[Fault]:
        """What happened to a run's process, to the worker for which it ran, and to the supervisor of both; in this
        order, and what ends a process before what only troubles it."""
        attempt = story.attempt(run) if story.attempts else None
        worker = self._workers.get(attempt.worker, 0) if attempt is not None else 0
        kept = self._kept_until(run)
        for pid in dict.fromkeys((run.actor, worker, run.parent)):
            found = [fault for fault in self._faults_of.get(pid, ()) if fault.struck(run, kept)]
            yield from sorted(found, key=lambda fault: KINDS.index(fault.kind))

    def _kept_until(self, run: Run) -> float:
        """Until when the store may not have had the outcome of a run: a worker keeps it while the store is in trouble,
        and for as long again as it takes without."""
        first = bisect_left(self._outages, (run.end - LAG, 0.0))
        last = bisect_right(self._outages, (run.end + LAG, FOREVER))
        return max([run.end, *(until for _, until in self._outages[first:last])]) + LAG

    def valid_until(self, story: Story) -> Iterator[tuple[Run, float]]:
        """Each run, and until when it had the right to run: its end, the next grant, its death, or the stop past which
        its lease ran out. Before its start, for one that began when its right was gone."""
        again = FOREVER
        for run in reversed(story.in_order()):
            ends = [fault.since for fault in self.faults_of(story, run) if fault.kind in {"kill", "stop"}]
            yield run, min(run.end, again, *ends)
            again = min(again, run.start)

    def _on_acked(self, line: Line) -> None:
        self.jobs[line.job].acked = True
        self.jobs[line.job].acked_at = line.at
        self._keys(line)

    def _on_start(self, line: Line) -> None:
        story = self.jobs[line.job]
        self._keys(line)
        if line.fence in story.runs:
            story.repeated.append(line)
        else:
            story.runs[line.fence] = Run(line)

    def _on_end(self, line: Line) -> None:
        story = self.jobs[line.job]
        run = story.runs.setdefault(line.fence, Run(line))
        run.end, run.how = line.at, line.note

    def _on_effect(self, line: Line) -> None:
        self.jobs[line.job].effects.append(line)

    def _on_written(self, line: Line) -> None:
        self.jobs[line.job].written.append(line)

    def _on_fault(self, line: Line) -> None:
        fault = Fault(line)
        self.faults.append(fault)
        if fault.kind == "store":
            insort(self._outages, (fault.since, fault.until))
        for pid in fault.pids:
            self._faults_of[pid].append(fault)

    def _on_job(self, line: Line) -> None:
        self.exported = True
        self.jobs[line.job].stored = line
        self._keys(line)

    def _on_attempt(self, line: Line) -> None:
        self.jobs[line.job].attempts.append(line)

    def _on_worker(self, line: Line) -> None:
        self._workers[line.worker] = line.pids[0]

    def _on_schedule(self, line: Line) -> None:
        self.schedules.append(line)

    def _on_exported(self, _: Line) -> None:
        self.exported = True

    def _keys(self, line: Line) -> None:
        story = self.jobs[line.job]
        if line.limits:
            story.limits = story.limits | line.limits
        if line.unique:
            # A key belongs to its task; jobs without a task are told apart by the key alone.
            story.unique = f"{line.task} {line.unique}".strip()
            story.alone = story.alone or line.alone
