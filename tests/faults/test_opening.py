"""Opening a store: many at once, half made, newer than ours, and all that a path can be instead of a database."""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disk import faulty
from tests.faults.kit import (
    KINDS,
    REPOSITORY,
    broken,
    count,
    dump,
    forks,
    migrated,
    new_job,
    open_store,
    opened_store,
    raw,
    sample,
    typed,
    url_of,
    use_wal,
)
from windlass import Windlass, stores
from windlass.core.errors import ConfigError, SchemaError, StoreCorrupt, StoreError, StoreUnavailable
from windlass.stores import sqlite as sqlite_store
from windlass.stores.sqlite import hints
from windlass.testing.conformance.sizes import size

BOTH = ("apsw", "stdlib")


# --- many at once ---------------------------------------------------------------------------------------------------


def start_up(kind: str, path: Path, together: Barrier, answers: Any) -> None:
    """A process that opens the store, makes its schema and enqueues at once."""
    try:
        together.wait(30)
        opened = stores.open(url_of(kind, path))
        version = opened.shell.run(opened.store.migrate())
        job = new_job()
        opened.shell.run(opened.store.enqueue([job]))
        opened.close()
        answers.put((version, job.id))
    except BaseException as error:
        answers.put(repr(error))
        raise


@pytest.mark.parametrize("kind", KINDS)
def test_ten_processes_open_a_fresh_file_at_once(kind: str, place: Path) -> None:
    """I31, ARCHITECTURE 8: all succeed, the schema is made once, and nothing that they enqueue is lost."""
    path = place / "jobs.db"
    if kind == "stdlib-wal":
        use_wal(path)
    context = forks()
    together, answers = context.Barrier(10), context.SimpleQueue()
    processes = [context.Process(target=start_up, args=(kind, path, together, answers)) for _ in range(10)]
    for process in processes:
        process.start()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
        process.close()
    answers.close()
    assert [each for each in found if isinstance(each, str)] == []
    (version,) = {each[0] for each in found}
    tables = dump(kind, path)
    assert [row[0] for row in tables["windlass_schema_version"]] == list(range(1, version + 1))
    assert {row[1] for row in tables["windlass_jobs"]} == {each[1] for each in found}
    assert broken(kind, path) == []


# --- half made ------------------------------------------------------------------------------------------------------


def migrate_and_die(kind: str, path: Path, at: int, act: str) -> None:
    """A process that is killed at the `at`-th thing that its migration asks of the disk."""
    with faulty(kind) as disk, opened_store(kind, path) as opened:
        disk.arm(act, at)
        opened.shell.run(opened.store.migrate())


@pytest.mark.parametrize("kind", KINDS)
def test_a_migration_that_is_killed_is_made_by_the_next(kind: str, place: Path, record_property: Any) -> None:
    """Kill -9 at every write and flush on the way to the first schema, the making of the file included."""
    killed = 0
    with faulty(kind) as disk:
        disk.arm("eio", 0)
        with migrated(kind, place / "whole.db"):
            pass
        requests = len(disk.rest())
    whole = dump(kind, place / "whole.db")
    points = sample(range(1, requests + 1), size(12, 1_000, 1_000))
    for at in points:
        path = place / f"{at}.db"
        if kind == "stdlib-wal":
            use_wal(path)
        process = forks().Process(target=migrate_and_die, args=(kind, path, at, "killed" if at % 2 else "kill"))
        process.start()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        process.close()
        with migrated(kind, path) as opened:
            opened.shell.run(opened.store.enqueue([new_job()]))
            assert opened.shell.run(opened.store.audit()) == []
        assert dump(kind, path).keys() == whole.keys()
        assert broken(kind, path) == []
    # Those past the making of the file belong to closing it, where an application's own file has less to do.
    assert killed >= len(points) * 0.6
    count(record_property, kind=kind, points=len(points), killed=killed)


