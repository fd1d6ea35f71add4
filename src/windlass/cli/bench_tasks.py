"""What `windlass bench` runs: jobs that do nothing."""

from __future__ import annotations

from windlass import Windlass

app = Windlass()


@app.task
async def nothing() -> None:
    """Do nothing, as fast as can be."""
