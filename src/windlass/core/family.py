"""Families of jobs: whose child one is."""

from __future__ import annotations

import msgspec

from windlass.core.job import read_meta

STOPPED = "parent_cancelled"
"""The reason of a child that was cancelled as it came."""


def parent_of(meta: str) -> str:
    """The parent in the JSON text of a Meta; empty where there is none, or where it cannot be read."""
    if '"parent_id"' not in meta:
        return ""
    try:
        return read_meta(meta).parent_id
    except msgspec.DecodeError:
        return ""
