"""Stores by URL. A store's package, and with it its driver, is imported when its first URL is opened."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from windlass.core.errors import ConfigError
from windlass.core.words import near

if TYPE_CHECKING:
    from windlass.ports.store import Opened

_NODES = (f"{plain}+{kind}" for kind in ("sentinel", "cluster") for plain in ("redis", "rediss"))
REDIS = ("redis", "rediss", "unix", *_NODES)
SCHEMES = {
    "memory": "windlass.stores.memory:open_memory",
    "postgresql": "windlass.stores.postgres:open_postgres",
    **dict.fromkeys(REDIS, "windlass.stores.redis:open_redis"),
    "sqlite": "windlass.stores.sqlite:open_sqlite",
    "sqlite+stdlib": "windlass.stores.sqlite:open_sqlite",
}
EXTRAS = {"postgresql": "postgres", **dict.fromkeys(REDIS, "redis")}
"""What of Windlass has to be installed for a store whose driver does not come with it."""


def open(url: str, *, clock: Callable[[], int] | None = None, **options: Any) -> Opened:  # noqa: A001 - as in shelve
    """Open the store that `url` names; `clock` (microseconds since 1970) replaces the store's own, for tests.

    `options` are the store's own (for SQLite: `durability`). Nothing is created before the first operation. Raises
    ConfigError for a scheme that is not there, naming those that are, for one whose driver is not installed, and for
    what the store finds wrong with the rest.
    """
    if problem := problem_of(url):
        raise ConfigError(f"url: {problem}")
    scheme = url.partition("://")[0]
    opened: Opened = _opener(scheme)(url, clock=clock, **options)
    return opened


def _opener(scheme: str) -> Callable[..., Opened]:
    module, _, function = SCHEMES[scheme].partition(":")
    try:
        found: Callable[..., Opened] = getattr(importlib.import_module(module), function)
    except ImportError as error:  # a driver may also be there and not find its library
        if scheme not in EXTRAS:
            raise
        wanted = f"pip install 'windlass[{EXTRAS[scheme]}]'"
        raise ConfigError(f"url: {scheme}:// needs a driver: {wanted} ({' '.join(str(error).split())})") from error
    return found


def problem_of(url: str) -> str:
    """What is wrong with the scheme of `url`, with what would be right; empty if there is such a store."""
    scheme, mark, _ = url.partition("://")
    if mark and scheme in SCHEMES:
        return ""
    known = ", ".join(f"{name}://" for name in SCHEMES if name not in REDIS[1:])
    # Without a scheme the text may be anything, a password included, so it is not shown.
    problem = f"no store is called {scheme!r}" if mark else "it names no store"
    meant = near(scheme, SCHEMES) if mark else ""
    return f"{problem}; there are {known}{meant and f'.{meant}'}"
