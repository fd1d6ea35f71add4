"""The memory store whole: the executable specification of `ports.store.Store`."""

from __future__ import annotations

from windlass.ports.plan import NOW, Steps, plan
from windlass.stores.memory.departure import Departing
from windlass.stores.memory.survey import Survey

SCHEMA = 1


class MemoryStore(Departing, Survey):
    """Every operation of `ports.store.Store` on plain dicts. Nothing outlives the process."""

    capabilities = frozenset({"atomic_batch", "atomic_plan", "push", "search", "wide_numbers"})

    @plan
    def migrate(self) -> Steps[int]:
        """See Store.migrate."""
        yield NOW
        return SCHEMA

    @plan(write=False)
    def version(self) -> Steps[int]:
        """See Store.version."""
        yield NOW
        return SCHEMA
