"""What an examination of a store finds: readings, each with a verdict."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Verdict = Literal["ok", "warning", "bad"]


class Reading(msgspec.Struct, frozen=True):
    """One thing that was looked at. `bad` makes a store unhealthy; a warning is for somebody to think about."""

    name: str
    value: Any
    verdict: Verdict = "ok"
    note: str = ""