@pytest.mark.parametrize("kind", BOTH)
def test_a_migration_that_changed_nothing_would_be_seen(kind: str, tmp_path: Path) -> None:
    """The comparison above, against a file whose schema lacks one table."""
    path = tmp_path / "jobs.db"
    with migrated(kind, path):
        pass
    whole = dump(kind, path)
    with raw(kind, path) as connection:
        connection.execute("DROP TABLE windlass_once")
    assert dump(kind, path).keys() != whole.keys()


# --- what is not ours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_a_newer_schema_is_refused(kind: str, tmp_path: Path) -> None:
    """I25: loudly, before anything is written, as often as it is tried; by the application as well."""
    path = tmp_path / "jobs.db"
    with migrated(kind, path):
        pass
    with raw(kind, path) as connection:
        connection.execute("INSERT INTO windlass_schema_version VALUES (1000, 0)")
    before = dump(kind, path)
    with opened_store(kind, path) as opened:
        for _ in range(2):
            with pytest.raises(SchemaError, match="version 1000.*upgrade Windlass"):
                opened.shell.run(opened.store.migrate())
    with Windlass(url_of(kind, path)) as app, pytest.raises(SchemaError):
        app.enqueue("note", [1])
    assert dump(kind, path) == before


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("content", [b"Dear diary, " * 400, b"SQLite format 3\0" + b"\xff" * 4_080, os.urandom(9_000)])
def test_a_file_that_is_no_database(kind: str, content: bytes, tmp_path: Path) -> None:
    """Said at once, and the file is left as it is. What claims to be of a format to come may only be read."""
    path = tmp_path / "jobs.db"
    path.write_bytes(content)
    said = (StoreCorrupt, StoreUnavailable) if content.startswith(b"SQLite") else StoreCorrupt
    begin = time.monotonic()
    with opened_store(kind, path) as opened:
        for plan in (opened.store.migrate(), opened.store.enqueue([new_job()]), opened.store.migrate()):
            with pytest.raises(said):
                opened.shell.run(plan)
    assert time.monotonic() - begin < 2
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", BOTH)
def test_a_database_with_damaged_pages(kind: str, tmp_path: Path) -> None:
    """StoreCorrupt where the damage is met; the audit says so too, instead of failing."""
    path = tmp_path / "jobs.db"
    with migrated(kind, path) as opened:
        opened.shell.run(opened.store.enqueue([new_job(payload=f'[["{"x" * 900}"],{{}}]') for _ in range(300)]))
    with path.open("r+b") as file:
        file.seek(40 * 4096)
        file.write(b"\xa5" * 4096 * 12)
    with opened_store(kind, path) as opened:
        met: list[BaseException | list[str]] = []
        for plan in (opened.store.audit(), opened.store.stats(exact=True)):
            try:
                met.append(opened.shell.run(plan))
            except StoreError as error:
                typed(error, StoreCorrupt)
                met.append(error)
        assert isinstance(met[0], StoreCorrupt) or met[0]


@pytest.mark.parametrize("kind", BOTH)
def test_somebody_elses_database(kind: str, tmp_path: Path) -> None:
    """Windlass's tables go beside the application's own; before they are there, SchemaError says how to make them."""
    path = tmp_path / "app.db"
    with raw(kind, path) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
        connection.execute("INSERT INTO users VALUES ('Ada')")
    with opened_store(kind, path) as opened:
        with pytest.raises(SchemaError, match="migrate"):
            opened.shell.run(opened.store.enqueue([new_job()]))
        assert opened.shell.run(opened.store.version()) == 0
        opened.shell.run(opened.store.migrate())
        opened.shell.run(opened.store.enqueue([new_job()]))
    assert dump(kind, path)["users"] == [("Ada",)]


