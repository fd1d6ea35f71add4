"""The shell of an event loop, at its end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from windlass import stores
from windlass.core.errors import StoreError


def test_what_comes_after_the_end_is_refused_and_not_left_waiting(tmp_path: Path) -> None:
    opened = stores.open(f"sqlite:///{tmp_path}/jobs.db")

    async def scenario() -> None:
        shell = opened.async_shell()
        await shell.run(opened.store.migrate())
        before = asyncio.ensure_future(shell.run(opened.store.workers()))
        await asyncio.sleep(0)  # so that it stands in the line
        line = shell._lines[False]  # as another thread may have it in its hand when the end comes
        opened.close()
        with pytest.raises(StoreError, match="was closed"):
            await asyncio.wait_for(line.put(opened.store.workers(), None), 5.0)
        assert await asyncio.wait_for(before, 5.0) == []

    asyncio.run(scenario())
