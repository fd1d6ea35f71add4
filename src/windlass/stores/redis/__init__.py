"""The store on a Redis or Valkey server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

import redis

from windlass.core.errors import CapabilityMissing
from windlass.stores.async_shell import AsyncShell
from windlass.stores.redis.shell import RedisShell
from windlass.stores.redis.store import RedisStore


class OpenedRedis:
    """See `ports.store.Opened`."""

    def __init__(self, url: str, prefix: str, clock: Callable[[], int] | None) -> None:
        self.url = url
        self.store: Any = RedisStore()
        self.shell: Any = RedisShell(redis.Redis.from_url(url), prefix, clock)
        self._async: dict[asyncio.AbstractEventLoop, AsyncShell] = {}

    def async_shell(self) -> AsyncShell:
        """See Opened.async_shell."""
        loop = asyncio.get_running_loop()
        if loop not in self._async:
            self._async[loop] = AsyncShell(self.shell, loop)
        return self._async[loop]

    def own(self, connection: Any) -> NoReturn:
        """See Opened.own."""
        raise CapabilityMissing("caller_transaction: Redis cannot join a transaction of a database")

    def run_directory(self) -> str | None:
        """See Opened.run_directory."""
        return None

    def close(self) -> None:
        """See Opened.close."""
        for shell in self._async.values():
            shell.stop()
        self.shell.close()


def open_redis(url: str, prefix: str = "windlass", clock: Callable[[], int] | None = None) -> OpenedRedis:
    """Open the store at a URL."""
    return OpenedRedis(url, prefix, clock)
