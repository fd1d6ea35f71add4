"""What the login of a store may do there, and what it lacks for what it is asked to do."""

from __future__ import annotations

from typing import NamedTuple

from windlass.core.errors import SchemaError
from windlass.ports.plan import Plan, Rows, Statement, Steps
from windlass.stores.postgres.scripts import granted, made
from windlass.stores.postgres.shell import RAW
from windlass.stores.postgres.store import PostgresStore

MAY = {"worker": "may work, operate and enqueue", "producer": "may enqueue and read", "reader": "may read"}
TO = {"worker": "to work", "producer": "to enqueue"}
EMPTY = "TRUNCATE"
"""Without which all goes on, and only slower."""

_RIGHTS = """
    SELECT current_user::text, c.relname::text, c.relkind = 'S', ARRAY(
        SELECT p FROM unnest(CASE WHEN c.relkind = 'S' THEN '{{SELECT, USAGE}}'
                                  ELSE '{{SELECT, INSERT, UPDATE, DELETE, TRUNCATE}}' END::text[]) p
        WHERE CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, p)
                   ELSE has_table_privilege(c.oid, p) END)::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = '{schema}' AND c.relname = ANY ('{{{names}}}') AND c.relkind IN ('r', 'p', 'S')
    ORDER BY c.relname"""
_MIGRATES = """
    SELECT current_user::text, coalesce(
        (SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = '{schema}'),
        has_database_privilege(current_database(), 'CREATE'))"""


class Right(NamedTuple):
    """One right to one table or sequence."""

    name: str
    place: str

    def __str__(self) -> str:
        return f"{self.name} on {self.place}"


class Rights:
    """Of one login, on what migrations made."""

    def __init__(self, rows: Rows) -> None:
        """`rows` are those that `asking` answers."""
        self.login = str(rows[0][0]) if rows else ""
        self._places = {name: sequence for _, name, sequence, _ in rows}
        self._has = {Right(each, name) for _, name, _, text in rows for each in text.strip("{}").split(",") if each}

    def wanted(self, role: str) -> list[Right]:
        """What a role has, of all places that there are."""
        return [
            Right(each, name)
            for name, sequence in self._places.items()
            for each in sorted(granted(role, name, sequence=sequence))
        ]

    def lacks(self, role: str) -> list[Right]:
        """What is missing for a role, without what it can do without."""
        return [each for each in self.wanted(role) if each not in self._has and each.name != EMPTY]

    @property
    def empties(self) -> bool:
        """Whether a worker may empty parts of tables as a whole."""
        return not any(each.name == EMPTY and each not in self._has for each in self.wanted("worker"))

    @property
    def role(self) -> str:
        """The most that it may be; empty: not even a reader."""
        return next((role for role in MAY if not self.lacks(role)), "")

    @property
    def aim(self) -> str:
        """What it was perhaps meant to be: it has more than its role, and less than this one. Empty: nothing else."""
        if self.role in ("", "worker") or self._has <= set(self.wanted(self.role)):
            return ""
        return "producer" if self.role == "reader" and self._has <= set(self.wanted("producer")) else "worker"


def listed(rights: list[Right]) -> str:
    """The first few of them, in words."""
    more = f" and {len(rights) - 3} more" if len(rights) > 3 else ""
    return ", ".join(map(str, rights[:3])) + more


def asking(schema: str) -> Plan[Rights]:
    """A plan that answers the rights of whoever runs it."""
    ours = made()
    names = ", ".join((*ours.tables, *ours.sequences))
    sql = _RIGHTS.format(schema=schema.replace("'", "''"), names=names)

    def steps() -> Steps[Rights]:
        return Rights((yield Statement(RAW, (sql,))))

    return Plan(steps, "rights", write=False)


class MigratingStore(PostgresStore):
    """A store that says who is to migrate it where its own login may not, before it tries."""

    def _migrate(self, scripts: list[list[str]]) -> Steps[int]:
        [(login, may)] = yield Statement(RAW, (_MIGRATES.format(schema=self.schema.replace("'", "''")),))
        if not may:
            version = (yield from self._version()) if (yield Statement("has_schema"))[0][0] else 0
            has = f"the store's schema is version {version}" if version else f"there is no schema {self.schema!r} yet"
            raise SchemaError(
                f"{has}, and this Windlass wants version {len(scripts)}: run `windlass store migrate` by a login that "
                f"may, as {login!r} may not"
            )
        return (yield from super()._migrate(scripts))
