"""The Prefer header (RFC 7240), as far as it concerns waiting."""

from __future__ import annotations

from collections.abc import Iterable

WAIT_MOST = 60


def wait(headers: Iterable[str]) -> int | None:
    """Seconds that a request prefers to wait for its answer, at most 60; None if it does not say, or not clearly.

    What cannot be understood must be ignored, says the RFC; of one preference said twice the first counts.
    """
    for header in headers:
        for preference in header.split(","):
            name, mark, value = preference.partition(";")[0].partition("=")
            if name.strip().lower() != "wait" or not mark:
                continue
            text = value.strip().strip('"')
            # isdecimal alone takes digits of every script; ten of ours are beyond any patience.
            return min(int(text[:10]), WAIT_MOST) if text.isascii() and text.isdecimal() else None
    return None
