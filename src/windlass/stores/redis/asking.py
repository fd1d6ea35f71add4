"""What a script answers: msgpack, in one piece."""

from __future__ import annotations

from typing import Any, cast

from msgspec.msgpack import Decoder

from windlass.ports.plan import Statement, Steps

_decode = Decoder().decode


def raw(script: str, params: tuple[Any, ...] = ()) -> Steps[bytes]:
    """The answer of a script as it came, to be decoded as what it is."""
    return cast("bytes", (yield Statement(script, params)))


def ask(script: str, params: tuple[Any, ...] = ()) -> Steps[Any]:
    """The answer of a script."""
    return _decode((yield from raw(script, params)))