# --- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_places_where_no_file_can_be(kind: str, tmp_path: Path) -> None:
    """ConfigError when the URL is opened, naming the place; nothing is made there."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    scheme = url_of(kind, "").removesuffix("/")
    for place, words in (
        (f"{scheme}/{tmp_path}/missing/jobs.db", "missing does not exist"),
        (f"{scheme}/{tmp_path}/folder", "is a directory"),
        (f"{scheme}/{tmp_path}/folder/", "is a directory"),
        (f"{scheme}/{tmp_path}/file/jobs.db", "does not exist"),
        (f"{scheme}/", "names no file"),
        (scheme, "names no file"),
        (f"{scheme}jobs.db", "names no file"),
        (f"{scheme}/{tmp_path}/a\0b.db", "no path of a file"),
        (f"{scheme}/{tmp_path}/a\ud800b.db", "no path of a file"),
    ):
        with pytest.raises(ConfigError) as caught:
            stores.open(place)
        assert words in str(caught.value)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]


NAMES = ["with space.db", "ünïcødé 工.db", "q?mode=memory", "a#fragment.db", "100%25.db", "file:x.db", "a'b\"c;.db", "-j", "ä" * 100]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_taken_as_it_is(kind: str, name: str, tmp_path: Path) -> None:
    """Nothing in it is a query, a fragment, an escape or a URI."""
    folder = tmp_path / name
    folder.mkdir()
    path = folder / name
    with Windlass(url_of(kind, path)) as app:
        assert app.enqueue("note", [1]).state() == "queued"
        listener = app.opened.shell.listen()
        app.enqueue("note", [2])
        listener.drain()
        listener.close()
    assert {each.name.removeprefix(name) for each in folder.iterdir()} == {"", "-run"}
    assert [row[3] for row in dump(kind, path)["windlass_jobs"]] == ["note", "note"]


@pytest.mark.parametrize("kind", BOTH)
def test_a_file_of_two_names_is_one_store(kind: str, tmp_path: Path) -> None:
    """By a linked file or a linked directory: workers must find each other's locks, and hints their listeners."""
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "jobs.db")
    names = tmp_path / "link.db", tmp_path / "real" / "jobs.db", tmp_path / "linked" / "jobs.db"
    stores_ = [open_store(kind, name) for name in names]
    assert {opened.run_directory() for opened in stores_} == {str(tmp_path / "real" / "jobs.db-run")}
    listener = stores_[0].shell.listen()
    stores_[2].shell.hint()
    assert select.select([listener], [], [], 5)[0]
    listener.close()
    for opened in stores_:
        opened.close()


@pytest.mark.parametrize("kind", BOTH)
def test_a_listener_that_cannot_be_made(kind: str, tmp_path: Path) -> None:
    """StoreUnavailable that names the directory; no descriptor stays behind."""
    (tmp_path / "jobs.db-run").write_text("in the way")
    with opened_store(kind, tmp_path / "jobs.db") as opened, pytest.raises(StoreUnavailable, match="jobs.db-run"):
        opened.shell.listen()


