"""Enqueueing on the caller's own sqlite3 connection, in every mode that it can be in, and when it cannot work."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disk import faulty
from tests.faults.kit import new_job, open_store, raw, typed, url_of
from tests.faults.test_frozen_store import frozen
from windlass import IdempotencyConflict, Windlass
from windlass.core.errors import CapabilityMissing, StoreError, StoreFull, StoreTimeout, StoreUnavailable
from windlass.stores.sqlite.driver_stdlib import CallerDriver

JOURNALS = ("stdlib", "stdlib-wal")
MODES: dict[str, dict[str, Any]] = {
    "legacy": {},
    "deferred": {"isolation_level": "DEFERRED"},
    "immediate": {"isolation_level": "IMMEDIATE"},
    "exclusive": {"isolation_level": "EXCLUSIVE"},
    "none": {"isolation_level": None},
}
if sys.version_info >= (3, 12):
    MODES |= {"autocommit": {"autocommit": True}, "pep249": {"autocommit": False}}
COMMITS_ITSELF = {"none", "autocommit"}


class Till:
    """An application beside the caller's own table, on one file."""

    def __init__(self, kind: str, path: Path, timeout: float = 5.0) -> None:
        self.kind, self.path = kind, path
        open_store(kind, path).close()
        with raw("stdlib", path) as connection:
            connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        self.app = Windlass(url_of(kind, path), enqueue_timeout=timeout)

    @contextmanager
    def connection(self, **options: Any) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, **{"timeout": 1.0, **options})
        try:
            yield connection
        finally:
            connection.close()

    def pay(self, n: int, **options: Any) -> Any:
        return self.app.enqueue("pay", [n], **options)

    def seen(self) -> tuple[list[int], list[str]]:
        """What another connection sees: orders, and payloads of jobs."""
        with raw("stdlib", self.path) as connection:
            orders = [row[0] for row in connection.execute("SELECT id FROM orders ORDER BY id")]
            jobs = [row[0] for row in connection.execute("SELECT payload FROM windlass_jobs ORDER BY seq")]
        assert self.app.engine.run(self.app.opened.store.audit()) == []
        return orders, jobs


def payloads(*numbers: int) -> list[str]:
    return [f"[[{n}],{{}}]" for n in numbers]


@pytest.fixture
def till(request: pytest.FixtureRequest, place: Path) -> Iterator[Till]:
    found = Till(getattr(request, "param", "stdlib-wal"), place / "app.db")
    found.app.client.stats()
    yield found
    found.app.close()


each_journal = pytest.mark.parametrize("till", JOURNALS, indirect=True)
each_mode = pytest.mark.parametrize("mode", MODES)


def begin(connection: sqlite3.Connection, mode: str) -> None:
    """A transaction in which nothing was written yet, where the connection does not begin one by itself."""
    if mode in COMMITS_ITSELF:
        connection.execute("BEGIN")


def end(connection: sqlite3.Connection, word: str) -> None:
    connection.execute(word) if connection.in_transaction else None


# --- commit and rollback --------------------------------------------------------------------------------------------


@each_mode
@each_journal
def test_a_commit_takes_both(till: Till, mode: str) -> None:
    """I7: the caller's rows and the jobs, before and after each other; nobody sees either before."""
    with till.connection(**MODES[mode]) as connection:
        begin(connection, mode)
        connection.execute("INSERT INTO orders VALUES (1)")
        with till.app.transaction(connection):
            till.pay(1)
            connection.execute("INSERT INTO orders VALUES (2)")
            asyncio.run(till.app.aenqueue("pay", [2]))
        assert connection.in_transaction
        if till.kind == "stdlib-wal":
            assert till.seen() == ([], [])
        end(connection, "COMMIT")
        assert till.seen() == ([1, 2], payloads(1, 2))


@each_mode
@each_journal
def test_a_rollback_takes_neither(till: Till, mode: str) -> None:
    """I7; also where the enqueue was what began the transaction; and the connection works on."""
    with till.connection(**MODES[mode]) as connection:
        begin(connection, mode)
        with till.app.transaction(connection):
            till.pay(1)
            connection.execute("INSERT INTO orders VALUES (1)")
        end(connection, "ROLLBACK")
        assert till.seen() == ([], [])
        begin(connection, mode)
        with till.app.transaction(connection):
            till.pay(2)
        end(connection, "COMMIT")
        assert till.seen() == ([], payloads(2))


