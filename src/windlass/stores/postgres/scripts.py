"""SQL for a person to read and run: migrations, and roles."""

from __future__ import annotations

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
    """Four roles without a login, to be granted to those who have one."""
    name = quoted(schema)
    migrator, worker, producer, reader = (
        quoted(f"{schema}_{role}") for role in ("migrator", "worker", "producer", "reader")
    )
    written = ", ".join(f"{name}.{table}" for table in WRITTEN["producer"])
    emptied = ", ".join(
        f"{name}.{table}_{part}"
        for tables, parts in ((RINGS, 2), (("jobs", "ended"), PARTS))
        for table in tables
        for part in range(parts)
    )
    return f"""\
-- Windlass: roles for the schema {name}. Run this after the first migration, as who owns the schema or as a superuser;
-- then for instance: GRANT {worker} TO my_worker_login;
CREATE ROLE {migrator} NOLOGIN;
CREATE ROLE {worker} NOLOGIN;
CREATE ROLE {producer} NOLOGIN;
CREATE ROLE {reader} NOLOGIN;
GRANT USAGE ON SCHEMA {name} TO {migrator}, {worker}, {producer}, {reader};

-- Who migrates makes and changes the tables; grant it to whoever deploys, and to nobody else.
GRANT ALL ON SCHEMA {name} TO {migrator};
GRANT ALL ON ALL TABLES IN SCHEMA {name} TO {migrator};
GRANT ALL ON ALL SEQUENCES IN SCHEMA {name} TO {migrator};

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

-- What later migrations make is theirs as well.
ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA {name}
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {worker};
ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA {name} GRANT SELECT ON TABLES TO {producer}, {reader};
ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA {name} GRANT USAGE, SELECT ON SEQUENCES TO {worker}, {producer};
ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA {name}
    GRANT SELECT ON SEQUENCES TO {reader};"""  # noqa: S608 - every name is quoted
