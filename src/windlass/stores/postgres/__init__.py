"""The PostgreSQL store: `postgresql://user@host/database`, PostgreSQL 15 or later."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from windlass.core.errors import CapabilityMissing, ConfigError
from windlass.core.health import Reading
from windlass.core.words import redacted
from windlass.stores.address import check_address
from windlass.stores.async_shell import AsyncShell
from windlass.stores.pool import Pool
from windlass.stores.postgres.asyncpg_shell import AsyncpgShell, is_asyncpg
from windlass.stores.postgres.caller_shell import AsyncCallerShell, CallerShell
from windlass.stores.postgres.connection import Connector
from windlass.stores.postgres.hints import Hints
from windlass.stores.postgres.rights import MigratingStore, asking, listed
from windlass.stores.postgres.shell import Clock, Shell
from windlass.stores.postgres.statements import load_scripts
from windlass.stores.postgres.wire import Wire, innermost, joined
from windlass.stores.run_directory import own_directory

SCHEMA = "windlass"
NAME_MOST = 50
"""Of a schema, in bytes: with what is put before and behind it, it must stay a name of PostgreSQL's, 63 bytes long."""
UNFIT = frozenset("\0'%\\$\n\r")
"""The names of tables stand in texts as well, beside parameters, and in comments."""
CONNECTIONS = 8
"""Of one process at once, if nothing else is said: one more for a supervisor, which listens."""


def open_postgres(
    url: str, *, clock: Clock | None = None, timeout: float = 5.0, beside: OpenedPostgres | None = None
) -> OpenedPostgres:
    """Open the store in the database that `url` names; nothing is sent before the first operation.

    Of the parameters behind a `?`, `schema` names the schema (default: windlass), `pool` how many connections this
    process may have at once (default: 8), and `pooler=transaction` says that a pooler stands in between that gives each
    transaction another connection, as PgBouncer does; `listen` is then the URL by which the server itself is reached,
    for the one connection that must last. The others are libpq's. `beside` is the same store, opened in this process
    already: each is closed by itself, but both use the same connections. Raises ConfigError for what cannot be right.
    """
    check_address(url)
    base, ours = _parameters(url)
    if "listen" in ours:
        check_address(ours["listen"], "url: listen")
        if not ours["listen"].startswith(("postgresql://", "postgres://")):
            raise ConfigError("url: listen must be a URL of its own, postgresql://..., percent-encoded")
    schema = ours.get("schema", SCHEMA)
    if not schema or len(schema.encode()) > NAME_MOST or UNFIT.intersection(schema):
        raise ConfigError(f"url: schema={schema!r} must be a name of 1 to {NAME_MOST} bytes, without any of ' % $ \\")
    most = _number(ours.get("pool", str(CONNECTIONS)))
    pooler = ours.get("pooler", "session")
    if pooler not in {"session", "transaction"}:
        raise ConfigError(f"url: pooler={pooler!r} must be transaction or session")
    pooled = pooler == "transaction"
    pool = Pool(Connector(base, pooled=pooled).connect, most) if beside is None else beside.shell.pool
    direct = Connector(ours.get("listen", base), pooled=False)
    opened = OpenedPostgres(url, f"{base}\n{schema}", schema, pool, direct, clock, timeout)
    opened.deaf = pooled and "listen" not in ours
    return opened


class OpenedPostgres:
    """See ports.store.Opened."""

    def __init__(
        self,
        url: str,
        identity: str,
        schema: str,
        pool: Pool[Wire],
        direct: Connector,
        clock: Clock | None,
        timeout: float,
    ) -> None:
        self.url = redacted(url)
        self.schema = schema
        self.store = MigratingStore(schema)
        self.deaf = False
        """Whether a pooler stands in between through which nobody can listen, and no other way was named."""
        self._identity = identity
        hints = Hints(f"windlass:{schema}", direct.connect)
        self.shell: Shell = Shell(pool, load_scripts(schema), hints, clock, timeout)
        self._async: dict[asyncio.AbstractEventLoop, AsyncShell] = {}

    def async_shell(self) -> AsyncShell:
        """See ports.store.Opened."""
        loop = asyncio.get_running_loop()
        for gone in [each for each in list(self._async) if each.is_closed()]:
            shell = self._async.pop(gone, None)
            if shell is not None:
                shell.stop()
        found = self._async.get(loop)
        if found is None:
            found = self._async[loop] = AsyncShell(self.shell, loop)
        return found

    def own(self, connection: Any) -> CallerShell | AsyncpgShell:
        """See ports.store.Opened: a connection of psycopg's or asyncpg's to this very database, or what SQLAlchemy or
        Django has around one."""
        inner = innermost(connection)
        if is_asyncpg(inner):
            return self.shell.spoken_by(inner)
        found = joined(inner)
        if found is None:
            raise CapabilityMissing(
                f"caller_transaction: a {type(connection).__name__} is no connection of psycopg's or asyncpg's, and "
                "has none; this store joins no other"
            )
        wire, on_a_loop = found
        return (AsyncCallerShell if on_a_loop else CallerShell)(self.shell, inner, wire)

    def run_directory(self) -> str | None:
        """See ports.store.Opened. Workers of this machine that go by the same URL meet here; others by their leases."""
        digest = hashlib.sha256(self._identity.encode()).hexdigest()[:16]
        base = own_directory()
        return None if base is None else os.path.join(base, f"postgres-{digest}")

    longest_migration = 86_400.0
    """Seconds for which a person who migrates has patience: an index of a large table takes as long as it takes."""

    def missing_for_work(self) -> str:
        """What the login lacks for a worker, in words; empty: nothing."""
        rights = self.shell.run(asking(self.schema))
        lacks = rights.lacks("worker")
        if not lacks:
            return ""
        return f"{rights.login!r} may not work here: it lacks {listed(lacks)}; see `windlass store roles`"

    def migration_sql(self, version: int) -> str:
        """What brings a schema of this version to ours, for those who may not let a program do it."""
        from windlass.stores.postgres.scripts import migration

        return migration(self.schema, version)

    def roles_sql(self) -> str:
        """What makes the roles of those who migrate, work, enqueue and read."""
        from windlass.stores.postgres.scripts import roles

        return roles(self.schema)

    def diagnose(self) -> Iterator[Reading]:
        """What `windlass store doctor` wants to know of this store in particular."""
        from windlass.stores.postgres.diagnosis import diagnose

        return diagnose(self)

    def close(self) -> None:
        """See ports.store.Opened."""
        for shell in list(self._async.values()):
            shell.stop()
        self._async.clear()
        self.shell.close()


def _parameters(url: str) -> tuple[str, dict[str, str]]:
    """The URL as libpq is to read it, to which a plus is a plus, and the parameters that are ours."""
    base, _, query = url.partition("?")
    ours, rest = {}, []
    for name, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        if name in {"schema", "pool", "pooler", "listen"}:
            ours[name] = value
        else:
            rest.append((name, value))
    return base + (f"?{urlencode(rest, quote_via=quote)}" if rest else ""), ours


def _number(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 1_000:
        raise ConfigError(f"url: pool={text!r} must be a number from 2 to 1000")
    return int(text)