@each_mode
@each_journal
def test_outside_a_transaction_the_connections_own_rules_hold(till: Till, mode: str) -> None:
    """I1: a connection that commits each statement by itself commits the enqueue too: what returned is stored. One that
    begins a transaction before a write begins one here, to be committed by the caller."""
    with till.connection(**MODES[mode]) as connection:
        with till.app.transaction(connection):
            till.pay(1)
        assert connection.in_transaction == (mode not in COMMITS_ITSELF)
        connection.commit()
        assert till.seen() == ([], payloads(1))
        with till.app.transaction(connection):
            connection.execute("INSERT INTO orders VALUES (1)")
            till.pay(2)
    # Closed without a commit.
    assert till.seen() == (([1], payloads(1, 2)) if mode in COMMITS_ITSELF else ([], payloads(1)))


@each_mode
@each_journal
def test_savepoints(till: Till, mode: str) -> None:
    """A job goes back with the caller's savepoint, whatever that is called, and leaves those around it alone."""
    with till.connection(**MODES[mode]) as connection, till.app.transaction(connection):
        begin(connection, mode)
        till.pay(1)
        for name in ("mine", "windlass_job"):
            connection.execute(f"SAVEPOINT {name}")
            connection.execute("INSERT INTO orders VALUES (1)")
            till.pay(2)
            connection.execute(f"ROLLBACK TO {name}")
            till.pay(3)
            connection.execute(f"RELEASE {name}")
        end(connection, "COMMIT")
        assert till.seen() == ([], payloads(1, 3, 3))


@each_mode
@each_journal
def test_a_conflict_undoes_its_own_batch_only(till: Till, mode: str) -> None:
    """An idempotency key with another payload is refused; the transaction, with what it holds already, goes on."""
    till.app.enqueue("pay", [0], idempotency_key="k")
    with till.connection(**MODES[mode]) as connection:
        begin(connection, mode)
        with till.app.transaction(connection):
            connection.execute("INSERT INTO orders VALUES (1)")
            till.pay(1)
            keyed = till.app.named("pay").using(idempotency_key="k")
            with pytest.raises(IdempotencyConflict):
                keyed.enqueue_many([(7,), (8,)])
            with pytest.raises(IdempotencyConflict):
                keyed.enqueue(9)
            assert not keyed.enqueue(0).created
            till.pay(2)
        end(connection, "COMMIT")
        assert till.seen() == ([1], payloads(0, 1, 2))


@each_mode
def test_a_refused_batch_of_its_own_leaves_no_transaction_open(till: Till, mode: str) -> None:
    """What the enqueue itself began, it ends itself when it fails: no lock is left to a caller who knows of none."""
    till.app.enqueue("pay", [0], idempotency_key="k")
    with till.connection(**MODES[mode]) as connection, till.app.transaction(connection):
        with pytest.raises(IdempotencyConflict):
            till.pay(1, idempotency_key="k")
        assert connection.in_transaction == (mode == "pep249")
        till.app.engine.run(till.app.opened.store.enqueue([new_job()]))


# --- the connection's own settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["row", "dict", "bytes", "custom", "types"])
def test_what_the_caller_set_changes_nothing_and_is_left_as_it_was(till: Till, setting: str) -> None:
    """Factories and converters are for the caller's rows, not for ours; idempotency keys are read back as text."""
    options: dict[str, Any] = {}
    if setting == "types":
        for name in ("TEXT", "INTEGER"):
            sqlite3.register_converter(name, lambda data: ("converted", data))
        options["detect_types"] = sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES
    first = till.app.enqueue("pay", [0], idempotency_key="kéy")
    try:
        with till.connection(**options) as connection:
            rows: Any = {"row": sqlite3.Row, "dict": lambda c, r: dict(enumerate(r))}.get(setting)
            texts: Any = {"bytes": bytes, "custom": lambda data: data[::-1]}.get(setting, str)
            connection.row_factory, connection.text_factory = rows, texts
            with till.app.transaction(connection):
                again = till.app.enqueue("pay", [0], idempotency_key="kéy")
                assert (again.id, again.created) == (first.id, False)
                till.pay(1)
                with pytest.raises(IdempotencyConflict):
                    till.app.enqueue("pay", [5], idempotency_key="kéy")
            assert (connection.row_factory, connection.text_factory) == (rows, texts)
            connection.commit()
    finally:
        for name in ("TEXT", "INTEGER"):
            sqlite3.converters.pop(name, None)
    assert till.seen() == ([], payloads(0, 1))


