"""Values as a statement's single parameter."""

from __future__ import annotations

import msgspec

_encode = msgspec.json.encode


def as_json(value: object) -> str:
    """A statement's single parameter."""
    return _encode(value).decode()
