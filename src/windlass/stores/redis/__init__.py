"""The store on a Redis or Valkey server: `redis://host:6379/0`, Redis 7.0 or Valkey 8, or later."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from windlass.core.errors import CapabilityMissing, ConfigError
from windlass.core.health import Reading
from windlass.core.words import redacted
from windlass.stores.address import check_address
from windlass.stores.async_shell import AsyncShell
from windlass.stores.pool import Pool
from windlass.stores.redis.connection import ClusterConnector, Connector, Durability, SentinelConnector
from windlass.stores.redis.keys import keys_of
from windlass.stores.redis.shell import Clock, RedisShell
from windlass.stores.redis.store import RedisStore
from windlass.stores.run_directory import own_directory

PREFIX = "windlass"
CONNECTIONS = 8
"""Of one process at once, if nothing else is said: one more for a supervisor, which listens."""
_PREFIX = re.compile(r"[^{}\0\s]{1,200}")


def open_redis(
    url: str, *, clock: Clock | None = None, timeout: float = 5.0, beside: OpenedRedis | None = None
) -> OpenedRedis:
    """Open the store on the server that `url` names; nothing is sent before the first operation.

    `redis://user:password@host:6379/0`, `rediss://` with TLS, `unix:///path.sock?db=0`,
    `redis+sentinel://host1,host2/NAME/0` (the primary of that name, whoever is it) and `redis+cluster://host1,host2`.
    Of the parameters behind a `?`, `prefix` is what the store's keys begin with (default: windlass), `pool` how many
    connections this process may have at once (default: 8), and `durability` when a write is acknowledged: once the
    `server` has it (the default: what that survives its settings say), once it is on its `disk`, or once a `replica`
    has it. The others are redis-py's. `beside` is the same store, opened in this process already: each is closed by
    itself, but both use the same connections. Raises ConfigError for what cannot be right.
    """
    if not url.startswith("unix:"):
        check_address(url)
    ours = dict(parse_qsl(url.partition("?")[2], keep_blank_values=True))
    prefix = ours.get("prefix", PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(f"url: prefix={prefix!r} must have 1 to 200 characters, and no space and no brace among them")
    durability = ours.get("durability", Durability.SERVER.value)
    if durability not in set(Durability):
        raise ConfigError(f"url: durability={durability!r} must be one of {', '.join(Durability)}")
    keys = keys_of(prefix, 0)
    connector = _connector(url, Durability(durability), keys[0])
    pool = Pool(connector.connect, _number(ours.get("pool", str(CONNECTIONS)))) if beside is None else beside.shell.pool
    shell = RedisShell(pool, connector.connect, keys, clock, timeout, Durability(durability))
    return OpenedRedis(url, prefix, shell)


def _connector(url: str, durability: Durability, key: bytes) -> Connector:
    scheme = url.partition("://")[0]
    if scheme.endswith("+sentinel"):
        return SentinelConnector(url, durability)
    if scheme.endswith("+cluster"):
        return ClusterConnector(url, durability, key)
    return Connector(url, durability)


class OpenedRedis:
    """See ports.store.Opened."""

    def __init__(self, url: str, prefix: str, shell: RedisShell) -> None:
        self.url = redacted(url)
        self.prefix = prefix
        self.store: Any = RedisStore()
        self.shell = shell
        self._identity = f"{url.partition('?')[0]}\n{prefix}"
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

    def own(self, connection: Any) -> NoReturn:
        """See ports.store.Opened."""
        raise CapabilityMissing(
            "caller_transaction: a store on Redis cannot be part of a database's transaction; use app.outbox(conn)"
        )

    def run_directory(self) -> str | None:
        """See ports.store.Opened. Workers of this machine that go by the same URL meet here; others by their leases."""
        digest = hashlib.sha256(self._identity.encode()).hexdigest()[:16]
        base = own_directory()
        return None if base is None else os.path.join(base, f"redis-{digest}")

    def roles_sql(self) -> str:
        """The commands that make the users of those who work, and of those who only read."""
        from windlass.stores.redis.rights import roles

        return roles(self.prefix)

    def diagnose(self) -> Iterator[Reading]:
        """What `windlass store doctor` wants to know of this store in particular."""
        from windlass.stores.redis.diagnosis import diagnose

        return diagnose(self)

    def close(self) -> None:
        """See ports.store.Opened."""
        for shell in list(self._async.values()):
            shell.stop()
        self._async.clear()
        self.shell.close()


def _number(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 1_000:
        raise ConfigError(f"url: pool={text!r} must be a number from 2 to 1000")
    return int(text)
