"""SQL for a person to read and run: migrations, and roles; and what each role may do."""

from __future__ import annotations

import re
from typing import NamedTuple

from windlass.stores.postgres.parts import PARTS
from windlass.stores.postgres.statements import built_by, migrations_of, quoted, valid_index
from windlass.stores.postgres.store import RINGS

NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

WRITTEN = {
    # role: tables in which it writes, and deletes
    "producer": (
        *("jobs", "ready", "waiting", "blocked", "expiring", "ended", "keys", "past_keys", "unique_keys", "merged"),
        *("once", "progress", "held", "permits", "leads"),
    )
}
EMPTIED = tuple(
    f"{table}_{part}"
    for tables, parts in ((RINGS, 2), (("jobs", "ended"), PARTS))
    for table in tables
    for part in range(parts)
)
"""Parts of tables that whoever works truncates."""
READ = frozenset({"SELECT"})
WRITE = READ | {"INSERT", "UPDATE", "DELETE"}


def granted(role: str, name: str, *, sequence: bool) -> frozenset[str]:
    """What a role (worker, producer, reader) may do with a table of ours, or a sequence."""
    if sequence:
        return READ if role == "reader" else READ | {"USAGE"}
    if role == "worker" and name != "schema_version":
        return WRITE | {"TRUNCATE"} if name in EMPTIED else WRITE
    return WRITE if name in WRITTEN.get(role, ()) else READ


class Made(NamedTuple):
    """What migrations make, by name; a schema may hold more, of somebody else's."""

    tables: tuple[str, ...]
    sequences: tuple[str, ...]
    functions: tuple[str, ...]


def made() -> Made:
    """All of today's version."""
    text = "\n".join(each for script in migrations_of("windlass") for each in script)
    tables, sequences, functions = (
        tuple(dict.fromkeys(re.findall(rf'^CREATE (?:OR REPLACE )?{kind} "windlass"\.(\w+)', text, re.MULTILINE)))
        for kind in ("TABLE", "SEQUENCE", "FUNCTION")
    )
    return Made(("schema_version", *tables), sequences, functions)


def migration(schema: str, version: int) -> str:
    """From `version` to the latest, in one transaction, but for indexes that are built while everybody works."""
    scripts = migrations_of(schema)
    name = quoted(schema)
    if version >= len(scripts):
        return f"-- The schema {name} is at version {version}: there is nothing to do."
    lines = [f"-- Windlass: the schema {name}, from version {version} to {len(scripts)}."]
    before: list[str] = []
    if version == 0:
        before.append(f"CREATE SCHEMA IF NOT EXISTS {name};")
        before.append(f"CREATE TABLE {name}.schema_version (version bigint PRIMARY KEY, applied bigint NOT NULL);")
    for number, script in enumerate(scripts[version:], version + 1):
        indexes = [built.name for text in script if (built := built_by(text, schema)) is not None]
        if not indexes:
            before += [f"{text};" for text in script]
            before.append(f"{_version(name)} VALUES ({number}, {NOW});")
            continue
        lines += [*_together(before), "-- In no transaction, and while everybody works:"]
        before = []
        for index, text in zip(indexes, script, strict=True):
            lines += [f"DROP INDEX CONCURRENTLY IF EXISTS {index};", f"{text};"]
        lines.append(_applied(name, number, indexes))
    return "\n".join([*lines, *_together(before)])


def _together(lines: list[str]) -> list[str]:
    return ["BEGIN;", *lines, "COMMIT;"] if lines else []


def _applied(schema: str, number: int, indexes: list[str]) -> str:
    """A person may run what follows an error, so the version is only counted if all is as it should be."""
    complete = " AND ".join(f"EXISTS ({valid_index(index)} AND indisvalid)" for index in indexes)
    before = f"(SELECT max(version) FROM {schema}.schema_version) = {number - 1}"  # noqa: S608
    return f"{_version(schema)} SELECT {number}, {NOW}\n    WHERE {before} AND {complete};"


def _version(schema: str) -> str:
    return f"INSERT INTO {schema}.schema_version (version, applied)"


