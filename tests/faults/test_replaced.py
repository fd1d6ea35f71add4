"""The store's file deleted, or replaced, under those who work on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.rig import eventually, rig
from windlass import Windlass, stores
from windlass.core.errors import StoreReplaced
from windlass.runtime.poller import Poller
from windlass.stores.sqlite.shell import PLACE_EVERY


def deleted(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    other = path.with_name("other.db")
    with Windlass(f"sqlite:///{other}") as app:
        assert app.opened
    other.rename(path)


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+stdlib"])
@pytest.mark.parametrize("happens", [deleted, replaced])
def test_the_poll_finds_it_and_says_so_once(tmp_path: Path, scheme: str, happens: Callable[[Path], None]) -> None:
    path = tmp_path / "jobs.db"
    opened = stores.open(f"{scheme}:///{path}")
    opened.shell.run(opened.store.migrate())
    told: list[StoreReplaced] = []
    poller = Poller(opened, lambda: None, told.append)
    poller.tick()
    path.rename(tmp_path / "moved.db")
    (tmp_path / "moved.db").rename(path)
    for _ in range(PLACE_EVERY):
        poller.tick()
    assert told == [], "it is the same file"
    if scheme == "sqlite+stdlib" and happens is replaced:
        path.rename(tmp_path / "old.db")
        path.touch()
    else:
        happens(path)
    for _ in range(3 * PLACE_EVERY):
        poller.tick()
    opened.close()
    assert [str(path) in str(each) for each in told] == [True]


def test_a_store_that_is_not_there_yet_is_not_missed(tmp_path: Path) -> None:
    opened = stores.open(f"sqlite:///{tmp_path}/jobs.db")
    opened.shell.changed()
    opened.close()


@pytest.mark.parametrize("happens", [deleted, replaced])
@pytest.mark.parametrize("processes", ["1", "0"])
def test_workers_end_and_serve_the_new_file_when_started_anew(
    tmp_path: Path, processes: str, happens: Callable[[Path], None]
) -> None:
    with rig(tmp_path) as r:
        first = r.supervise("--processes", processes)
        eventually(r.workers)
        happens(tmp_path / "jobs.db")
        code = first.process.wait(20.0)
        assert code == (4 if processes == "1" else 1)
        assert str(tmp_path / "jobs.db") in r.logs()
        r.opened.close()
        r.opened = stores.open(r.url)
        again = r.supervise("--processes", processes)
        eventually(lambda: r.run(r.opened.store.version()))
        eventually(r.workers)
        [job] = r.enqueue("good", ())
        eventually(lambda: r.job(job).state == "completed")
        assert again.stop() == 0
