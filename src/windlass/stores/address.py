"""Whether a URL can be read, said without showing any of it: what is wrong with it is mostly its password."""

from __future__ import annotations

import re

from windlass.core.errors import ConfigError

_AUTHORITY = re.compile(r"[^/?#]*")
_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOSTS = re.compile(r"(\[[^\[\]@]*\]|[^:@\[\]]*)(:\d*)?")
PLAIN = "a character of a user or a password that is no letter and no digit must be percent-encoded, as %40 for @"


def check_address(url: str, name: str = "url") -> None:
    """Raises ConfigError for a URL whose user, password or hosts cannot be told from each other."""
    rest = url.partition("://")[2]
    before = rest.partition("?")[0]
    if not url.isprintable() or " " in before:
        raise ConfigError(f"{name}: it has a space or a character that cannot be printed; {PLAIN}")
    authority = _AUTHORITY.match(rest)
    said = authority[0] if authority else ""
    if said.count("@") > 1 or "@" in before[len(said) :] or ("?" in rest and "@" in _others(rest)):
        raise ConfigError(f"{name}: there is an @ where none can be; {PLAIN}")
    if _ENCODED.search(said):
        raise ConfigError(f"{name}: there is a % without two hexadecimal digits behind it; {PLAIN}")
    hosts = said.rpartition("@")[2].split(",")
    if not all(_HOSTS.fullmatch(host) for host in hosts):
        raise ConfigError(f"{name}: a host and its port are written host:5432, or [::1]:5432; {PLAIN}")


def _others(rest: str) -> str:
    """Of the parameters, those that are no URL themselves."""
    return "&".join(each for each in rest.partition("?")[2].split("&") if not each.startswith("listen="))
