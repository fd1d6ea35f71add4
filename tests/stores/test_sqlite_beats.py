"""A worker's lease does not end because its own process stands in line for the file (I8)."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.faults.kit import new_job
from windlass import stores
from windlass.core.errors import StoreTimeout
from windlass.testing.conformance.world import report


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+stdlib"])
def test_a_beat_goes_first_among_those_of_its_process(tmp_path: Path, scheme: str) -> None:
    """While another process has the file, whoever waits for it longer than a beat may lets the beat try as well."""
    url = f"{scheme}:///{tmp_path / 'jobs.db'}"
    mine, other = stores.open(url), stores.open(url)
    mine.shell.run(mine.store.migrate())
    began, over = threading.Event(), []

    def enqueue() -> None:
        began.set()
        over.append(mine.shell.run(mine.store.enqueue([new_job()]), 30.0))

    held = other.shell.session()  # type: ignore[attr-defined]
    waiting = threading.Thread(target=enqueue)
    waiting.start()
    began.wait()
    threading.Event().wait(0.1)
    with pytest.raises(StoreTimeout, match="another process kept the store locked"):
        mine.shell.run(mine.store.beat([report("w1")]), 0.2)
    held.rollback()
    (answer,) = mine.shell.run(mine.store.beat([report("w1")]), 5.0)
    waiting.join()
    assert not answer.taken and over[0][0].inserted
    mine.close()
    other.close()