@pytest.mark.parametrize("kind", BOTH)
def test_a_relative_path_is_kept(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that changes its directory later still writes to the same file."""
    monkeypatch.chdir(tmp_path)
    with opened_store(kind, Path("jobs.db")) as opened:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        opened.shell.run(opened.store.migrate())
    assert (tmp_path / "jobs.db").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


READ_ONLY = """
import sys, time
from tests.faults.kit import new_job, open_store
from windlass.core.errors import StoreError, StoreUnavailable
from pathlib import Path
path = Path(sys.argv[2])
opened = open_store(sys.argv[1], path)
begin = time.monotonic()
for plan in (opened.store.enqueue([new_job()]), opened.store.lead("a", "b", 1)):
    try:
        opened.shell.run(plan)
    except StoreUnavailable as error:
        assert "cannot be used" in str(error), error
    else:
        raise SystemExit("it was written to")
opened.shell.hint()
assert time.monotonic() - begin < 2
try:
    print(opened.shell.run(opened.store.version()))
except StoreUnavailable as error:
    print(error)
opened.close()
"""


def as_anybody() -> list[str]:
    """What goes before a command so that permissions hold for it, which do not for root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("for root no file is read-only, and there is no setpriv to make it less")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folder", [0o555, 0o755])
def test_a_file_that_may_only_be_read(kind: str, folder: int, tmp_path: Path) -> None:
    """StoreUnavailable at once: no waiting for a lock that is none, no traceback of the driver."""
    place = tmp_path / "place"
    place.mkdir()
    path = place / "jobs.db"
    with migrated(kind, path) as opened:
        opened.shell.run(opened.store.enqueue([new_job()]))
    before = dump(kind, path)
    path.chmod(0o444)
    place.chmod(folder)
    try:
        program = [*as_anybody(), sys.executable, "-c", READ_ONLY, kind, str(path)]
        done = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        place.chmod(0o755)
    assert dump(kind, path) == before


# --- network file systems -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "refused"),
    [
        ("nas:/x {}/net nfs4 rw 0 0\n", "nfs4"),
        ("a / ext4 rw 0 0\n//box/x {} cifs rw 0 0\n", "cifs"),
        ("nas:/x {} nfs rw 0 0\nb {}/net ext4 rw 0 0\n", None),  # a local disk below a network mount
        ("nas:/x {}/net nfs rw 0 0\nb {}/net ext4 rw 0 0\n", None),  # the later covers the earlier
        ("b {}/net ext4 rw 0 0\nnas:/x {}/net nfs rw 0 0\n", "nfs"),
        ("nas:/x {}/ne nfs rw 0 0\n", None),  # a name that only begins alike
        ("u {}/net/with\\040space fuse.sshfs rw 0 0\n", "fuse.sshfs"),
        ("", None),
    ],
)
def test_a_network_file_system_is_refused(
    rows: str, refused: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the mount that the file really lies on, a symbolic link to it included."""
    folder = tmp_path / "net" / "with space"
    folder.mkdir(parents=True)
    (tmp_path / "mounts").write_text(rows.replace("{}", str(tmp_path)))
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setattr(sqlite_store, "MOUNTS", str(tmp_path / "mounts"))
    for place in (folder / "jobs.db", tmp_path / "link" / "jobs.db"):
        if refused is None:
            open_store("apsw", place).close()
        else:
            with pytest.raises(ConfigError, match=f"network file system \\({refused}\\)"):
                open_store("apsw", place)


def test_without_a_table_of_mounts_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "MOUNTS", str(tmp_path / "none"))
    open_store("apsw", tmp_path / "jobs.db").close()


# --- two libraries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [BOTH, BOTH[::-1]])
def test_two_libraries_on_one_file_are_refused(first: str, second: str, tmp_path: Path) -> None:
    """By device and inode, so also through a link; and the refusal itself takes no lock of the first one away."""
    path, link = tmp_path / "jobs.db", tmp_path / "link.db"
    link.symlink_to(path)
    with migrated(first, path) as opened:
        session = opened.shell.session()  # holds the write lock
        for place in (path, link):
            with opened_store(second, place) as other, pytest.raises(ConfigError, match=f"already uses .* through {first}"):
                other.shell.run(other.store.version())
        program = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
        assert "database is locked" in done.stderr
        session.rollback()
        opened.shell.run(opened.store.enqueue([new_job()]))
    with opened_store(second, path) as other:  # once the first has let go
        assert other.shell.run(other.store.stats()).states["queued"] == 1


def test_an_inode_that_comes_again_is_another_file(tmp_path: Path) -> None:
    """A store that was closed and deleted says nothing about the next file, which often gets its inode."""
    path = tmp_path / "jobs.db"
    for kind in BOTH * 5:
        with migrated(kind, path) as opened:
            opened.shell.run(opened.store.enqueue([new_job()]))
        path.unlink()


@pytest.mark.parametrize("kind", BOTH)
def test_a_hint_that_cannot_be_sent(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I1: the job is committed, so enqueue says so: with no socket to be had, and a directory that goes away."""
    with Windlass(url_of(kind, tmp_path / "jobs.db")) as app:
        listener = app.opened.shell.listen()
        with monkeypatch.context() as patch:
            patch.setattr(hints.socket, "socket", lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "too many")))
            first = app.enqueue("note", [1])
        with monkeypatch.context() as patch:
            patch.setattr(hints.os, "listdir", lambda _: (_ for _ in ()).throw(FileNotFoundError()))
            (tmp_path / "jobs.db-run" / "new").touch()
            second = app.enqueue("note", [2])
        assert [first.state(), second.state()] == ["queued"] * 2
        listener.close()
