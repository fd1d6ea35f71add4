"""The scripts, each with the parts that it needs put before it."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from windlass.stores.redis.fields import FIELDS
from windlass.stores.redis.keys import NAMES

PACKAGE = "windlass.stores.redis.lua"
COMING = frozenset({"enqueue", "fan_out", "fire", "arrive", "deliver"})
"""Scripts by which jobs come in: refused while memory is full, when all others go on, so that it becomes less."""
READING = frozenset(
    {
        *("attempts", "audit", "backlog", "cas_get", "children", "dead", "departing", "endings", "families", "fetch"),
        *("held", "hours", "lapsed", "leaving", "logs", "now", "orphans", "parcels", "rules", "seq_of"),
        *("standing", "stats", "tallies", "tick", "version", "walk", "why", "worker_list"),
    }
)
"""Scripts that change nothing: whoever may only read may run them, and the server sees to it."""
_KEYS = f"local K = {{{', '.join(f'{name} = KEYS[{n}]' for n, name in enumerate(NAMES, 1))}}}"
_FIELD = re.compile(rf"\b(?:{'|'.join(FIELDS)})\b")
_NUMBER = {name: str(n) for n, name in enumerate(FIELDS, 1)}
"""Written where scripts say the names of fields: Lua has room for 200 names, and would look each of them up."""
_NEEDS = re.compile(r"-- needs:(.*)\n")


class Script(NamedTuple):
    """A script as the server knows it."""

    text: bytes
    sha: bytes
    command: bytes


@cache
def script(name: str) -> Script:
    """By its name; raises FileNotFoundError for one that is none."""
    parts: dict[str, str] = {}
    _collect(name, parts)
    reads = name in READING
    head = "#!lua" if name in COMING else f"#!lua flags={'no-writes' if reads else 'allow-oom'}"
    text = _FIELD.sub(lambda field: _NUMBER[field[0]], "\n".join([head, _KEYS, *parts.values()])).encode()
    sha = hashlib.sha1(text).hexdigest().encode()  # noqa: S324 - the name that Redis gives it
    return Script(text, sha, b"EVALSHA_RO" if reads else b"EVALSHA")


def _collect(name: str, parts: dict[str, str]) -> None:
    """A part comes after those that it needs, and once."""
    if name in parts:
        return
    text = files(PACKAGE).joinpath(f"{name}.lua").read_text()
    needs = _NEEDS.match(text)
    assert needs, f"{name}.lua: its first line must say what it needs"
    for each in needs[1].split():
        _collect(each, parts)
    parts[name] = text
