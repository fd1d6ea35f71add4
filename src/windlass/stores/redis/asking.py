"""What a script answers: msgpack, in one piece."""

from __future__ import annotations

from typing import Any, cast

from msgspec.msgpack import Decoder

from windlass.ports.plan import Statement, Steps

Field = tuple[str, str | None, str | None]
"""Of a hash: its name, what was read of it, and what to keep of it; None is nothing."""

_decode = Decoder().decode


def raw(script: str, params: tuple[Any, ...] = ()) -> Steps[bytes]:
    """The answer of a script as it came, to be decoded as what it is."""
    return cast("bytes", (yield Statement(script, params)))


def ask(script: str, params: tuple[Any, ...] = ()) -> Steps[Any]:
    """The answer of a script."""
    return _decode((yield from raw(script, params)))


def all_of(name: str) -> Steps[tuple[dict[str, str], int]]:
    """All fields of a hash that is decided about here, and the time."""
    flat, now = yield from ask("cas_get", (name, None))
    return dict(zip(flat[::2], flat[1::2], strict=True)), now


def some_of(name: str, fields: list[str]) -> Steps[tuple[list[str | None], int]]:
    """Some of them, in that order."""
    found, now = yield from ask("cas_get", (name, fields))
    return found, now


def put(name: str, fields: list[Field]) -> Steps[bool]:
    """Write what was decided, if all of it is still as it was read."""
    return (yield from ask("cas_put", (name, fields)))  # type: ignore[no-any-return]
