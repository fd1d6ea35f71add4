"""The SQLite store: plans only. What does the I/O is `shell.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from windlass.core.errors import SchemaError
from windlass.core.job import NewJob, Transition
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.stores.named_sql import load_migrations, split
from windlass.stores.sql.claim import Claiming, HeldRow
from windlass.stores.sql.departure import Departing
from windlass.stores.sql.enqueue import row_of
from windlass.stores.sql.settle import Grant, end_of, last_words
from windlass.stores.sql.survey import Survey
from windlass.stores.sql.text import as_json

DUE, EXPIRES = 9, 11
"""Where they stand in a row of `job_insert`."""
RAW = "raw"
"""The one statement name that carries its own text: a migration's."""


class SqliteStore(Departing, Survey, Claiming):
    """Every operation of `ports.store.Store` on one SQLite file; see migrations/001_first.sql for the layout."""

    capabilities = frozenset(
        {
            *("atomic_batch", "atomic_plan", "caller_transaction", "durable", "push", "search", "transaction"),
            "wide_numbers",
        }
    )

    @plan
    def migrate(self) -> Steps[int]:
        """See Store.migrate. The writing transaction makes the others wait; they then find it done."""
        now = (yield NOW)[0][0]
        scripts = load_migrations("windlass.stores.sqlite")
        yield Statement("migrations_table")
        version = int((yield Statement("schema_version"))[0][0])
        if version > len(scripts):
            raise SchemaError(
                f"the store's schema is version {version}, this Windlass knows up to {len(scripts)}: upgrade Windlass"
            )
        for number, script in enumerate(scripts[version:], version + 1):
            for text in split(script):
                yield Statement(RAW, (text,))
            yield Statement("schema_applied", (number, now))
        return len(scripts)

    @plan(write=False)
    def version(self) -> Steps[int]:
        """See Store.version."""
        if not (yield Statement("has_schema"))[0][0]:
            return 0
        return int((yield Statement("schema_version"))[0][0])

    # --- what the shared operations leave to each database ---------------------------------------------------

    def _store(self, jobs: Sequence[NewJob], now: int) -> Steps[None]:
        tail = (yield Statement("jobs_tail"))[0][0]
        rows = [row_of(job, tail + n, now) for n, job in enumerate(jobs, 1)]
        # The conflict clause leaves alone what is stored already, and the statements below see only rows that are new.
        yield Statement("job_insert", many=rows)
        yield from self._place_new(rows, tail, now)

    def _place_new(self, rows: Sequence[tuple[Any, ...]], tail: int, now: int) -> Steps[None]:
        ready = later = expiring = False
        for row in rows:
            if row[DUE] <= now:
                ready = True
            else:
                later = True
            if row[EXPIRES] is not None:
                expiring = True
        if ready:
            yield Statement("ready_insert_new", (tail, now))
        if later:
            yield Statement("waiting_insert_new", (tail, now))
        if expiring:
            yield Statement("expiring_insert_new", (tail,))

    def _grant(
        self, rows: Sequence[HeldRow], now: int, worker: str, seq: int, lane: int, queue: str
    ) -> Steps[None]:
        seqs = as_json([row.seq for row in rows])
        yield Statement("held_insert", (worker, seq, now, seqs))
        # Bounded by rank and seq: a million jobs of one instant have one rank, and a claim must not walk them all.
        rank, last = max((row.rank, row.seq) for row in rows)
        yield Statement("ready_take", (lane, queue, rank, last, seqs))

    def _end(self, ends: Sequence[tuple[Grant, Transition]], now: int) -> Steps[None]:
        # What differs goes as an object: SQLite gives its keys and values as they are, but parses the array of a row
        # anew for each column asked of it (2.9 us a job, not 0.8).
        alike: dict[tuple[Any, ...], dict[str, str | None]] = {}
        for _, t in ends:
            alike.setdefault(end_of(t), {})[t.id] = last_words(t)
        for end, texts in alike.items():
            yield Statement("ended_insert", (now, *end, as_json(texts)))

    def _let_go(self, moves: Sequence[tuple[Grant, Transition]]) -> Steps[None]:
        yield Statement("held_delete", (as_json([g.id for g, _ in moves]),))

    def _leave(self, seq: int | None) -> Steps[None]:
        for line in ("ready", "waiting", "blocked"):
            yield Statement(f"unplace_{line}", (seq,))

    def _promote(self, now: int, limit: int) -> Steps[int]:
        before = (yield Statement("changes"))[0][0]
        yield Statement("promote_ready", (now, limit))
        yield Statement("promote_waiting", (now, limit))
        return int((yield Statement("changes"))[0][0] - before) // 2
