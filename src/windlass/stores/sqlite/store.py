"""The SQLite store: plans only. What does the I/O is `shell.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from windlass.core.errors import SchemaError
from windlass.core.job import NewJob
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.stores.named_sql import load_migrations, split
from windlass.stores.sql.claim import Claiming
from windlass.stores.sql.departure import Departing
from windlass.stores.sql.enqueue import row_of
from windlass.stores.sql.survey import Survey

DUE, EXPIRES = 9, 11
"""Where they stand in a row of `job_insert`."""
RAW = "raw"
"""The one statement name that carries its own text: a migration's."""


class SqliteStore(Departing, Survey, Claiming):
    """Every operation of `ports.store.Store` on one SQLite file; see migrations/001_first.sql for the layout."""

    capabilities = frozenset({"atomic_batch", "caller_transaction", "durable", "push", "search", "transaction"})

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

    def _leave(self, seq: int | None) -> Steps[None]:
        for line in ("ready", "waiting", "blocked"):
            yield Statement(f"unplace_{line}", (seq,))

    def _promote(self, now: int, limit: int) -> Steps[int]:
        before = (yield Statement("changes"))[0][0]
        yield Statement("promote_ready", (now, limit))
        yield Statement("promote_waiting", (now, limit))
        return int((yield Statement("changes"))[0][0] - before) // 2