def test_another_thread(till: Till) -> None:
    """sqlite3's own rule holds, and its refusal is an error of ours; with the rule off, any thread may enqueue."""
    raised: list[BaseException] = []

    def enqueue(connection: sqlite3.Connection) -> None:
        try:
            with till.app.transaction(connection):
                till.pay(1)
                connection.commit()
        except BaseException as error:
            raised.append(error)

    for checked, refused in ((True, 1), (False, 0)):
        raised.clear()
        with till.connection(check_same_thread=checked) as connection:
            thread = threading.Thread(target=enqueue, args=(connection,))
            thread.start()
            thread.join()
        assert len(raised) == refused
        for error in raised:
            typed(error, StoreError)
    assert till.seen() == ([], payloads(1))


# --- when it cannot work --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("theirs", "ours"), [(0.0, 1.0), (0.3, 1.0), (60.0, 0.5)])
@each_journal
def test_a_busy_database(till: Till, theirs: float, ours: float) -> None:
    """I1b: StoreTimeout after the shorter of the two deadlines; the caller's own stays; then it works again."""
    till.app.close()
    till.app = Windlass(url_of(till.kind, till.path), enqueue_timeout=ours)
    till.app.client.stats()
    with till.connection(timeout=theirs) as connection, frozen("stdlib", till.path, "BEGIN IMMEDIATE") as thaw:
        with till.app.transaction(connection):
            began = time.monotonic()
            with pytest.raises(StoreTimeout, match="locked by another connection"):
                till.pay(1)
            assert min(theirs, ours) * 0.9 <= time.monotonic() - began <= min(theirs, ours) * 1.1 + 0.1
            assert not connection.in_transaction
            assert connection.execute("PRAGMA busy_timeout").fetchone() == (round(theirs * 1_000),)
            thaw()
            till.pay(2)
        connection.commit()
        assert till.seen() == ([], payloads(2))


@pytest.mark.parametrize("mode", ["legacy", "none", *(["pep249"] if "pep249" in MODES else [])])
def test_a_transaction_that_has_read_too_early(till: Till, mode: str) -> None:
    """A snapshot that is out of date can never write: said at once, with what to do, and nothing is torn."""
    till.pay(0)
    with till.connection(**MODES[mode]) as connection:
        if mode != "pep249":
            connection.execute("BEGIN")
        connection.execute("SELECT * FROM orders").fetchall()
        till.pay(1)  # another connection
        with till.app.transaction(connection):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="roll it back"):
                till.pay(2)
            assert time.monotonic() - began < 0.5
            connection.rollback()
            begin(connection, mode)
            till.pay(3)
            end(connection, "COMMIT")
        assert till.seen() == ([], payloads(0, 1, 3))


def test_the_wrong_connection(till: Till, place: Path) -> None:
    """CapabilityMissing that says what was found: another file, memory, our file under another name, anything else."""
    till.pay(0)
    other = sqlite3.connect(place / "other.db")
    other.execute("CREATE TABLE t (x)")
    memory = sqlite3.connect(":memory:")
    attached = sqlite3.connect(":memory:")
    attached.execute("ATTACH ? AS jobs", (str(till.path),))
    closed = sqlite3.connect(till.path)
    closed.close()
    for connection in (other, memory, attached, object(), "app.db"):
        with pytest.raises(CapabilityMissing, match="caller_transaction"), till.app.transaction(connection):
            raise AssertionError
    with pytest.raises(StoreError), till.app.transaction(closed):
        raise AssertionError
    link = place / "link.db"
    link.symlink_to(till.path)
    linked = sqlite3.connect(link)
    with till.app.transaction(linked):
        till.pay(1)
    linked.commit()
    for connection in (other, memory, attached, linked):
        connection.close()
    assert till.seen() == ([], payloads(0, 1))


