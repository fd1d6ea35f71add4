"""Real SQLite files under real faults: how they are opened, what was acknowledged, and whether both still agree."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from windlass import stores
from windlass.core.job import NewJob
from windlass.core.placement import job_id
from windlass.ports.store import Filter

KINDS = ("apsw", "stdlib", "stdlib-wal")
"""Windlass's own file; the application's own, with the journal of a fresh file, and with a WAL."""

REPOSITORY = Path(__file__).parent.parent.parent

_ids = itertools.count(1)


def url_of(kind: str, path: Path | str) -> str:
    return f"{'sqlite' if kind == 'apsw' else 'sqlite+stdlib'}:///{path}"


def open_store(kind: str, path: Path, **options: Any) -> Any:
    """Open it; if it is new, nothing of the store's is in it yet."""
    if kind == "stdlib-wal" and not path.exists():
        use_wal(path)
    return stores.open(url_of(kind, path), **options)


def use_wal(path: Path) -> None:
    """As an application does that has chosen so for its own file."""
    with raw("stdlib", path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


@contextmanager
def migrated(kind: str, path: Path, **options: Any) -> Iterator[Any]:
    """An open store with its schema."""
    with opened_store(kind, path, **options) as opened:
        opened.shell.run(opened.store.migrate())
        yield opened


@contextmanager
def opened_store(kind: str, path: Path, **options: Any) -> Iterator[Any]:
    opened = open_store(kind, path, **options)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def raw(kind: str, path: Path) -> Iterator[Any]:
    """A connection of the same library: two libraries on one file in one process drop each other's locks."""
    connection: Any = apsw.Connection(str(path)) if kind == "apsw" else sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def dump(kind: str, path: Path) -> dict[str, list[Any]]:
    """Every row of every table, in order."""
    with raw(kind, path) as connection:
        names = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name, _ in names}


def broken(kind: str, path: Path) -> list[str]:
    """What SQLite itself finds wrong with the file."""
    with raw(kind, path) as connection:
        return [row[0] for row in connection.execute("PRAGMA integrity_check").fetchall() if row[0] != "ok"]


def new_job(**given: Any) -> NewJob:
    given.setdefault("id", job_id(1, os.getpid().to_bytes(5, "big") + next(_ids).to_bytes(5, "big")))
    given.setdefault("task", "tests.task")
    given.setdefault("payload", "[[],{}]")
    return NewJob(**given)


class Ledger:
    """What callers were told, kept apart from the store."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.acked: list[str] = []

    def enqueue(self, opened: Any, *jobs: NewJob, timeout: float | None = None) -> None:
        """Enqueue a batch, and write down what is sent and what is answered."""
        self.tried += [job.id for job in jobs]
        self.acked += [answer.id for answer in opened.shell.run(opened.store.enqueue(jobs), timeout)]

    def faults(self, opened: Any) -> list[str]:
        """I1, I3: every acknowledged job is there, nothing is there twice or unasked, and the store is sound."""
        run, store = opened.shell.run, opened.store
        found = [*every_id(opened)]
        stored = set(found)
        known = run(store.fetch(list(dict.fromkeys(self.acked))))
        return [
            *(f"acknowledged and lost: {id}" for id in dict.fromkeys(self.acked) if id not in stored),
            *(f"not to be fetched: {id}" for id, job in zip(dict.fromkeys(self.acked), known, strict=True) if job is None),
            *(f"there {count} times: {id}" for id, count in Counter(found).items() if count > 1),
            *(f"nobody sent it: {id}" for id in stored - set(self.tried)),
            *(f"the store is not sound: {words}" for words in run(store.audit())),
        ]


def every_id(opened: Any) -> Iterator[str]:
    """All that is stored, page by page."""
    after = None
    while True:
        page = opened.shell.run(opened.store.search(Filter(), 500, after))
        yield from (job.id for job in page.jobs)
        after = page.next
        if after is None:
            return


def typed(error: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]) -> None:
    """An error of Windlass's own, that says something."""
    assert isinstance(error, kinds), f"{type(error).__name__}: {error}"
    assert str(error)


def count(record: Any, **figures: Any) -> None:
    """Print what was delivered, for the report: a run whose faults missed proves nothing."""
    record("proof", figures)
    print(" ".join(f"{name}={value}" for name, value in figures.items()))


class FalseAcks:
    """A planted violation: a shell that acknowledges every n-th enqueue without storing it."""

    def __init__(self, opened: Any, every: int) -> None:
        self.store, self.shell, self._opened = opened.store, self, opened
        self._every, self._calls = every, 0

    def run(self, plan: Any, timeout: float | None = None) -> Any:
        if plan.name == "enqueue":
            self._calls += 1
            if self._calls % self._every == 0:
                return self._promises(plan)
        return self._opened.shell.run(plan, timeout)

    def _promises(self, plan: Any) -> Any:
        """What the plan answers, in a transaction that is then rolled back."""
        session = self._opened.shell.session()
        try:
            return session.run(plan)
        finally:
            session.rollback()


def sample(items: Iterable[Any], most: int) -> Sequence[Any]:
    """At most `most` of them, evenly spread."""
    found = list(items)
    step = max(1, -(-len(found) // most))
    return found[::step]



def forks() -> Any:
    """Processes that are forked from a clean one, which has imported everything: each starts in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.kit", "tests.faults.disk", "tests.faults.till", "windlass.app"])
    return context
