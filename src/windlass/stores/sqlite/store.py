"""The SQLite store: plans only. What does the I/O is `shell.py`."""

from __future__ import annotations

from windlass.core.errors import SchemaError
from windlass.ports.plan import NOW, Statement, Steps, plan
from windlass.stores.named_sql import load_migrations, split
from windlass.stores.sqlite.claim import Claiming
from windlass.stores.sqlite.schedules import Scheduling
from windlass.stores.sqlite.survey import Survey

RAW = "raw"
"""The one statement name that carries its own text: a migration's."""


class SqliteStore(Scheduling, Survey, Claiming):
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