def test_a_connection_that_may_only_read(till: Till) -> None:
    till.pay(0)
    with sqlite3.connect(f"file:{till.path}?mode=ro", uri=True) as connection:
        with till.app.transaction(connection), pytest.raises(StoreUnavailable, match="readonly"):
            till.pay(1)
    connection.close()
    with till.connection() as connection:
        connection.execute("PRAGMA query_only = ON")
        with till.app.transaction(connection), pytest.raises(StoreUnavailable, match="readonly"):
            till.pay(1)
    assert till.seen() == ([], payloads(0))


@each_mode
@each_journal
def test_a_first_use_inside_an_open_transaction(till: Till, mode: str) -> None:
    """A web process whose first enqueue follows the caller's first write: its lock must not be waited for."""
    till.pay(0)
    for stored in (True, False):
        if not stored:
            with raw("stdlib", till.path) as connection:
                names = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'windlass%' AND type = 'table'")
                for (name,) in names.fetchall():
                    connection.execute(f"DROP TABLE {name}")
        till.app.close()
        with till.connection(**MODES[mode]) as connection:
            begin(connection, mode)
            connection.execute("INSERT INTO orders VALUES (NULL)")
            began = time.monotonic()
            with till.app.transaction(connection):
                till.pay(1)
                end(connection, "ROLLBACK")
                begin(connection, mode)
                connection.execute("INSERT INTO orders VALUES (NULL)")
                till.pay(2)
                end(connection, "COMMIT")
            assert time.monotonic() - began < 2
        assert till.seen() == (([1], payloads(0, 2)) if stored else ([1, 2], payloads(2)))


@each_mode
def test_a_first_use_of_a_file_that_is_not_there_yet(place: Path, mode: str) -> None:
    """The whole of it, schema included, on the connection that makes the file."""
    path = place / "new.db"
    with Windlass(url_of("stdlib", path)) as app:
        connection = sqlite3.connect(path, **MODES[mode])
        with app.transaction(connection):
            begin(connection, mode)
            job = app.enqueue("pay", [1])
            end(connection, "COMMIT")
        connection.close()
        assert job.state() == "queued"


@pytest.mark.parametrize("act", ["eio", "full"])
@each_journal
def test_the_disk_fails_in_the_callers_transaction(till: Till, act: str) -> None:
    """I31: typed; after it the connection is not inside half a batch, and once the disk works it enqueues again."""
    struck = 0
    with faulty("stdlib") as disk:
        for at in range(1, 30):
            with till.connection() as connection:
                connection.execute("PRAGMA cache_size = 3")  # pages are written before the commit
                with till.app.transaction(connection):
                    connection.execute("INSERT INTO orders VALUES (NULL)")
                    before = till_rows(connection)
                    disk.arm(act, at)
                    try:
                        till.app.named("pay").enqueue_many([("x" * 500, n) for n in range(60)])
                        connection.commit()
                    except StoreError as error:
                        typed(error, StoreFull if act == "full" else StoreUnavailable)
                    except sqlite3.OperationalError:
                        assert disk.struck  # the caller's own commit
                    struck += disk.struck
                    disk.rest()
                    with suppress(sqlite3.OperationalError):
                        connection.rollback()
            with till.connection() as connection:
                assert (till_rows(connection) - before) % 60 == 0
                with till.app.transaction(connection):
                    till.pay(1)
                connection.commit()
    assert struck > 15
    till.seen()


def till_rows(connection: sqlite3.Connection) -> int:
    count: Callable[[str], Any] = lambda where: connection.execute(f"SELECT count(*) FROM windlass_jobs {where}")
    return int(count("WHERE length(payload) > 500").fetchone()[0])


def test_a_joined_enqueue_that_commits_would_be_seen(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with what another connection sees, against a shell that ends the caller's transaction."""
    monkeypatch.setattr(CallerDriver, "commits_itself", lambda self: True)
    with till.connection() as connection, till.app.transaction(connection):
        till.pay(1)
        connection.rollback()
    assert till.seen() != ([], [])
