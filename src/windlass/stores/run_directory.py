"""Where the workers of one machine meet that use one server."""

from __future__ import annotations

import os
import stat
import tempfile


def own_directory() -> str | None:
    """A directory in which nobody else can put or remove files; None where somebody else has taken its name."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    place = os.path.join(tempfile.gettempdir(), f"windlass-{os.getuid()}")
    if os.path.isdir(runtime):
        place = os.path.join(runtime, "windlass")
    try:
        os.makedirs(place, mode=0o700, exist_ok=True)
        found = os.lstat(place)
    except OSError:
        return None
    return place if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() else None
