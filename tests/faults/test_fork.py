"""I28: no connection, lock or thread of a store crosses a fork."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import KINDS, REPOSITORY, broken, count, migrated, open_store, url_of
from windlass.testing.conformance.sizes import size

# Each runs as a program of its own, whose children end as any interpreter does: with all its finalisers.
HEAD = """
import asyncio, os, sys, time
from pathlib import Path
from tests.faults.kit import migrated, new_job, open_store
from windlass import Windlass, stores
from windlass.core.errors import StoreError, StoreTimeout

url, path, forks = sys.argv[1], sys.argv[2], int(sys.argv[3])

def files():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            pass
    return {fd for fd, name in found.items() if path in name}

def refused(call):
    try:
        call()
    except StoreError as error:
        assert "forked child" in str(error), error
    else:
        raise AssertionError("it was used")

def waited(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""

RAW = (
    HEAD
    + """
opened = stores.open(url)
run, store = opened.shell.run, opened.store

async def on_a_loop(plan):
    return await asyncio.wait_for(opened.async_shell().run(plan), 5)

run(store.enqueue([new_job()]))
asyncio.run(on_a_loop(store.enqueue([new_job()])))
opened.shell.changed()
for n in range(forks):
    session = opened.shell.session()  # the write lock is held across the fork
    before = files()
    pid = os.fork()
    if pid == 0:
        refused(lambda: run(store.stats()))
        refused(lambda: run(store.enqueue([new_job()])))
        refused(opened.shell.session)
        refused(opened.shell.changed)
        refused(lambda: asyncio.run(on_a_loop(store.stats())))
        refused(lambda: asyncio.run(on_a_loop(store.enqueue([new_job()]))))
        opened.close()
        assert before <= files(), "the child closed what is its parent's"
        mine = stores.open(url, timeout=0.05)
        try:
            mine.shell.run(store.enqueue([new_job()]))
        except StoreTimeout:
            pass
        else:
            raise AssertionError("the parent's lock is gone")
        assert not before & (files() - before)
        mine.close()
        sys.exit(0)
    waited(pid)
    late = stores.open(url, timeout=0.05)
    try:
        late.shell.run(store.enqueue([new_job()]))
    except StoreTimeout:
        pass
    else:
        raise AssertionError("the child's end took the parent's lock")
    late.close()
    session.run(store.enqueue([new_job()]))
    session.commit()
assert run(store.stats(exact=True)).states["queued"] == 2 + forks
assert run(store.audit()) == []
opened.close()
"""
)

BOTH = (
    HEAD
    + """
app = Windlass(url)
app.enqueue("note", ["parent"])
children = []
for n in range(forks):
    pid = os.fork()
    if pid == 0:
        for _ in range(5):
            app.enqueue("note", ["child"])
        asyncio.run(app.aenqueue("note", ["child"]))
        assert app.client.stats(exact=True).states["queued"] >= 7
        sys.exit(0)
    children.append(pid)
    app.enqueue("note", ["parent"])
for pid in children:
    waited(pid)
app.enqueue("note", ["parent"])
assert app.client.stats(exact=True).states["queued"] == 2 + 7 * forks
assert app.engine.run(app.opened.store.audit()) == []
app.close()
"""
)


def run(program: str, kind: str, path: Path, forks: int) -> None:
    with migrated(kind, path):
        pass
    command = [sys.executable, "-c", program, url_of(kind, path), str(path), str(forks)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert broken(kind, path) == []


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")


@needs_proc
@pytest.mark.parametrize("kind", KINDS)
def test_an_inherited_store_is_refused(kind: str, place: Path, record_property: Any) -> None:
    """I28: every use is a StoreError that says so, a hanging thread included; the child neither closes what it inherited
    nor takes the parent's lock away, not even by its end; and what it opens itself works."""
    forks = size(6, 300, 300)
    run(RAW, kind, place / "jobs.db", forks)
    count(record_property, kind=kind, forks=forks)


@pytest.mark.parametrize("kind", KINDS)
def test_an_application_works_on_both_sides_of_a_fork(kind: str, place: Path, record_property: Any) -> None:
    """I28: parent and children at once, each on connections of its own; nothing lost, nothing torn."""
    forks = size(8, 300, 300)
    run(BOTH, kind, place / "jobs.db", forks)
    count(record_property, kind=kind, forks=forks)


@needs_proc
def test_a_shared_connection_would_be_seen(place: Path) -> None:
    """The program above, against a shell that does not look where it is."""
    blind = "import windlass.stores.sqlite.shell as s\ns.Shell.check = lambda self: None\n"
    open_store("apsw", place / "jobs.db").close()
    with pytest.raises(AssertionError, match="it was used"):
        run(blind + RAW, "apsw", place / "jobs.db", 1)
