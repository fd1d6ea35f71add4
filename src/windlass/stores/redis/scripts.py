"""The scripts, each with the parts that it needs put before it."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

PACKAGE = "windlass.stores.redis.lua"
_NEEDS = re.compile(r"-- needs: (.*)\n")


class Script(NamedTuple):
    """A script as the server knows it."""

    text: bytes
    sha: bytes


@cache
def script(name: str) -> Script:
    """By its name; raises FileNotFoundError for one that is none."""
    own = _read(name)
    needs = _NEEDS.match(own)
    assert needs, f"{name}.lua: its first line must say what it needs"
    text = "\n".join([*map(_read, needs[1].split()), own]).encode()
    return Script(text, hashlib.sha1(text).hexdigest().encode())  # noqa: S324 - the name that Redis gives it


def _read(name: str) -> str:
    return files(PACKAGE).joinpath(f"{name}.lua").read_text()
