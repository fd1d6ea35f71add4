"""Keys that stand twice in one JSON object: readers differ in which of the two they take, so nobody knows what was
meant (I24)."""

from __future__ import annotations

import json
from typing import Any

from windlass.core.errors import PayloadInvalid


class _Twice(dict[str, Any]):
    """An object in which a key stood twice."""

    key = ""


def refuse_duplicates(text: str | bytes | bytearray, where: str = "") -> None:
    """Raise PayloadInvalid, with the path below `where`, if an object in `text` has a key twice.

    `text` is JSON in UTF-8 that has been read already: for what is none, this raises what `json.loads` does.
    """
    found: list[_Twice] = []

    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        plain = dict(pairs)
        if len(plain) == len(pairs):
            return plain
        guilty, left = _Twice(plain), set(plain)
        for name, _ in pairs:
            if name not in left:
                guilty.key = name
                break
            left.remove(name)
        found.append(guilty)
        return guilty

    # Numbers stay text: what they come to is no business of this.
    value = json.loads(text, object_pairs_hook=read, parse_int=str, parse_float=str)
    if found:
        raise PayloadInvalid(*_first(value, where, found[0]))


def _first(value: Any, where: str, otherwise: _Twice) -> tuple[str, str]:
    """The path of the first such object that can still be reached: one may have stood under the key of another."""
    parts = [(where, value)]
    while parts:
        path, part = parts.pop()
        if isinstance(part, _Twice):
            return _below(path, part.key), "is given twice"
        if isinstance(part, dict):
            parts += [(_below(path, name), child) for name, child in reversed(part.items())]
        elif isinstance(part, list):
            parts += [(f"{path}[{index}]", part[index]) for index in range(len(part) - 1, -1, -1)]
    return _below(where, otherwise.key), "is given twice"


def _below(path: str, name: str) -> str:
    shown = name if name.isprintable() and len(name) <= 60 else ascii(name[:60])
    return f"{path}.{shown}" if path else shown
