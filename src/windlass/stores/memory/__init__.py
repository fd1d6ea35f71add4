"""The store that is gone with its process: for tests, for trying things, as the specification."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NoReturn

from windlass.core.errors import CapabilityMissing, ConfigError
from windlass.ports.store import Shell, Store
from windlass.stores.memory.shell import AsyncMemoryShell, MemoryShell
from windlass.stores.memory.store import MemoryStore

__all__ = ["MemoryStore", "OpenedMemory", "open_memory"]


class OpenedMemory:
    """A memory store with its shells; see `ports.store.Opened`."""

    def __init__(self, store: MemoryStore, clock: Callable[[], int]) -> None:
        self.url = "memory://"
        shell = MemoryShell(store, clock)
        self.store: Store = store
        self.shell: Shell = shell
        self._async_shell = AsyncMemoryShell(shell)

    def async_shell(self) -> AsyncMemoryShell:
        """See Opened.async_shell."""
        return self._async_shell

    def own(self, connection: Any) -> NoReturn:
        """See Opened.own."""
        raise CapabilityMissing(
            f"caller_transaction: a memory store cannot join the transaction of a {type(connection).__name__}"
        )

    def run_directory(self) -> None:
        """See Opened.run_directory: leases judge who is alive."""

    def close(self) -> None:
        """See Opened.close."""
        self.shell.close()


def open_memory(url: str = "memory://", clock: Callable[[], int] | None = None) -> OpenedMemory:
    """Open a new, empty store that lives as long as the answer does; two calls give two stores.

    `clock` answers microseconds since 1970 (default: the system's). Raises ConfigError for a URL that names
    more than `memory://`.
    """
    if url.rstrip("/") != "memory:":
        raise ConfigError(f"url: {url!r}: a memory store has no host, name or options; write memory://")
    return OpenedMemory(MemoryStore(), clock or _system_clock)


def _system_clock() -> int:
    return time.time_ns() // 1_000