def roles(schema: str) -> str:
    """Four roles without a login, to be granted to those who have one. It may be run again, as after an upgrade."""
    name = quoted(schema)
    four = {role: quoted(f"{schema}_{role}") for role in ("migrator", "worker", "producer", "reader")}
    head = f"""\
-- Windlass: roles for the schema {name}. Run this after the first migration, as who owns the schema or as a superuser,
-- and again after each later one; then for instance: GRANT {four["worker"]} TO my_worker_login;"""
    parts = (head, _create(schema), _owner(schema, **four), _grants(name, **four), _later(name, **four))
    return "\n".join(parts)


def _create(schema: str) -> str:
    return f"""\
DO $roles$
DECLARE
    each text;
BEGIN
    -- Roles belong to the whole server: another database may have them already.
    FOREACH each IN ARRAY ARRAY['migrator', 'worker', 'producer', 'reader'] LOOP
        IF to_regrole(quote_ident('{schema}_' || each)) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', '{schema}_' || each);
        END IF;
    END LOOP;
END
$roles$;"""


def _owner(schema: str, migrator: str, worker: str, producer: str, reader: str) -> str:
    name, ours = quoted(schema), made()
    tables, functions = ", ".join((*ours.tables, *ours.sequences)), ", ".join(ours.functions)
    return f"""\
GRANT USAGE ON SCHEMA {name} TO {migrator}, {worker}, {producer}, {reader};

-- Who migrates makes and changes the tables, so they are its own; grant it to whoever deploys, and to nobody else.
-- Whoever runs this becomes a member, or could not give them away.
GRANT {migrator} TO CURRENT_USER;
GRANT ALL ON SCHEMA {name} TO {migrator};
DO $owner$
DECLARE
    each text;
BEGIN
    -- Whoever works stands behind it while it waits for a table: run it again where that was too short.
    PERFORM set_config('lock_timeout', '4s', true);
    FOR each IN
        SELECT format('ALTER TABLE %s OWNER TO %I', oid::regclass, '{schema}_migrator') FROM pg_class
        WHERE relnamespace = to_regnamespace('{name}') AND relkind IN ('r', 'p', 'S') AND relname = ANY
            ('{{{tables}}}') AND relowner <> to_regrole('{migrator}')
        UNION ALL
        SELECT format('ALTER FUNCTION %s OWNER TO %I', oid::regprocedure, '{schema}_migrator') FROM pg_proc
        WHERE pronamespace = to_regnamespace('{name}') AND proname = ANY
            ('{{{functions}}}') AND proowner <> to_regrole('{migrator}')
    LOOP
        EXECUTE each;
    END LOOP;
END
$owner$;
GRANT ALL ON ALL TABLES IN SCHEMA {name} TO {migrator};
GRANT ALL ON ALL SEQUENCES IN SCHEMA {name} TO {migrator};
"""  # noqa: S608 - every name is quoted


def _grants(name: str, migrator: str, worker: str, producer: str, reader: str) -> str:
    del migrator
    written = ", ".join(f"{name}.{table}" for table in WRITTEN["producer"])
    emptied = ", ".join(f"{name}.{part}" for part in EMPTIED)
    return f"""\
-- Who works reads and writes jobs, and changes no table. Operators and schedulers are workers too.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO {worker};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {name} TO {worker};
REVOKE INSERT, UPDATE, DELETE ON {name}.schema_version FROM {worker};
GRANT TRUNCATE ON {emptied} TO {worker};

-- Who enqueues may also read, wait for results, cancel, and take locks.
GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {producer};
GRANT INSERT, UPDATE, DELETE ON {written} TO {producer};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {name} TO {producer};

GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {reader};
-- Functions run with the rights of who calls them; where PUBLIC may call none, these still may.
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {name} TO {worker}, {producer}, {reader};
GRANT SELECT ON ALL SEQUENCES IN SCHEMA {name} TO {reader};
"""  # noqa: S608 - every name is quoted


def _later(name: str, migrator: str, worker: str, producer: str, reader: str) -> str:
    return f"""\
-- What later migrations make is theirs as well, if the migrator makes it. A login that is only a member of it would
-- make tables of its own, so have it migrate as the migrator: ALTER ROLE my_deploy_login SET role = {migrator};
ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA {name}
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {worker};
ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA {name} GRANT SELECT ON TABLES TO {producer}, {reader};
ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA {name} GRANT USAGE, SELECT ON SEQUENCES TO {worker}, {producer};
ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA {name}
    GRANT SELECT ON SEQUENCES TO {reader};"""
