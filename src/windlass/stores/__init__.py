"""Stores by URL. A store's package, and with it its driver, is imported when its first URL is opened."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from windlass.core.errors import ConfigError

if TYPE_CHECKING:
    from windlass.ports.store import Opened

SCHEMES = {
    "memory": "windlass.stores.memory:open_memory",
    "sqlite": "windlass.stores.sqlite:open_sqlite",
    "sqlite+stdlib": "windlass.stores.sqlite:open_sqlite",
}


def open(url: str, *, clock: Callable[[], int] | None = None, **options: Any) -> Opened:  # noqa: A001 - as in shelve
    """Open the store that `url` names; `clock` (microseconds since 1970) replaces the store's own, for tests.

    `options` are the store's own (for SQLite: `durability`). Nothing is created before the first operation. Raises
    ConfigError for a scheme that is not there, naming those that are, and for what the store finds wrong with the rest.
    """
    scheme, mark, _ = url.partition("://")
    if not mark or scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        # Without a scheme the text may be anything, a password included, so it is not shown.
        problem = f"no store is called {scheme!r}" if mark else "it names no store"
        raise ConfigError(f"url: {problem}; there are {known}")
    module, _, function = SCHEMES[scheme].partition(":")
    opened: Opened = getattr(importlib.import_module(module), function)(url, clock=clock, **options)
    return opened
